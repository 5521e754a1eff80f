"""Sweeps over the width of the weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import whetsim
from tests.hardware.test_quantize import bits_of, chain, random_chain
from whetsim.errors import CapacityError, SampleError
from whetsim.model import Readout
from whetsim_hardware.quantize import quantize
from whetsim_hardware.sweep import sweep


def test_widths_are_those_of_quantize() -> None:
    network, samples = random_chain(), bits_of(100, 30)
    found = sweep(network, samples, bits=[8, 2, 4])
    assert [w.bits for w in found.widths] == [2, 4, 8]
    for width in found.widths:
        assert width.flips == quantize(network, None, samples, bits=width.bits).flips
        assert width.flip_rate == width.flips / (30 * 100)
        assert width.accuracy is None
    assert found.widths[0].flips > found.widths[2].flips


def test_safe_is_the_smallest_width_with_few_enough_flips() -> None:
    network, samples = random_chain(), bits_of(100, 30)
    found = sweep(network, samples, share=0.01)
    assert [w.bits for w in found.widths] == list(range(1, 17))
    for name, bits in found.safe_bits.items():
        assert bits is not None
        rates = [
            quantize(network, None, samples, bits=b, only=[name])[name].flip_rate
            for b in range(1, bits + 1)
        ]
        assert rates[-1] <= 0.01 < min(rates[:-1], default=1.0)


def test_a_layer_that_fits_is_safe_at_its_width() -> None:
    # Ternary weights into a layer that needs more.
    rng = np.random.default_rng(0)
    ternary = rng.integers(-1, 2, (12, 9))
    rest = rng.normal(0, 1, (9, 20))
    network = chain((ternary, np.zeros(9)), (rest, rng.normal(0, 1, 20)))
    found = sweep(network, bits_of(300, 12), bits=range(2, 12), share=0.0)
    assert found.safe_bits["step_0"] == 2
    assert found.safe_bits["step_1"] is None or found.safe_bits["step_1"] > 2


def test_lost_accuracy_is_not_safe() -> None:
    readout = Readout(key=np.eye(2, 10, dtype=np.uint8))
    network = replace(random_chain(), readout=readout)
    samples = bits_of(100, 30)
    labels = whetsim.run(network, samples).predictions
    found = sweep(network, samples, labels, bits=(1, 3, 16), share=1.0)
    assert found.accuracy == 1.0
    for name, bits in found.safe_bits.items():
        alone = quantize(network, None, samples, bits=bits, only=[name], labels=labels)
        assert alone.accuracy_after == 1.0
    assert found.widths[-1].accuracy == 1.0
    text = str(found)
    assert "smallest safe width" in text
    assert "100.00% as it is" in text
    assert json.loads(json.dumps(found.to_dict()))["safe_bits"] == found.safe_bits


def test_refusals() -> None:
    network, samples = random_chain(), bits_of(5, 30)
    with pytest.raises(SampleError, match="no widths"):
        sweep(network, samples, bits=[])
    with pytest.raises(SampleError, match="bits is 17"):
        sweep(network, samples, bits=[17])
    with pytest.raises(CapacityError, match="chip 'odin'"):
        sweep(network, samples, bits=[8], chip="odin")
