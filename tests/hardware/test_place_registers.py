"""Placement counts thresholds, weight formats and axon lines as the emulators need them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.hardware.clocked import integer_network
from tests.hardware.test_place import Edge, graded, limited, network, one_layer
from whetsim.connectivity import Convolution, Geometry, Listed
from whetsim.errors import UnsupportedError
from whetsim.network import SpikingNetwork
from whetsim.registry import get_backend
from whetsim_hardware.axon_values import values_of
from whetsim_hardware.emulate.common import chip_rule
from whetsim_hardware.emulate.loihi import compartments_of
from whetsim_hardware.integers import integer_rule
from whetsim_hardware.place import DoesNotFitError, place


def test_distinct_thresholds_split_a_population() -> None:
    # A bias reaches 4095 either way, so each band of 8191 thresholds has a register of its own.
    def with_thresholds(n: int) -> SpikingNetwork:
        weight = np.full((600, n), 127)
        weight[0] = 1
        return integer_network(600, {"a": ({"input": weight}, [5000 + 8191 * i for i in range(n)])})

    assert place(with_thresholds(7), "loihi").used["thresholds"] == (7, 7)
    assert place(with_thresholds(8), "loihi").used["thresholds"] == (4, 7)
    near = integer_network(9, {"a": ({"input": np.ones((9, 9), int)}, np.arange(1, 10))})
    assert place(near, "loihi").used["thresholds"] == (1, 7)


def test_thresholds_are_counted_as_the_emulator_sets_them() -> None:
    weight = np.full((400, 14), 127)
    weight[0] = 1
    far = [6000 * i for i in range(1, 7)]
    net = integer_network(400, {"a": ({"input": weight}, [1, *far, -1, *(t - 1000 for t in far)])})
    needed = len(np.unique(compartments_of(chip_rule(net, "a")).vth))
    room = limited("loihi", thresholds_per_core=needed)
    assert place(net, room).used["thresholds"] == (needed, needed)
    assert place(net, limited("loihi", thresholds_per_core=needed - 1)).n_cores > 1


@pytest.mark.parametrize(
    ("shifts", "formats", "assumed"),
    [
        ([0, 0, 0], 1, False),
        ([0, 1, 2], 3, False),
        ([0, 1, 2, 3, 4, 5, 6], 7, False),
        ([0, 1, 2, 3, 4, 5, 6, 7], 1, True),
        ([0, 9], 1, True),
    ],
)
def test_each_exponent_takes_a_weight_format(
    shifts: list[int], formats: int, assumed: bool
) -> None:
    # Odd mantissas near the end of their range can be shifted by nothing else.
    weight = [[(127 - 2 * i) << s, -((111 - 2 * i) << s)] for i, s in enumerate(shifts)]
    net = integer_network(len(shifts), {"a": ({"input": weight}, [1, 1])})
    result = place(net, "loihi")
    assert result.used["weight_formats"] == (formats, 7)
    assert ("taken to be quantized to 8-bit weights: a" in result.notes) == assumed


def test_rows_that_can_share_an_exponent_do() -> None:
    # Shifts of 0, 0..1, 1..2, 1 and 2: three are enough.
    weight = [[1], [2], [4 * 60], [2 * 127], [4 * 127]]
    net = integer_network(5, {"a": ({"input": weight}, [1])})
    assert place(net, "loihi").used["weight_formats"] == (3, 7)


def test_formats_of_bit_planes_are_not_counted_and_a_note_says_so() -> None:
    result = place(graded(one_layer(4, 2), 255), "loihi")
    assert result.used["weight_formats"] == (1, 7)
    assert "weight formats: those of the lowest bit plane alone are counted" in result.notes


AXON_LINES = [
    # Different weights themselves, where they are few.
    ([1, 1], 1), ([3, 5], 2), ([1, -8], 2), ([30, 77, 151], 3), ([-200, 30, 77, 151], 4),
    # Two's complement.
    ([-1, 1, -2, -3], 3), ([1, 2, 3, 4, 5, 6, 7], 4), (range(-8, 8), 4),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "types"), AXON_LINES)
def test_a_source_takes_as_many_axons_as_the_emulator_gives_it(
    weights: Sequence[int], types: int
) -> None:
    backend = get_backend("truenorth")
    n = 256 // types

    def net(n_sources: int) -> SpikingNetwork:
        column = np.resize(np.asarray([w for w in weights if w]), (n_sources, 1))
        return integer_network(n_sources, {"a": ({"input": np.tile(column, 3)}, [1, 2, 3])})

    result = place(net(n), "truenorth")
    assert result.used["in_axons"][0] == n * types
    assert result.notes == ()
    backend.prepare(net(n)).close()
    with pytest.raises(DoesNotFitError) as caught:
        place(net(n + 1), "truenorth")
    assert caught.value.needed == (n + 1) * types
    with pytest.raises(UnsupportedError):
        backend.prepare(net(n + 1))


@pytest.mark.parametrize("weights", [[1, 2, 3, 4, 9], [1, 256], [-257, 1]])
def test_weights_that_no_axon_types_make_are_taken_to_be_ternary(weights: list[int]) -> None:
    net = integer_network(len(weights), {"a": ({"input": np.array(weights)[:, None]}, [1])})
    with pytest.raises(UnsupportedError):
        get_backend("truenorth").prepare(net)
    result = place(net, "truenorth")
    assert result.notes == ("taken to be quantized to ternary weights: a",)
    assert result.used["in_axons"][0] == len(weights) * len(np.unique(np.sign(weights)))


def test_axon_types_of_every_kind_of_synapses() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.choice([3, 5], (3, 3, 1, 2))
    layer = Convolution(kernel, Geometry((6, 6, 1), (4, 4, 2), (3, 3)))
    sparse_one = Listed(np.arange(37), rng.integers(0, 32, 36), rng.choice([-7, 11], 36), 32)
    shapes = {"input": (6, 6, 1), "a": (4, 4, 2)}
    edges: list[Edge] = [("input", "a", layer), ("input", "a", sparse_one)]
    both = network(shapes, edges)
    values = values_of(integer_rule(both, "a"), 4)
    assert values is not None and values.values.shape == (32, 4)
    for projection in both.projections:
        for block in projection.connectivity.synapses():
            for target, weight in zip(block.target.tolist(), block.weight.tolist(), strict=True):
                assert weight in values.values[target]
    assert place(network(shapes, edges[:1]), "truenorth").used["in_axons"][0] == 2 * 36


def test_bit_planes_need_a_type_each() -> None:
    net = graded(one_layer(4, 2), 255)
    with pytest.raises(DoesNotFitError, match=r"8 bit planes .*axon_types: needs 8; there are 4"):
        place(net, "truenorth")
    assert place(net, "truenorth", encoding="binary").n_cores == 1
    # Weights of 1, 2, 4 and 8: sixteen sources with four lines each.
    assert place(graded(one_layer(4, 2), 15), "truenorth").used["in_axons"][0] == 64
