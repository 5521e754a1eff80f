"""The graph builder: every operation equals numpy on values in the file's own layout."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.model import INPUT

from .graphs import (
    FILE,
    READING,
    by_layer,
    exact_spikes,
    floats,
    kinds,
    layer_of,
    made,
    turned,
    whole,
)

# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_units_of_a_value(order: tuple[int, ...]) -> None:
    shape = (2, 3, 4)
    value = Value("v", shape, order)
    of_file = np.arange(24).reshape(shape)
    stored = of_file.transpose(order)
    assert value.stored_shape == stored.shape
    assert np.array_equal(stored.ravel()[value.units()], of_file.ravel())
    assert value == Value.of_stored("v", stored.shape, order)


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(4)), st.permutations(range(4)), st.permutations(range(4)))
def test_transposed_values(order: list[int], first: list[int], second: list[int]) -> None:
    graph = Graph((2, 3, 4, 5))
    x = whole(2, 2, 3, 4, 5)
    value = Value(INPUT, (2, 3, 4, 5), (0, 1, 2, 3))
    y = np.zeros(())
    for axes in (order, first, second):
        value = graph.transpose(value, axes)
        x = x.transpose(0, *(a + 1 for a in axes))
        y = made(graph, value, whole(2, 2, 3, 4, 5))
    assert np.array_equal(y, x)
    assert not graph.layers


def test_axes_of_length_1_move_nothing() -> None:
    assert Value("v", (5, 1, 1), (1, 2, 0)).is_in_file_order
    assert not Value("v", (5, 2, 1), (1, 2, 0)).is_in_file_order
    assert Value("v", (1, 3, 4), (1, 0, 2)).is_in_file_order


# --- transposes ---------------------------------------------------------------------------------


def test_transposes_that_cancel_leave_no_layer() -> None:
    graph = Graph((4, 5, 2))
    x = graph.transpose(graph.input, (2, 0, 1))
    y = graph.conv("a", x, floats(3, 3, 2, 3), channel_axis=0)
    y = graph.transpose(graph.transpose(y, (1, 2, 0)), (2, 0, 1))
    y = graph.conv("b", y, floats(1, 1, 3, 2, seed=2), channel_axis=0)
    assert kinds(graph) == ["conv2d", "conv2d"]
    samples = whole(3, 4, 5, 2)
    a = by_layer(L.Conv2D, samples, 2, weight=floats(3, 3, 2, 3))
    b = by_layer(L.Conv2D, a, 2, weight=floats(1, 1, 3, 2, seed=2))
    assert np.array_equal(made(graph, y, samples), b.transpose(0, 3, 1, 2))


def test_channels_first_costs_one_permute() -> None:
    graph = Graph((2, 6, 6))
    x = graph.input
    for name in "abc":
        x = graph.conv(name, x, floats(3, 3, 2, 2), channel_axis=0, padding="same")
        x = graph.step(f"step_{name}", x, written_as=FILE)
        x = graph.max_pool(f"pool_{name}", x, (2, 2), (1, 1), channel_axis=0)
    assert kinds(graph).count("permute") == 1


def test_another_axis_last_in_turn() -> None:
    graph = Graph((2, 3, 4))
    samples = whole(3, 2, 3, 4)
    x = graph.input
    for axis in (0, 1, 2, 0):
        x = turned(graph, x, axis)
        assert np.array_equal(made(graph, x, samples), samples)
    assert kinds(graph).count("permute") == 4
    flat = graph.flatten("flat", x)
    assert np.array_equal(made(graph, flat, samples), samples.reshape(3, -1))


def test_one_permute_serves_all_that_read_it() -> None:
    graph = Graph((2, 5, 5))
    for name in "ab":
        graph.conv(name, graph.input, floats(2, 2, 2, 1), channel_axis=0)
    assert kinds(graph) == ["permute", "conv2d", "conv2d"]


# --- scaling ------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    order=st.permutations(range(3)),
    shapes=st.tuples(
        *[
            st.one_of(
                st.none(),
                st.just(()),
                st.tuples(st.booleans()),
                st.tuples(st.booleans(), st.booleans()),
                st.tuples(*[st.booleans()] * 3),
            )
        ]
        * 2
    ),
)
def test_scale_and_shift_broadcast_as_numpy_does(
    order: list[int], shapes: tuple[tuple[bool, ...] | None, ...]
) -> None:
    shape = (2, 3, 4)
    constants = []
    for i, along in enumerate(shapes):
        if along is None:
            constants.append(None)
        else:
            sizes = [
                n if full else 1 for n, full in zip(shape[3 - len(along) :], along, strict=True)
            ]
            constants.append(floats(*sizes, seed=i))
    scale, shift = constants
    graph = Graph(tuple(shape[a] for a in order))
    x = graph.transpose(graph.input, np.argsort(order).tolist())
    assert x.shape == shape
    y = graph.scale_and_shift("x", x, scale, shift)
    samples = whole(3, *shape)
    expected = samples * (1 if scale is None else scale) + (0 if shift is None else shift)
    stored = samples.transpose(0, *(a + 1 for a in order))
    assert np.array_equal(made(graph, y, stored), expected)
    assert y.shape == shape
    # Stored as before unless one axis that is not stored last has constants of its own.
    axes = {
        3 - c.ndim + i for c in constants if c is not None for i, n in enumerate(c.shape) if n > 1
    }
    if len(axes) != 1:
        assert y.order == x.order
        assert "permute" not in kinds(graph)


def test_no_constant_is_no_layer() -> None:
    graph = Graph((3,))
    assert graph.scale_and_shift("x", graph.input) == graph.input
    assert not graph.layers


@pytest.mark.parametrize("value", [2, 2.0, np.float64(2), np.int64(2), [2], np.float16(2)])
def test_constants_of_any_type_of_number(value: Any) -> None:
    graph = Graph((3,))
    y = graph.scale_and_shift("x", graph.input, scale=value)
    assert made(graph, y, np.array([[1, 2, 3]])).tolist() == [[2, 4, 6]]
    gamma = layer_of(graph, y).gamma
    assert gamma.dtype == getattr(value, "dtype", np.dtype("f4")) or value.dtype.kind == "i"


@pytest.mark.parametrize("shift", [0.25, [0.25, 0.5, -1.0]])
def test_a_shift_becomes_the_bias_of_a_layer_without(shift: Any) -> None:
    shift = np.asarray(shift, np.float32)
    graph = Graph((4,))
    plain = graph.dense("matmul", graph.input, floats(4, 3))
    shifted = graph.scale_and_shift("add", plain, shift=shift)
    again = graph.scale_and_shift("more", shifted, shift=shift)
    x = whole(3, 4)
    assert np.array_equal(made(graph, shifted, x), x @ floats(4, 3) + shift)
    assert np.array_equal(made(graph, again, x), x @ floats(4, 3) + shift + shift)
    assert kinds(graph) == ["dense", "dense", "batch_norm"]
    # Who reads the product itself still gets it.
    both = graph.add("both", [plain, shifted])
    assert np.array_equal(made(graph, both, x), 2 * (x @ floats(4, 3)) + shift)
    model = graph.to_model("m", graph.step("s", shifted, written_as=FILE), READING)
    assert [layer.name for layer in model.layers] == ["add", "s"]


@pytest.mark.parametrize("kind", ["conv", "volume", "transposed"])
def test_a_shift_becomes_the_bias_of_a_convolution_without(kind: str) -> None:
    volume = (2, 3, 4, 4)
    shape = volume if kind == "volume" else (2, 4, 4)
    graph = Graph(shape)
    kernel = (1,) * (len(shape) - 1)
    weight, shift = floats(*kernel, 2, 2), floats(2, *kernel, seed=4)
    slide = graph.conv_transpose if kind == "transposed" else graph.conv
    plain = slide("c", graph.input, weight, channel_axis=0)
    shifted = graph.scale_and_shift("add", plain, shift=shift)
    x = whole(2, *shape)
    assert np.array_equal(made(graph, shifted, x), made(graph, plain, x) + shift)
    assert layer_of(graph, shifted).bias.tolist() == shift.ravel().tolist()
    # A shift along another axis, or for each unit, is none that a bias could be.
    rows = floats(1, *shape[1:2], *kernel[1:], seed=5)
    along = graph.scale_and_shift("rows", plain, shift=rows)
    assert np.array_equal(made(graph, along, x), made(graph, plain, x) + rows)
    units = floats(*shape, seed=6)
    each = graph.scale_and_shift("units", plain, shift=units)
    assert np.array_equal(made(graph, each, x), made(graph, plain, x) + units)
    assert kinds(graph).count("batch_norm") == 2


def test_a_scale_is_never_merged() -> None:
    graph = Graph((4,))
    plain = graph.dense("matmul", graph.input, floats(4, 3))
    scaled = graph.scale_and_shift("mul", plain, scale=0.5, shift=0.25)
    assert np.array_equal(made(graph, scaled, whole(3, 4)), whole(3, 4) @ floats(4, 3) * 0.5 + 0.25)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("stored_last", [0, 1, 2])
def test_batch_norm_along_any_axis(axis: int, stored_last: int) -> None:
    shape = (2, 3, 4)
    n = shape[axis]
    mean, gamma, beta = floats(n, seed=1), floats(n, seed=2), floats(n, seed=3)
    variance = np.array([0.25, 1, 4, 16], np.float32)[:n]
    graph = Graph(shape)
    x = turned(graph, graph.input, stored_last)
    y = graph.batch_norm("n", x, mean, variance, gamma, beta, epsilon=0.0, axis=axis)

    def along(values: np.ndarray) -> np.ndarray:
        return values.reshape([n if a == axis % 3 else 1 for a in range(3)])

    samples = whole(2, *shape)
    expected = (samples - along(mean)) / np.sqrt(along(variance)) * along(gamma) + along(beta)
    assert np.array_equal(made(graph, y, samples), expected)


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored_last", [0, 1, 2])
@pytest.mark.parametrize(
    "shape", [(24,), (4, 6), (6, 4), (2, 3, 4), (4, 3, 2), (1, 24), (2, 1, 3, 4)]
)
def test_reshape_in_the_order_of_the_file(shape: L.Shape, stored_last: int) -> None:
    graph = Graph((2, 3, 4))
    x = turned(graph, graph.input, stored_last)
    y = graph.reshape("r", x, shape)
    samples = whole(3, 2, 3, 4)
    assert np.array_equal(made(graph, y, samples), samples.reshape(3, *shape))
    assert (y == x) == (shape == (2, 3, 4))


def test_a_flatten_of_a_permuted_map_needs_the_order_of_the_file() -> None:
    graph = Graph((2, 3, 4))
    y = graph.conv("c", graph.input, floats(1, 1, 2, 2), channel_axis=0)
    flat = graph.flatten("f", y)
    samples = whole(3, 2, 3, 4)
    assert np.array_equal(made(graph, flat, samples), made(graph, y, samples).reshape(3, -1))
    assert kinds(graph) == ["permute", "conv2d", "permute", "flatten"]
    assert graph.flatten("again", flat) == flat


def test_a_decoder_from_a_line_to_a_map() -> None:
    graph = Graph((6,))
    x = graph.reshape("r", graph.dense("d", graph.input, floats(6, 12)), (3, 2, 2))
    y = graph.conv("c", x, floats(2, 2, 3, 2), channel_axis=0, padding="same")
    samples = whole(2, 6)
    maps_ = (samples @ floats(6, 12)).reshape(2, 3, 2, 2)
    expected = by_layer(L.Conv2D, maps_ * 4, 0, weight=floats(2, 2, 3, 2), padding="same") / 4
    assert np.array_equal(made(graph, y, samples), expected)


# --- joins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored_last", [(0, 0), (0, 2), (2, 0), (1, 0, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3, None])
def test_sums_and_concats_of_mixed_orders(axis: int | None, stored_last: tuple[int, ...]) -> None:
    shape = [2, 3, 4]
    graph = Graph((2, 3, 4))
    samples = whole(3, *shape)
    values, arrays = [], []
    for i, last in enumerate(stored_last):
        scaled = graph.scale_and_shift(f"x{i}", turned(graph, graph.input, last), scale=i + 1.0)
        values.append(scaled)
        arrays.append(samples * (i + 1))
    if axis is None:
        y = graph.add("sum", values)
        assert np.array_equal(made(graph, y, samples), sum(arrays))
    else:
        y = graph.concat("cat", values, axis)
        at = axis + 1 if axis >= 0 else axis
        assert np.array_equal(made(graph, y, samples), np.concatenate(arrays, axis=at))


def test_a_concat_of_different_sizes_along_channels() -> None:
    graph = Graph((2, 4, 4))
    a = graph.conv("a", graph.input, floats(1, 1, 2, 3), channel_axis=0)
    b = graph.conv("b", graph.input, floats(1, 1, 2, 1, seed=4), channel_axis=0)
    y = graph.concat("cat", [a, graph.input, b], 0)
    samples = whole(2, 2, 4, 4)
    parts = [made(graph, a, samples), samples, made(graph, b, samples)]
    assert np.array_equal(made(graph, y, samples), np.concatenate(parts, axis=1))
    # Two of three are stored with channels last, so the input is permuted, not they.
    assert kinds(graph).count("permute") == 1


def test_one_value_needs_no_join() -> None:
    graph = Graph((3,))
    assert graph.add("sum", [graph.input]) == graph.input
    assert graph.concat("cat", [graph.input], 0) == graph.input


def test_a_sum_of_a_value_and_itself_transposed() -> None:
    graph = Graph((3, 3))
    y = graph.add("sum", [graph.input, graph.transpose(graph.input, (1, 0))])
    samples = whole(4, 3, 3)
    assert np.array_equal(made(graph, y, samples), samples + samples.transpose(0, 2, 1))


# --- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("falling", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.0])
def test_steps_rise_and_fall_with_ties_of_both_kinds(
    threshold: float, falling: bool, strict: bool
) -> None:
    graph = Graph((2, 2, 3))
    x = graph.conv("c", graph.input, floats(1, 1, 2, 3) * 2, channel_axis=0)
    y = graph.step("s", x, threshold, strict=strict, falling=falling, written_as=FILE)
    samples = whole(20, 2, 2, 3)
    before = made(graph, x, samples)
    compare = {
        (False, False): np.greater_equal,
        (False, True): np.greater,
        (True, False): np.less_equal,
        (True, True): np.less,
    }[falling, strict]
    assert (before == threshold).any()
    expected = compare(before, threshold)
    assert np.array_equal(made(graph, y, samples), expected)
    model = graph.to_model("m", y, READING)
    assert np.array_equal(exact_spikes(model, y, samples), expected)
    assert model.metadata["source"]["steps"] == {"s": FILE}
    assert math.copysign(1, model["s"].threshold) == 1 or model["s"].threshold < 0


def test_an_activation_can_be_computed() -> None:
    graph = Graph((4,))
    y = graph.activation("a", graph.input, "bounded_relu", 0.5)
    model = graph.to_model("m", y, READING)
    assert model["a"].parameters == {"function": "bounded_relu", "sharpness": 0.5}
    assert model.readout is None


# --- anything in a row --------------------------------------------------------------------------


def _reshaped(random: Any, shape: L.Shape) -> L.Shape:
    n = math.prod(shape)
    parts = [d for d in range(1, n + 1) if n % d == 0]
    first = random.choice(parts)
    second = random.choice([d for d in parts if (n // first) % d == 0])
    return random.choice([(n,), (first, n // first), (first, second, n // first // second)])


def _one_operation(random: Any, graph: Graph, seen: list[tuple[Value, np.ndarray]]) -> None:
    """Add one operation to a graph, and do the same with numpy."""
    x, a = seen[-1] if random.random() < 0.8 else random.choice(seen)
    name = random.choice(["x", "y", "input", ""])
    seed = random.randrange(100)
    axis = random.randrange(x.rank)
    kind = random.choice(
        [
            "transpose",
            "transpose",
            "reshape",
            "scale",
            "dense",
            "mix",
            "join",
            "step",
            "pool",
            "pad",
        ]
    )
    if kind == "transpose":
        axes = random.sample(range(x.rank), x.rank)
        x, a = graph.transpose(x, axes), a.transpose(0, *(i + 1 for i in axes))
    elif kind == "reshape":
        shape = _reshaped(random, x.shape)
        x, a = graph.reshape(name, x, shape), a.reshape(len(a), *shape)
    elif kind == "scale":
        full = [random.random() < 0.5 for _ in x.shape]
        constant = floats(*(n if f else 1 for n, f in zip(x.shape, full, strict=True)), seed=seed)
        scale = random.choice([None, 1.0, -1.0, 2.0])
        x = graph.scale_and_shift(name, x, scale, constant)
        a = a * (scale or 1) + constant
    elif kind == "dense" and x.rank <= 4:
        weight = np.sign(floats(x.shape[-1], 3, seed=seed))
        x, a = graph.dense(name, x, weight), a @ weight
    elif kind == "mix" and 2 <= x.rank <= 4:
        weight = np.sign(floats(*(1,) * (x.rank - 1), x.shape[axis], 2, seed=seed))
        x = graph.conv(name, x, weight, channel_axis=axis)
        mixed = np.moveaxis(a, axis + 1, -1) @ weight.reshape(weight.shape[-2:])
        a = np.moveaxis(mixed, -1, axis + 1)
    elif kind == "join":
        alike = [(y, b) for y, b in seen if y.shape == x.shape]
        y, b = random.choice(alike)
        if random.random() < 0.5:
            x, a = graph.add(name, [x, y]), a + b
        elif x.size < 100:
            x, a = graph.concat(name, [x, y], axis), np.concatenate([a, b], axis=axis + 1)
    elif kind == "step":
        strict, falling = random.random() < 0.5, random.random() < 0.5
        x = graph.step(name, x, 0.5, strict=strict, falling=falling, written_as=FILE)
        sign = -1 if falling else 1
        a = (sign * a > sign * 0.5) if strict else (sign * a >= sign * 0.5)
        a = a.astype(np.float64)
    elif kind == "pool" and 2 <= x.rank <= 5:
        keep = random.random() < 0.7
        x = graph.global_pool(name, x, maximum=True, channel_axis=axis, keep_axes=keep)
        a = a.max(axis=tuple(i + 1 for i in range(a.ndim - 1) if i != axis), keepdims=keep)
    elif kind == "pad" and x.rank in (2, 3) and x.size < 60:
        pads = [(random.randint(0, 1), random.randint(0, 1)) for _ in range(x.rank - 1)]
        x = graph.zero_pad(name, x, pads, channel_axis=axis)
        a = np.pad(a, [(0, 0), *pads[:axis], (0, 0), *pads[axis:]])
    seen.append((x, a))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_operations_in_a_row(random: Any) -> None:
    shape = tuple(random.randint(1, 4) for _ in range(random.randint(1, 4)))
    graph = Graph(shape)
    samples = whole(3, *shape, seed=random.randrange(100))
    seen = [(graph.input, samples.astype(np.float64))]
    for _ in range(random.randint(1, 8)):
        _one_operation(random, graph, seen)
    for value, array in seen:
        assert np.abs(array).max() < 2**18
        assert np.array_equal(made(graph, value, samples), array)
    assert all(name == layer.name for name, layer in graph.layers.items())


@settings(max_examples=80, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_operations_in_a_row_become_spikes(random: Any) -> None:
    shape = tuple(random.randint(1, 4) for _ in range(random.randint(1, 3)))
    graph = Graph(shape)
    samples = whole(3, *shape, seed=random.randrange(100))
    seen = [(graph.input, samples.astype(np.float64))]
    for _ in range(random.randint(1, 6)):
        _one_operation(random, graph, seen)
        x, a = seen[-1]
        if any(isinstance(m, L.GlobalMaxPool2D) for m in graph.layers.values()):
            # What follows a pool of numbers cannot always be mapped: make them spikes at once.
            break
    y = graph.step("last", x, 0.25, written_as=FILE)
    model = graph.to_model("m", y, Reading(input_scale=1.0, input_range=(-4, 4)))
    assert np.array_equal(exact_spikes(model, y, samples), a >= 0.25)
