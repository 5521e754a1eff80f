"""`fit`: one table for all chips, with reasons."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.hardware.test_place import limited, network, one_layer, ones
from whetsim import InputSpec
from whetsim.connectivity import Dense
from whetsim.errors import UnknownNameError, UnsupportedError
from whetsim.network import InputPopulation, SpikingNetwork
from whetsim_hardware import chip_names, load_chip
from whetsim_hardware.fit import fit
from whetsim_hardware.place import place


def small() -> SpikingNetwork:
    shapes = {"input": (20,), "a": (12,), "b": (4,)}
    return network(shapes, [("input", "a", ones(20, 12)), ("a", "b", ones(12, 4))])


def grey(n_inputs: int) -> SpikingNetwork:
    source = InputPopulation((n_inputs,), 0, 255, "graded", InputSpec((n_inputs,), 0, 255, 1 / 255))
    return replace(one_layer(n_inputs, 3), input=source, graded_fingerprint="")


def test_a_small_network_fits_every_chip() -> None:
    result = fit(small())
    expected = {name for name in chip_names() if load_chip(name).status != "reference"}
    assert {c.chip for c in result.chips} == expected
    for c in result.chips:
        assert c.fits and c.reason == ""
        placed = place(small(), c.chip)
        assert (c.n_cores, c.n_chips) == (placed.n_cores, placed.n_chips)
        assert all(placed.used[key] == (used, most) for key, used, most in c.tightest)
        shares = [used / most for _, used, most in c.tightest]
        assert shares == sorted(shares, reverse=True)
    assert json.loads(json.dumps(result.to_dict()))["network"] == "net"


def test_the_table_names_what_does_not_fit() -> None:
    result = fit(one_layer(300, 3), ["loihi", "odin"])
    assert [(c.chip, c.fits, c.n_cores) for c in result.chips] == [
        ("loihi", True, 1),
        ("odin", False, 0),
    ]
    assert "fan_in: needs 300; there are 256" in result["odin"].reason
    lines = str(result).splitlines()
    assert lines[0] == "net:"
    assert lines[1].split()[:5] == ["chip", "fits", "input", "cores", "chips"]
    assert lines[2].split()[:5] == ["loihi", "yes", "spikes", "1", "1"]
    assert lines[3].split() == ["odin", "no", "spikes", "-", "-", "-"]
    assert any(line.startswith("  odin: population 'a' on chip 'odin'") for line in lines)


def test_grey_inputs_become_planes_where_these_fit_and_binary_where_not() -> None:
    planes = fit(grey(512), ["loihi", "akida"])
    assert (planes["loihi"].encoding, planes["loihi"].reason) == ("bitplane", "")
    assert planes["akida"].encoding == "graded"
    binary = fit(grey(513), ["loihi"])["loihi"]
    assert (binary.fits, binary.encoding) == (True, "binary")
    assert binary.reason.startswith("with bitplane input: population 'a'")
    assert "in_axons: needs 4,104; there are 4,096" in binary.reason
    asked = fit(grey(513), ["loihi"], encoding="bitplane")["loihi"]
    assert (asked.fits, asked.encoding) == (False, "bitplane")


def test_weights_beyond_the_registers_are_taken_to_be_quantized() -> None:
    weight = np.ones((4, 2), dtype=np.int32)
    assert fit(one_layer(4, 2), ["loihi"])["loihi"].notes[0].startswith("every synapse stored")
    weight[0] = 127
    assert len(fit(one_layer(4, 2, lambda *_: Dense(weight)), ["loihi"])["loihi"].notes) == 1
    weight[0] = 129
    notes = fit(one_layer(4, 2, lambda *_: Dense(weight)), ["loihi"])["loihi"].notes
    assert notes[0] == "taken to be quantized to 8-bit weights: a"
    # 2^8 is one more bit plane's share, not a larger weight.
    assert not any("quantized" in note for note in fit(grey(4), ["loihi"])["loihi"].notes)


def test_chips_that_need_other_relays_do_not_share_their_networks() -> None:
    names = ["input", "a", "b", "c", "d"]
    edges = [(s, t, ones(2, 2)) for s, t in itertools.pairwise(names)]
    net = network({n: (2,) for n in names}, [*edges, ("a", "d", ones(2, 2))])
    chips = [load_chip("truenorth"), limited("truenorth", delay=2), load_chip("loihi")]
    found = fit(net, chips)
    assert [c.tightest[0] for c in found.chips[:2]] != []
    assert place(net, chips[1]).relays == {"a/relay_2": 2}
    assert found.chips[0].n_cores == found.chips[1].n_cores == 1
    neurons = [dict((k, u) for k, u, _ in c.tightest)["neurons"] for c in found.chips[:2]]
    assert neurons[1] > neurons[0]


def test_processors_have_no_cores_to_fit() -> None:
    with pytest.raises(UnsupportedError, match="gives no limits of cores"):
        fit(small(), ["cpu"])


def test_one_chip_needs_no_list() -> None:
    chip = load_chip("loihi")
    tables = [fit(small(), chips).to_dict() for chips in ("loihi", ["loihi"], chip, [chip])]
    assert all(table == tables[0] for table in tables)


def test_a_chip_that_was_not_tried_is_named() -> None:
    with pytest.raises(UnknownNameError, match="no chip named 'odin' was tried; there are: loihi"):
        fit(small(), "loihi")["odin"]
    with pytest.raises(UnknownNameError, match="Did you mean 'loihi'"):
        fit(small(), ["loihi", "odin"])["lohi"]
