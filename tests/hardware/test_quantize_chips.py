"""Quantized networks on chips: taken by the emulators, and right within their registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.hardware.test_quantize import Whole, bits_of, chain, random_chain, spikes, threshold_of
from whetsim.arithmetic import EmulationEffects
from whetsim.coding import encode_network
from whetsim.connectivity import Dense
from whetsim.errors import CapacityError, SampleError, UnknownNameError
from whetsim.model import InputSpec
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim_hardware import load_chip
from whetsim_hardware.emulate.common import chip_rule
from whetsim_hardware.quantize import quantize
from whetsim_hardware.quantize_overflow import worst_sums
from whetsim_hardware.quantize_report import Quantization
from whetsim_hardware.quantize_rules import Rules
from whetsim_hardware.sweep import sweep

CHIP_FILES = Path(whetsim.__file__).parents[1] / "hardware" / "whetsim_hardware" / "chips"


def layer(
    weight: Any, threshold: Any, low: int = 0, high: int = 1, exponent: Any = 24
) -> SpikingNetwork:
    """Return one dense population that fires iff its sum of whole weights reaches a threshold."""
    weight, threshold = np.asarray(weight), np.asarray(threshold)
    exponents = np.broadcast_to(exponent, threshold.shape)
    spec = InputSpec((len(weight),), low, high, 1.0)
    return SpikingNetwork(
        "layer",
        InputPopulation(spec.shape, low, high, "graded", spec),
        (Population("a", threshold.shape, 1, 2 ** (exponents - 1) - threshold, exponents),),
        (Projection("input", "a", Dense(weight), 1),),
        "a",
    )


def random_layer(
    seed: int, n_inputs: int, low: int = 0, high: int = 1
) -> tuple[SpikingNetwork, Whole]:
    """Return a population that no few bits can hold, and samples."""
    rng = np.random.default_rng(seed)
    weight, threshold = rng.integers(-3000, 3001, (n_inputs, 6)), rng.integers(-2000, 2000, 6)
    samples = rng.integers(low, high + 1, (200, n_inputs))
    return layer(weight, threshold, low, high), samples


def wrong(chip: str, found: Quantization, samples: Whole) -> int:
    """Return how many decisions of the emulated chip are not those of the ideal one."""
    with whetsim.get_backend(chip).prepare(found.network) as simulation:
        recording = simulation.run(samples, record="rasters")
    ideal = spikes(found.network, samples)
    return sum(int((recording.raster(name) != ideal[name]).sum()) for name in ideal)


# Signed input in bit planes


@pytest.mark.parametrize(
    ("chip", "n_inputs", "low", "high"),
    [
        ("spinnaker", 60, -1, 1),
        ("spinnaker", 60, -3, 3),
        ("spinnaker", 60, -127, 127),
        ("spinnaker", 30, -5, 2),
        ("odin", 12, -1, 1),
        ("odin", 12, -3, 3),
    ],
)
def test_signs_that_are_added_apart_do_not_overflow(
    chip: str, n_inputs: int, low: int, high: int
) -> None:
    for seed in range(3):
        network, samples = random_layer(seed, n_inputs, low, high)
        found = quantize(network, chip, samples)
        assert wrong(chip, found, samples) == 0
        if not found["a"].exposed:
            # Of -1 all planes are set; no other value brings both signs as much.
            corners = np.array([np.full(n_inputs, v) for v in (-1, low, high)])
            either = np.where(samples[:50] < 0, -1, high)
            assert wrong(chip, found, np.concatenate([corners, either])) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-4, 3), (-128, 127), (0, 255)])
def test_the_worst_of_each_sign_is_what_the_planes_add_up_to(low: int, high: int) -> None:
    network, _ = random_layer(4, 9, low, high)
    planes = chip_rule(encode_network(network, "bitplane"), "a")
    positive, negative = worst_sums(
        network, network["a"], network.projections, Rules(16, -(2**15), 2**15, part_limit=65535)
    )
    assert positive.tolist() == planes.positive.tolist()
    assert negative.tolist() == planes.negative.tolist()


# What the emulators take


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 255), (0, 511), (-256, 255), (0, 1023), (-512, 511), (0, 4095)]
)
def test_bit_planes_beyond_the_weight_exponents_cost_bits(
    low: int, high: int, bits: int | None
) -> None:
    network, samples = random_layer(1, 4, low, high)
    found = quantize(network, "loihi", samples, bits=bits)
    planes = (high - low).bit_length()
    widest = 8 - max(0, planes - 9)
    assert found.bits == min(widest, bits or 8)
    assert wrong("loihi", found, samples) == 0


def test_more_planes_than_weights_have_bits_are_refused() -> None:
    network, samples = random_layer(1, 4, 0, 65535)
    with pytest.raises(CapacityError, match=r"input values of 16 bits; .* exponents up to 7"):
        quantize(network, "loihi", samples)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-3, 3), (-4, 3), (0, 3), (0, 7)])
@pytest.mark.parametrize("n_inputs", [3, 21])
def test_axon_types_hold_the_planes_of_values(low: int, high: int, n_inputs: int) -> None:
    network, samples = random_layer(2, n_inputs, low, high)
    assert wrong("truenorth", quantize(network, "truenorth", samples), samples) == 0


def test_axon_types_take_axons_of_the_fan_in() -> None:
    for n_inputs, bits in ((64, 4), (85, 3), (128, 2)):
        network, samples = random_layer(3, n_inputs)
        found = quantize(network, "truenorth", samples)
        assert found.bits == bits
        assert wrong("truenorth", found, samples) == 0
        if bits < 4:
            with pytest.raises(CapacityError, match=f"at most {bits}, the sign counted with"):
                quantize(network, "truenorth", samples, bits=4)
    for bits in (None, 2):
        network, samples = random_layer(3, 129)
        with pytest.raises(CapacityError, match=r"'a': 129 synapses .*needs 258 axons; .* has 256"):
            quantize(network, "truenorth", samples, bits=bits)
    network, samples = random_layer(3, 257)
    with pytest.raises(CapacityError, match="needs 257 axons; the chip has 256"):
        quantize(network, "truenorth", samples)


def test_equal_weights_take_one_axon_each() -> None:
    signs = np.where(np.arange(3) == 1, -5, 5)
    network = layer(np.tile(signs, (256, 1)), [5, -20, 200])
    samples = bits_of(50, 256)
    found = quantize(network, "truenorth", samples)
    assert found["a"].kept
    assert found.flips == wrong("truenorth", found, samples) == 0


def test_populations_left_as_they_are_need_no_room() -> None:
    network = random_chain(sizes=(300, 20, 4))
    samples = bits_of(40, 300)
    found = quantize(network, "truenorth", samples, only=["step_1"])
    assert found.network["step_0"] is network["step_0"]


# Layers that share a scale


def test_a_population_that_shares_a_scale_is_kept_as_a_whole() -> None:
    rng = np.random.default_rng(5)
    weight, samples = rng.integers(-100, 101, (12, 3)), bits_of(100, 12)
    near = quantize(layer(weight, [1, -60, 190]), "speck", samples)
    assert near["a"].kept
    assert near.flips == 0
    assert threshold_of(near.network, "a").tolist() == [1, -60, 190]
    far = quantize(layer(weight, [1, -600, 600]), "speck", samples)
    rough = weight.copy()
    rough[:, 1] = rng.normal(0, 1e5, 12).astype(int)
    mixed = quantize(layer(rough, [60, 12345, 7]), "speck", samples)
    for found in (far, mixed):
        assert not found["a"].kept
        assert found["a"].scale_low == pytest.approx(found["a"].scale_high)
        assert np.ptp(threshold_of(found.network, "a")) <= 255


def test_a_shared_scale_counts_the_exponents_of_neurons() -> None:
    weight = np.array([[3, 6, 0], [-9, 12, 0]])
    # On the finer grid of the others the first column is 6, -18 and its threshold 10.
    network = layer(weight, [5, 4, -3], exponent=[7, 8, 8])
    found = quantize(network, "speck", bits_of(9, 2))
    assert found["a"].kept
    (projection,) = found.network.projections
    assert projection.connectivity.weight.tolist() == [[1, 1, 0], [-3, 2, 0]]
    assert threshold_of(found.network, "a").tolist() == [2, 1, 0]
    assert found["a"].scale_low == found["a"].scale_high


def test_weights_are_no_wider_than_the_file_says() -> None:
    network, samples = random_layer(6, 30)
    for name in ("loihi2", "loihi", "speck"):
        found = quantize(network, name, samples)
        assert found.bits == load_chip(name).rule("weight_bits") == 8
    found = quantize(network, "loihi2", samples)
    assert np.abs(found.network.projections[0].connectivity.weight).max() == 127


# Against plain rounding


@pytest.mark.parametrize(
    ("chip", "bits"),
    [("loihi", None), ("truenorth", None), ("spinnaker", 6), ("odin", None), ("speck", None)],
)
def test_never_more_flips_than_plain_rounding_that_cannot_overflow(
    chip: str, bits: int | None
) -> None:
    compared = 0
    for seed in range(12):
        network = random_chain(seed, sizes=(12, 8, 4))
        samples = bits_of(15, 12, seed)
        plain = quantize(network, chip, samples, bits=bits, method="max")
        if not any(p.exposed for p in plain.populations):
            compared += 1
            assert quantize(network, chip, samples, bits=bits).flips <= plain.flips
    assert compared >= 5


def test_plain_rounding_that_overflows_is_not_taken() -> None:
    network, samples = random_layer(0, 60, -127, 127)
    found, plain = (quantize(network, "spinnaker", samples, method=m) for m in ("flips", "max"))
    assert plain["a"].exposed == 6
    assert plain.flips < found.flips
    assert wrong("spinnaker", plain, samples) > 100 > found.flips
    assert wrong("spinnaker", found, samples) == 0


# Arguments


def test_a_chip_is_a_name_a_file_or_a_chip() -> None:
    network, samples = random_chain(), bits_of(20, 30)
    named = quantize(network, "odin", samples)
    for chip in (CHIP_FILES / "odin.toml", load_chip("odin"), str(CHIP_FILES / "odin.toml")):
        assert quantize(network, chip, samples).to_dict() == named.to_dict()
    assert sweep(network, samples, chip=CHIP_FILES / "odin.toml", bits=2).chip == "odin"


def test_bad_arguments() -> None:
    network, samples = random_chain(), bits_of(5, 30)
    bad: Any
    with pytest.raises(SampleError, match="chip is 5; need a Chip, a name"):
        bad = 5
        quantize(network, bad, samples)
    with pytest.raises(SampleError, match="only is 5; need names"):
        quantize(network, None, samples, bits=4, only=bad)
    with pytest.raises(UnknownNameError, match="no population named 3; there are: step_0"):
        bad = [3, "step_0"]
        quantize(network, None, samples, bits=4, only=bad)
    with pytest.raises(SampleError, match=r"bits is 'a'; need whole numbers in 1\.\.16"):
        bad = ["a", 3]
        sweep(network, samples, bits=bad)
    for bad in ("x", -0.1, float("nan"), None):
        with pytest.raises(SampleError, match=r"share is .*; need a number in 0\.\.1"):
            sweep(network, samples, bits=[3], share=bad)


def test_a_sweep_takes_a_single_width() -> None:
    network, samples = chain((np.array([[0.3], [0.7]]), [0.1])), bits_of(20, 2)
    assert sweep(network, samples, bits=4) == sweep(network, samples, bits=[4])


def test_effects_that_are_not_counted() -> None:
    effects = EmulationEffects(3, {"floors": {"a": np.array([1, 2])}})
    assert effects.total("floors") == effects.total() == 3
    with pytest.raises(UnknownNameError, match=r"none named 'flors'; there are: floors\. Did you"):
        effects.total("flors")
