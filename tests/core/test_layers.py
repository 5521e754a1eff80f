"""Layers by themselves: the shapes they make, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.errors import FormatError

sizes = st.integers(1, 9)
small = st.integers(1, 4)


@st.composite
def rules(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw size, kernel, strides, dilation and padding for a map or a volume."""
    n_axes = draw(st.sampled_from([2, 3]))

    def each(one: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.tuples(*[one] * n_axes)

    sides = each(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    padding = st.one_of(st.sampled_from(["valid", "same"]), sides)
    return draw(st.tuples(each(sizes), *[each(small)] * 3, padding))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def windows(n: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int]) -> int:
    """Count the places of a window by trying them all."""
    before, after = padding
    places, start = 0, -before
    while start + (kernel - 1) * dilation < n + after:
        places += 1
        start += stride
    return places


def tensorflow_same(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding of 'same' by the rule in TensorFlow's documentation."""
    span = (kernel - 1) * dilation + 1
    rest = n % stride
    total = max(span - stride, 0) if rest == 0 else max(span - rest, 0)
    return total // 2, total - total // 2


@settings(max_examples=150, deadline=None)
@given(rules())
def test_convolution_shapes(rule: tuple[Any, ...]) -> None:
    size, kernel, strides, dilation, padding = rule
    made = {"name": "c", "inputs": "input", "weight": ones(*kernel, 2, 3)}
    made |= {"strides": strides, "dilation": dilation, "padding": padding}
    conv = L.Conv2D(**made) if len(size) == 2 else L.Conv3D(**made)
    expected = []
    for axis, n in enumerate(size):
        rule = (n, kernel[axis], strides[axis], dilation[axis])
        if padding == "same":
            before, after = tensorflow_same(*rule)
        else:
            before, after = (0, 0) if padding == "valid" else padding[axis]
        expected.append(windows(*rule, (before, after)))
    if 0 in expected:
        with pytest.raises(FormatError, match="the window spans"):
            conv.output_shape((*size, 2))
        return
    assert conv.output_shape((*size, 2)) == (*expected, 3)
    if len(size) == 2:
        assert L.DepthwiseConv2D(**made).output_shape((*size, 2)) == (*expected, 6)
    if padding == "same":
        assert tuple(expected) == tuple(-(-n // s) for n, s in zip(size, strides, strict=True))


@settings(max_examples=100, deadline=None)
@given(rules())
def test_pool_shapes(rule: tuple[Any, ...]) -> None:
    size, pool, strides, _, padding = rule
    kind = L.MaxPool2D if len(size) == 2 else L.MaxPool3D
    layer = kind(name="p", inputs="input", pool_size=pool, strides=strides, padding=padding)
    expected, wide = [], False
    for axis, n in enumerate(size):
        if padding == "same":
            before, after = tensorflow_same(n, pool[axis], strides[axis], 1)
        else:
            before, after = (0, 0) if padding == "valid" else padding[axis]
        wide |= max(before, after) >= pool[axis]
        expected.append(windows(n, pool[axis], strides[axis], 1, (before, after)))
    if wide or 0 in expected:
        with pytest.raises(FormatError, match=r"the window spans|padding alone"):
            layer.output_shape((*size, 2))
    else:
        assert layer.output_shape((*size, 2)) == (*expected, 2)


@settings(max_examples=100, deadline=None)
@given(st.tuples(sizes, sizes), *[st.tuples(small, small)] * 3)
def test_transposed_shapes(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    made = {"name": "t", "inputs": "input", "weight": ones(*kernel, 3, 2)}
    made |= {"strides": strides, "dilation": dilation}
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    same = L.Conv2DTranspose(**made, padding="same").output_shape((*size, 2))
    assert same == (size[0] * strides[0], size[1] * strides[1], 3)
    valid = L.Conv2DTranspose(**made, padding="valid").output_shape((*size, 2))
    assert valid[:2] == tuple(
        n * s + max(span - s, 0) for n, s, span in zip(size, strides, spans, strict=True)
    )
    padding = ((1, 0), (0, 2))
    explicit = L.Conv2DTranspose(**made, padding=padding, output_padding=(0, 1))
    expected = [
        (n - 1) * s + span - sum(cut) + extra
        for n, s, span, cut, extra in zip(size, strides, spans, padding, (0, 1), strict=True)
    ]
    assume(min(expected) > 0)
    assert explicit.output_shape((*size, 2))[:2] == tuple(expected)


@pytest.mark.parametrize(
    ("layer", "shapes", "expected"),
    [
        (L.Dense(name="x", inputs="i", weight=ones(6, 4)), [(6,)], (4,)),
        (L.GlobalMaxPool2D(name="x", inputs="i"), [(3, 4, 5)], (5,)),
        (L.GlobalAveragePool2D(name="x", inputs="i"), [(3, 4, 5)], (5,)),
        (L.BatchNorm(name="x", inputs="i", mean=ones(5), variance=ones(5)), [(3, 5)], (3, 5)),
        (L.Flatten(name="x", inputs="i"), [(3, 4, 5)], (60,)),
        (L.Reshape(name="x", inputs="i", shape=(5, 12)), [(3, 4, 5)], (5, 12)),
        (L.Permute(name="x", inputs="i", axes=(2, 0, 1)), [(3, 4, 5)], (5, 3, 4)),
        (L.ZeroPad2D(name="x", inputs="i", padding=((1, 0), (2, 3))), [(3, 4, 5)], (4, 9, 5)),
        (L.Upsample2D(name="x", inputs="i", size=(2, 3)), [(3, 4, 5)], (6, 12, 5)),
        (L.Upsample2D(name="x", inputs="i", size=2), [(3, 4, 5)], (6, 8, 5)),
        (L.Add(name="x", inputs="ijk"[:0] or ("i", "j")), [(3, 4), (3, 4)], (3, 4)),
        (L.Concat(name="x", inputs=("i", "j")), [(3, 4), (3, 1)], (3, 5)),
        (L.Concat(name="x", inputs=("i", "j", "k"), axis=0), [(3, 4), (1, 4), (2, 4)], (6, 4)),
        (L.Concat(name="x", inputs=("i", "j"), axis=-2), [(3, 4), (1, 4)], (4, 4)),
        (L.Step(name="x", inputs="i"), [(3, 4, 5)], (3, 4, 5)),
        (L.Activation(name="x", inputs="i", function="relu"), [(7,)], (7,)),
    ],
    ids=lambda value: value.kind if isinstance(value, L.Layer) else "",
)
def test_shapes(layer: L.Layer, shapes: list[L.Shape], expected: L.Shape) -> None:
    assert layer.output_shape(*shapes) == expected


def test_pool_strides_are_the_pool_size_by_default() -> None:
    pool = L.AveragePool2D(name="p", inputs="i", pool_size=(3, 2))
    assert pool.steps == pool.strides == (3, 2)
    assert pool.output_shape((9, 9, 1)) == (3, 4, 1)
    volume = L.MaxPool3D(name="p", inputs="i", pool_size=3)
    assert volume.pool_size == volume.steps == volume.strides == (3, 3, 3)
    assert volume.output_shape((9, 7, 6, 2)) == (3, 2, 2, 2)


def test_layers_are_frozen_and_copy_their_arrays() -> None:
    weight = ones(2, 2)
    dense = L.Dense(name="d", inputs="input", weight=weight)
    weight[0, 0] = 7
    assert dense.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        dense.weight[0, 0] = 2
    with pytest.raises(AttributeError):
        dense.weight = weight  # type: ignore[misc]


def test_arrays_that_nobody_can_change_are_not_copied() -> None:
    weight = ones(2, 2)
    view = weight[:]
    view.flags.writeable = False
    copied = L.Dense(name="d", inputs="input", weight=view).weight
    weight[0, 0] = 7
    assert copied[0, 0] == 1
    read = np.frombuffer(ones(4).tobytes(), np.float32).reshape(2, 2)
    kept = L.Dense(name="d", inputs="input", weight=read).weight
    assert np.shares_memory(kept, read)
    assert np.shares_memory(L.Dense(name="e", inputs="input", weight=kept).weight, read)
    turned = L.Dense(name="d", inputs="input", weight=read.T).weight
    assert turned.flags.c_contiguous and not turned.flags.writeable


def test_number_of_parameters() -> None:
    assert L.Dense(name="d", inputs="input", weight=ones(3, 4), bias=ones(4)).n_parameters == 16
    assert L.Dense(name="d", inputs="input", weight=ones(3, 4)).n_parameters == 12
    assert L.Flatten(name="f", inputs="input").n_parameters == 0
    norm = L.BatchNorm(name="n", inputs="input", mean=ones(4), variance=ones(4), beta=ones(4))
    assert norm.n_parameters == 12


def test_batch_norm_scale_and_shift_in_float64() -> None:
    rng = np.random.default_rng(0)
    mean, gamma, beta = (rng.normal(size=5).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0, 2, 5).astype(np.float32)
    norm = L.BatchNorm(
        name="n", inputs="i", mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=1e-5
    )
    scale, shift = norm.scale_and_shift()
    assert scale.dtype == shift.dtype == np.float64
    for i in range(5):
        root = (float(variance[i]) + 1e-5) ** 0.5
        x = 0.3
        y = float(gamma[i]) * (x - float(mean[i])) / root + float(beta[i])
        assert scale[i] * x + shift[i] == pytest.approx(y, rel=1e-14, abs=1e-15)


def make(cls: type[L.Layer], **values: Any) -> Any:
    return lambda: cls(**{"name": "x", "inputs": "input", **values})


W4 = ones(2, 2, 2, 4)
W5 = ones(2, 2, 2, 2, 4)
REFUSED: list[tuple[Any, str]] = [
    (make(L.Step, name=""), "layer '': a name must be a text of 1 to 200 characters"),
    (make(L.Step, name=None), "a name must be a text"),
    (make(L.Step, name="x" * 201), "a name must be a text of 1 to 200"),
    (make(L.Step, name="a\tb"), "a name must be printable"),
    (make(L.Step, inputs=3), "inputs must be layer names .got 3"),
    (make(L.Step, inputs=()), "step takes 1 input .got 0"),
    (make(L.Add, inputs="a"), "layer 'x': add needs 2 or more inputs"),
    (make(L.Concat, inputs=["a"]), "concat needs 2 or more inputs"),
    (make(L.Dense, weight=[[1, 2]]), "weight must be .*float.*int64"),
    (make(L.Dense, weight=ones(2)), "weight has shape .2,. .got 1-D; need 2-D"),
    (make(L.Dense, weight=ones(2, 2), bias=ones(3)), r"bias has shape \(3,\); expected \(2,\)"),
    (make(L.Dense, weight=ones(2, 2) * np.nan), "weight holds 4 NaN or infinite values. Train or"),
    (make(L.Dense, weight=ones(2, 2), bias=-ones(2) * np.inf), "bias holds 2 NaN or infinite"),
    (make(L.Dense, weight=np.ones((2, 2), np.longdouble)), "weight must be"),
    (make(L.Dense, weight=np.ones((2, 2), complex)), "weight must be .*float"),
    (make(L.Dense, weight=None), "weight must be"),
    (make(L.Dense, weight="weights"), "weight must be .*float"),
    (make(L.Conv2D, weight=W4, strides=0), "strides is out of range .got 0; need >= 1"),
    (make(L.Conv2D, weight=W4, strides=2.0), "strides must be a list of whole numbers .got 2.0"),
    (make(L.Conv2D, weight=W4, strides=True), "strides must be a list of whole numbers .got True"),
    (make(L.Conv2D, weight=W4, dilation=(1, 2, 3)), "dilation must have 2 entries .got 3"),
    (make(L.Conv2D, weight=W4, padding="Same"), "padding is unknown .* Did you mean 'same'"),
    (make(L.Conv2D, weight=W4, padding=1), "padding must be 'valid', 'same' or"),
    (make(L.Conv2D, weight=W4, padding=((0, 0), (0, -1))), "padding is out of range"),
    (make(L.Conv2D, weight=W4, groups=3), "4 channels, not divisible by groups = 3"),
    (make(L.Conv2D, weight=W4, groups=0), "groups is out of range"),
    (make(L.Conv2D, weight=ones(2, 0, 1, 1)), "need no empty axis"),
    (make(L.Conv3D, weight=W4), r"weight has shape \(2, 2, 2, 4\) .got 4-D; need 5-D"),
    (make(L.Conv3D, weight=W5, strides=(1, 2)), "strides must have 3 entries .got 2"),
    (make(L.Conv3D, weight=W5, dilation=(1, 0, 1)), "dilation is out of range .got 0"),
    (make(L.Conv3D, weight=W5, padding="Same"), "padding is unknown .*back.*Did you mean 'same'"),
    (
        make(L.Conv3D, weight=W5, padding=((0, 0), (1, 1))),
        r"must be 'valid', 'same' or \[\[front, back\], \[top, bottom\], \[left, right\]\] .got",
    ),
    (make(L.Conv3D, weight=W5, groups=3), "4 channels, not divisible by groups = 3"),
    (make(L.Conv3D, weight=W5, bias=ones(2)), r"bias has shape \(2,\); expected \(4,\)"),
    (make(L.MaxPool3D, pool_size=(2, 2)), "pool_size must have 3 entries .got 2"),
    (make(L.AveragePool3D, count_padding=1), "count_padding must be true or false .got 1"),
    (make(L.Conv2D, weight=W4, bias=ones(2)), r"bias has shape \(2,\); expected \(4,\)"),
    (make(L.DepthwiseConv2D, weight=W4, bias=ones(4)), r"bias .* expected \(8,\)"),
    (make(L.Conv2DTranspose, weight=W4, bias=ones(4)), r"bias .* expected \(2,\)"),
    (make(L.Conv2DTranspose, weight=W4, output_padding=(1, 0)), "needs explicit padding"),
    (make(L.MaxPool2D, pool_size=(0, 1)), "pool_size is out of range"),
    (make(L.MaxPool2D, strides=(1, "2")), "strides must be a whole number .got '2'"),
    (make(L.AveragePool2D, count_padding="yes"), "count_padding must be true or false"),
    (make(L.BatchNorm, mean=ones(2), variance=ones(3)), r"variance has shape \(3,\); expected"),
    (make(L.BatchNorm, mean=ones(2), variance=ones(2), gamma=ones(1)), "gamma has shape"),
    (make(L.BatchNorm, mean=ones(1), variance=-ones(1)), "variance . epsilon must be positive"),
    (
        make(L.BatchNorm, mean=ones(1), variance=0 * ones(1), epsilon=0),
        "variance . epsilon must be positive",
    ),
    (make(L.BatchNorm, mean=ones(1), variance=ones(1), epsilon="0"), "epsilon must be a .*number"),
    (
        make(L.BatchNorm, mean=ones(1), variance=ones(1), epsilon=float("nan")),
        "epsilon must be .*finite",
    ),
    (make(L.BatchNorm, mean=ones(1), variance=ones(1), epsilon=10**400), "epsilon must be"),
    (make(L.Reshape, shape=()), "shape must have an axis"),
    (make(L.Reshape, shape=(2, 0)), "shape is out of range"),
    (make(L.Reshape, shape=[1] * 17), "shape has too many entries"),
    (make(L.Permute, axes=(-1, 0)), "axes is out of range"),
    (make(L.Permute, axes=1), "axes must be a list of whole numbers"),
    (make(L.ZeroPad2D, padding="same"), "padding must be numbers of cells .got 'same'"),
    (make(L.ZeroPad2D, padding=((0, 0),)), "padding must be 'valid', 'same' or"),
    (make(L.ZeroPad2D, padding=((0, 0), (-1, 0))), "padding is out of range .got -1; need >= 0"),
    (make(L.Upsample2D, size=(1, 0)), "size is out of range"),
    (make(L.Concat, inputs=("a", "b"), axis=None), "axis must be a whole number"),
    (make(L.Step, threshold="0.5"), "threshold must be a .*number"),
    (make(L.Step, threshold=False), "threshold must be a .*number"),
    (make(L.Step, threshold=float("inf")), "threshold must be .*finite"),
    (make(L.Step, threshold=10**400), "threshold must be"),
    (make(L.Step, strict=1), "layer 'x': strict must be true or false .got 1"),
    (make(L.Step, strict=None), "strict must be true or false .got None"),
    (make(L.Activation, function="swish"), "function 'swish' is unknown; need one of relu, sigm"),
    (make(L.Activation, function="relu", sharpness=1), "sharpness must be in .*is a step"),
    (make(L.Activation, function="relu", sharpness=float("nan")), "sharpness must be"),
]


@pytest.mark.parametrize(("build", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_refused_parameters(build: Any, match: str) -> None:
    with pytest.raises(FormatError, match=match) as caught:
        build()
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("layer ")


BAD_SHAPES: list[tuple[L.Layer, list[L.Shape], str]] = [
    (
        L.Dense(name="x", inputs="a", weight=ones(6, 4)),
        [(5,)],
        r"weight has shape \(6, 4\); expected \(5, n\) because 'a' has 5 outputs",
    ),
    (L.Dense(name="x", inputs="a", weight=ones(6, 4)), [(3, 2)], "need a flat one. Add a flatten"),
    (L.Conv2D(name="x", inputs="a", weight=W4), [(4, 4, 3)], "because 'a' has 3 channels"),
    (L.Conv2D(name="x", inputs="a", weight=W4, groups=2), [(4, 4, 2)], "expected 2 / 2 input"),
    (L.Conv2D(name="x", inputs="a", weight=W4), [(16,)], "need a map .* Put a reshape before it"),
    (L.Conv2D(name="x", inputs="a", weight=W4), [(1, 4, 2)], "the window spans 2 cells but the"),
    (L.DepthwiseConv2D(name="x", inputs="a", weight=W4), [(4, 4, 4)], "because 'a' has 4 channels"),
    (L.Conv2DTranspose(name="x", inputs="a", weight=W4), [(4, 4, 2)], r"\(kh, kw, n, 2\)"),
    (
        L.Conv2DTranspose(name="x", inputs="a", weight=W4, padding=((2, 0), (0, 0))),
        [(1, 4, 4)],
        "leaves no output for a map of 1 cells",
    ),
    (L.MaxPool2D(name="x", inputs="a", padding=((2, 0), (0, 0))), [(4, 4, 1)], "padding alone"),
    (L.MaxPool2D(name="x", inputs="a"), [(4, 1, 1)], "the window spans 2 cells"),
    (L.GlobalAveragePool2D(name="x", inputs="a"), [(4, 4)], "need a map"),
    (
        L.Conv3D(name="x", inputs="a", weight=W5),
        [(4, 4, 2)],
        r"need a volume \(depth, height, width, channels\). Put a reshape before it",
    ),
    (L.Conv3D(name="x", inputs="a", weight=W5), [(4, 4, 4, 3)], "because 'a' has 3 channels"),
    (L.Conv3D(name="x", inputs="a", weight=W5), [(1, 4, 4, 2)], "the window spans 2 cells but the"),
    (L.MaxPool3D(name="x", inputs="a"), [(4, 4, 2)], "need a volume"),
    (
        L.MaxPool3D(name="x", inputs="a", padding=((0, 0), (0, 0), (0, 2))),
        [(4, 4, 4, 1)],
        "padding alone",
    ),
    (L.ZeroPad2D(name="x", inputs="a", padding=((1, 1), (1, 1))), [(4, 4)], "need a map"),
    (L.BatchNorm(name="x", inputs="a", mean=ones(3), variance=ones(3)), [(3, 2)], "2 channels"),
    (L.Reshape(name="x", inputs="a", shape=(5,)), [(2, 3)], r"holds 5 values; 'a' has 6 .shape"),
    (L.Permute(name="x", inputs="a", axes=(0, 2)), [(2, 3)], "do not order the 2 axes"),
    (L.Upsample2D(name="x", inputs="a"), [(2, 3)], "need a map"),
    (L.Add(name="x", inputs=("a", "b")), [(2,), (3,)], r"shapes \(2,\), \(3,\); add needs equal"),
    (L.Concat(name="x", inputs=("a", "b")), [(2, 3), (3, 3)], "may differ in axis 1 alone"),
    (L.Concat(name="x", inputs=("a", "b")), [(2, 3), (3,)], "may differ in axis 1 alone"),
    (L.Concat(name="x", inputs=("a", "b"), axis=2), [(2, 3), (2, 3)], "axis 2 does not exist"),
]


@pytest.mark.parametrize(("layer", "shapes", "match"), BAD_SHAPES)
def test_refused_shapes(layer: L.Layer, shapes: list[L.Shape], match: str) -> None:
    with pytest.raises(FormatError, match=match):
        layer.output_shape(*shapes)


@pytest.mark.parametrize("value", [np.float32(0.25), np.float64(0.25), 0.25])
def test_numpy_numbers_are_numbers(value: Any) -> None:
    assert L.Step(name="s", inputs="input", threshold=value).threshold == 0.25
    norm = L.BatchNorm(name="n", inputs="i", mean=ones(1), variance=ones(1), epsilon=value)
    assert norm.epsilon == 0.25


def test_strict_is_a_parameter_only_where_it_is_set() -> None:
    assert L.Step(name="s", inputs="input").parameters == {"threshold": 0.5}
    strict = L.Step(name="s", inputs="input", threshold=1, strict=True)
    assert strict.parameters == {"threshold": 1.0, "strict": True}


def test_numpy_integers_are_whole_numbers() -> None:
    strides = np.array([2, 1])
    conv = L.Conv2D(name="c", inputs="input", weight=W4, strides=tuple(strides), groups=np.int8(2))
    assert conv.strides == (2, 1)
    assert all(type(v) is int for v in (*conv.strides, conv.groups))
