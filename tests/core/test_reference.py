"""The float32 reference against textbook loops, scipy, and the adjoint of the convolution."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import signal

from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.model import INPUT, InputSpec, Model
from whetsim.reference import forward, forward_with_error
from whetsim.testing.networks import all_kinds, conv_model, dense_model, random_samples

from .test_layers import tensorflow_same

Pair = tuple[int, int]
seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
threes = st.tuples(st.integers(1, 3), st.integers(1, 3))
kernels = st.tuples(st.integers(1, 4), st.integers(1, 4))


def values_of(layer: L.Layer, x: np.ndarray, **options: Any) -> np.ndarray:
    """Return what `layer` alone makes of integer maps `x`."""
    spec = InputSpec(x.shape[1:], -1000, 1000)
    return forward(Model("one", spec, (layer,)), x, **options)[layer.name]


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return small whole numbers: sums are exact, so results must be equal to the last bit."""
    return rng.integers(-4, 5, shape)


def sides(
    padding: Any, size: L.Shape, kernel: L.Shape, strides: L.Shape, dilation: L.Shape
) -> list[Pair]:
    """Return the padding (before, after) of each axis."""
    if padding == "same":
        return [
            tensorflow_same(*rule) for rule in zip(size, kernel, strides, dilation, strict=True)
        ]
    return [(0, 0)] * len(size) if padding == "valid" else list(padding)


def looped_convolution(x: np.ndarray, conv: L.Conv2D | L.Conv3D) -> np.ndarray:
    """Convolve by the definition, one product at a time."""
    n, *size, _ = x.shape
    *kernel, per_in, n_out = conv.weight.shape
    around = sides(conv.padding, size, kernel, conv.strides, conv.dilation)
    places = [
        (m + before + after - (k - 1) * d - 1) // s + 1
        for m, k, s, d, (before, after) in zip(
            size, kernel, conv.strides, conv.dilation, around, strict=True
        )
    ]
    y = np.zeros((n, *places, n_out))
    for place in np.ndindex(*places):
        for position in np.ndindex(*kernel):
            cell = tuple(
                p * s + i * d - before
                for p, s, i, d, (before, _) in zip(
                    place, conv.strides, position, conv.dilation, around, strict=True
                )
            )
            if not all(0 <= at < m for at, m in zip(cell, size, strict=True)):
                continue
            for o, c in itertools.product(range(n_out), range(per_in)):
                group = o // (n_out // conv.groups)
                seen = x[(slice(None), *cell, group * per_in + c)]
                y[(slice(None), *place, o)] += seen * float(conv.weight[(*position, c, o)])
    return y if conv.bias is None else y + conv.bias


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw size, kernel, strides, dilation and padding for a map or a volume."""
    n_axes = draw(st.sampled_from([2, 2, 3]))

    def each(low: int, high: int) -> st.SearchStrategy[Any]:
        return st.tuples(*[st.integers(low, high)] * n_axes)

    largest = 7 if n_axes == 2 else 4
    explicit = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * n_axes)
    padding = st.one_of(st.sampled_from(["valid", "same"]), explicit)
    kernel = each(1, 4 if n_axes == 2 else 3)
    return draw(st.tuples(each(1, largest), kernel, each(1, 3), each(1, 3), padding))


@settings(max_examples=80, deadline=None)
@given(seed=seeds, geometry=geometries(), groups=st.sampled_from([1, 2, 3]))
def test_convolution(seed: int, geometry: tuple[Any, ...], groups: int) -> None:
    size, kernel, strides, dilation, padding = geometry
    rng = np.random.default_rng(seed)
    per_in, per_out = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    kind = L.Conv2D if len(size) == 2 else L.Conv3D
    conv = kind(
        name="c",
        inputs=INPUT,
        weight=whole(rng, *kernel, per_in, groups * per_out).astype(np.float32),
        bias=whole(rng, groups * per_out).astype(np.float32),
        strides=strides,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    x = whole(rng, 2, *size, groups * per_in)
    try:
        conv.output_shape(x.shape[1:])
    except FormatError:
        assume(False)
    assert np.array_equal(values_of(conv, x), looped_convolution(x, conv))


@settings(max_examples=30, deadline=None)
@given(seeds, sizes, kernels)
def test_convolution_equals_scipy(seed: int, size: Pair, kernel: Pair) -> None:
    assume(kernel[0] <= size[0] and kernel[1] <= size[1])
    rng = np.random.default_rng(seed)
    weight = whole(rng, *kernel, 3, 2)
    conv = L.Conv2D(name="c", inputs=INPUT, weight=weight.astype(np.float32))
    x = whole(rng, 2, *size, 3)
    y = values_of(conv, x)
    for sample, o in itertools.product(range(2), range(2)):
        expected = signal.correlate(x[sample], weight[..., o], mode="valid")[..., 0]
        assert np.array_equal(y[sample, ..., o], expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    size=sizes,
    kernel=threes,
    strides=threes,
    dilation=threes,
    padding=st.sampled_from(["valid", "same"]),
)
def test_depthwise_convolution(
    *,
    seed: int,
    size: Pair,
    kernel: Pair,
    strides: Pair,
    dilation: Pair,
    padding: Any,
) -> None:
    rng = np.random.default_rng(seed)
    weight = whole(rng, *kernel, 3, 2).astype(np.float32)
    common = {"strides": strides, "dilation": dilation, "padding": padding}
    layer = L.DepthwiseConv2D(
        name="d", inputs=INPUT, weight=weight, bias=whole(rng, 6).astype(np.float32), **common
    )
    x = whole(rng, 2, *size, 3)
    try:
        layer.output_shape(x.shape[1:])
    except FormatError:
        assume(False)
    y = values_of(layer, x)
    for channel, m in itertools.product(range(3), range(2)):
        single = L.Conv2D(
            name="c", inputs=INPUT, weight=weight[:, :, channel, m, None, None], **common
        )
        expected = looped_convolution(x[..., channel : channel + 1], single)[..., 0]
        assert np.array_equal(y[..., channel * 2 + m], expected + layer.bias[channel * 2 + m])


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    size=sizes,
    kernel=kernels,
    strides=threes,
    dilation=threes,
    padding=st.sampled_from(["valid", "same", "explicit"]),
)
def test_transposed_convolution_is_the_adjoint(
    *,
    seed: int,
    size: Pair,
    kernel: Pair,
    strides: Pair,
    dilation: Pair,
    padding: str,
) -> None:
    """``<conv(z), x> = <z, transposed(x)>`` for every z, with the same kernel and geometry."""
    rng = np.random.default_rng(seed)
    weight = whole(rng, *kernel, 2, 3).astype(np.float32)
    cut: Any = padding if padding != "explicit" else ((1, 0), (0, 2))
    transposed = L.Conv2DTranspose(
        name="t", inputs=INPUT, weight=weight, strides=strides, dilation=dilation, padding=cut
    )
    x = whole(rng, 1, *size, 3)
    try:
        shape = transposed.output_shape(x.shape[1:])
    except FormatError:
        assume(False)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    # The same cells are cut that a convolution with this padding would add.
    excess = [max(span - s, 0) for span, s in zip(spans, strides, strict=True)]
    same = [(e // 2, e - e // 2) for e in excess]
    around = {"same": same, "valid": [(0, 0), (0, 0)]}.get(padding) or list(cut)
    conv = L.Conv2D(
        name="c",
        inputs=INPUT,
        weight=weight,
        strides=strides,
        dilation=dilation,
        padding=(around[0], around[1]),
    )
    z = whole(rng, 1, *shape)
    assert conv.output_shape(shape) == (*size, 3)
    left = (looped_convolution(z, conv) * x).sum()
    assert left == (z * values_of(transposed, x).astype(np.float64)).sum()


def test_transposed_convolution_with_same_padding_by_hand() -> None:
    # Keras: kernel 3, stride 2, 'same' on two cells gives four; half of one cut cell is before.
    weight = np.array([1, 10, 100], np.float32).reshape(3, 1, 1, 1)
    layer = L.Conv2DTranspose(name="t", inputs=INPUT, weight=weight, strides=(2, 1), padding="same")
    y = values_of(layer, np.array([1, 2]).reshape(1, 2, 1, 1))
    assert y.ravel().tolist() == [1, 10, 102, 20]


def test_output_padding_adds_cells_behind() -> None:
    weight = np.array([1, 10], np.float32).reshape(2, 1, 1, 1)
    layer = L.Conv2DTranspose(
        name="t",
        inputs=INPUT,
        weight=weight,
        strides=(3, 1),
        padding=((0, 0), (0, 0)),
        output_padding=(1, 0),
    )
    y = values_of(layer, np.array([1, 2]).reshape(1, 2, 1, 1))
    assert y.ravel().tolist() == [1, 10, 0, 2, 20, 0]


@settings(max_examples=100, deadline=None)
@given(
    seed=seeds,
    geometry=geometries(),
    kind=st.sampled_from(["max", "average", "average", "counted"]),
)
def test_pools(seed: int, geometry: tuple[Any, ...], kind: str) -> None:
    size, pool, strides, _, padding = geometry
    rng = np.random.default_rng(seed)
    made = {"name": "p", "inputs": INPUT, "pool_size": pool, "strides": strides}
    made["padding"] = padding
    if kind == "max":
        layer: L.Layer = L.MaxPool2D(**made) if len(size) == 2 else L.MaxPool3D(**made)
    else:
        average = L.AveragePool2D if len(size) == 2 else L.AveragePool3D
        layer = average(**made, count_padding=kind == "counted")
    x = whole(rng, 2, *size, 2) - 2
    try:
        *places, _ = layer.output_shape(x.shape[1:])
    except FormatError:
        assume(False)
    around = sides(padding, size, pool, strides, (1,) * len(size))
    y = values_of(layer, x)
    for place in np.ndindex(*places):
        window = x
        for axis, (p, s, k, (before, _)) in enumerate(
            zip(place, strides, pool, around, strict=True)
        ):
            cells = range(p * s - before, p * s - before + k)
            window = window.take([c for c in cells if 0 <= c < size[axis]], axis=axis + 1)
        axes = tuple(range(1, len(size) + 1))
        if kind == "max":
            expected = window.max(axis=axes)
        else:
            seen = np.prod(pool if kind == "counted" else window.shape[1:-1])
            expected = window.sum(axis=axes).astype(np.float32) / np.float32(seen)
        assert np.array_equal(y[(slice(None), *place)], expected)


def test_global_pools() -> None:
    x = whole(np.random.default_rng(0), 3, 4, 4, 2)
    assert np.array_equal(values_of(L.GlobalMaxPool2D(name="g", inputs=INPUT), x), x.max((1, 2)))
    mean = values_of(L.GlobalAveragePool2D(name="g", inputs=INPUT), x)
    assert np.array_equal(mean, x.sum((1, 2)) / 16)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.5]), st.booleans(), st.booleans())
def test_batch_norm(seed: int, epsilon: float, with_gamma: bool, with_beta: bool) -> None:
    rng = np.random.default_rng(seed)
    mean, gamma, beta = (rng.normal(size=4).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0.01, 2, 4).astype(np.float32)
    layer = L.BatchNorm(
        name="b",
        inputs=INPUT,
        mean=mean,
        variance=variance,
        gamma=gamma if with_gamma else None,
        beta=beta if with_beta else None,
        epsilon=epsilon,
    )
    x = rng.integers(-9, 10, (5, 2, 3, 4))
    expected = (x - mean.astype(float)) / np.sqrt(variance.astype(float) + epsilon)
    expected = expected * (gamma if with_gamma else 1.0) + (beta if with_beta else 0.0)
    assert np.allclose(values_of(layer, x), expected, rtol=1e-5, atol=1e-5)


def test_moving_layers() -> None:
    x = np.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    flat = values_of(L.Flatten(name="f", inputs=INPUT), x)
    assert flat[1].tolist() == list(range(24, 48))
    folded = values_of(L.Reshape(name="r", inputs=INPUT, shape=(8, 3)), x)
    assert folded[0].tolist() == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(8)]
    padded = values_of(L.ZeroPad2D(name="z", inputs=INPUT, padding=((1, 0), (2, 3))), x)
    assert padded.shape == (2, 4, 9, 2) and padded.sum() == x.sum()
    assert np.array_equal(padded[:, 1:, 2:6], x)
    turned = values_of(L.Permute(name="p", inputs=INPUT, axes=(2, 0, 1)), x)
    large = values_of(L.Upsample2D(name="u", inputs=INPUT, size=(2, 3)), x)
    assert large.shape == (2, 6, 12, 2)
    for n, i, j, c in itertools.product(range(2), range(3), range(4), range(2)):
        assert turned[n, c, i, j] == x[n, i, j, c]
        assert (large[n, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3, c] == x[n, i, j, c]).all()


@pytest.mark.parametrize("axis", [-3, -2, -1, 0, 1, 2])
def test_add_and_concat(axis: int) -> None:
    x = np.arange(1, 13).reshape(1, 2, 3, 2)
    layers = (
        L.Add(name="twice", inputs=(INPUT, INPUT)),
        L.Add(name="thrice", inputs=(INPUT, "twice", INPUT)),
        L.Concat(name="both", inputs=("thrice", INPUT), axis=axis),
    )
    values = forward(Model("m", InputSpec((2, 3, 2), 0, 20, 0.5), layers), x)
    assert np.array_equal(values["twice"], x)
    assert np.array_equal(values["thrice"], 2 * x)
    at = axis % 3 + 1
    first, second = np.split(values["both"], 2, axis=at)
    assert np.array_equal(first, 2 * x) and np.array_equal(second, x / 2)


def test_steps_and_activations() -> None:
    x = np.array([[-2, 0, 1, 2, 3, 4]])

    def of(layer: L.Layer) -> list[float]:
        model = Model("m", InputSpec((6,), -9, 9, 0.25), (layer,))
        return forward(model, x)[layer.name][0].tolist()

    assert of(L.Step(name="s", inputs=INPUT)) == [0, 0, 0, 1, 1, 1]
    assert of(L.Step(name="s", inputs=INPUT, threshold=0.0)) == [0, 1, 1, 1, 1, 1]
    assert of(L.Step(name="s", inputs=INPUT, strict=True)) == [0, 0, 0, 0, 1, 1]
    assert of(L.Step(name="s", inputs=INPUT, threshold=0.0, strict=True)) == [0, 0, 1, 1, 1, 1]
    assert of(L.Activation(name="a", inputs=INPUT, function="relu")) == [0, 0, 0.25, 0.5, 0.75, 1]
    bounded = L.Activation(name="a", inputs=INPUT, function="bounded_relu", sharpness=0.5)
    assert of(bounded) == [0, 0, 0, 0.5, 1, 1]
    real = x[0] / 4
    tanh = of(L.Activation(name="a", inputs=INPUT, function="tanh"))
    assert np.allclose(tanh, np.tanh(real), rtol=1e-6)
    sigmoid = of(L.Activation(name="a", inputs=INPUT, function="sigmoid"))
    assert np.allclose(sigmoid, 1 / (1 + np.exp(-real)), rtol=1e-6)


def volumes(rng: np.random.Generator) -> Model:
    """Return a network of every layer over volumes."""

    def values(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    layers = (
        L.Conv3D(name="c", inputs=INPUT, weight=values(2, 3, 2, 2, 3), bias=values(3)),
        L.Step(name="s", inputs="c"),
        L.AveragePool3D(name="a", inputs="s", padding="same", strides=(1, 2, 1)),
        L.Conv3D(name="d", inputs="a", weight=values(1, 2, 2, 1, 3), groups=3, padding="same"),
        L.MaxPool3D(name="m", inputs="d", pool_size=(2, 1, 2)),
        L.Step(name="t", inputs="m", threshold=0.1, strict=True),
    )
    return Model("volumes", InputSpec((4, 5, 4, 2), -3, 4, 0.3), layers)


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds, volumes])
def test_everything_is_float32_and_zero_samples_work(make: Any) -> None:
    model = make(np.random.default_rng(0))
    for n in (0, 1, 3):
        x = random_samples(np.random.default_rng(1), model.input, n)
        for name, value in forward(model, x).items():
            assert value.dtype == np.float32, name
            assert value.shape == (n, *model.shapes[name]), name


def test_given_values_replace_what_later_layers_read() -> None:
    layers = (L.Step(name="a", inputs=INPUT), L.Step(name="b", inputs="a"))
    model = Model("m", InputSpec((2,)), layers)
    x = np.array([[1, 0]])
    values = forward(model, x, given={"a": np.array([[0, 1]])})
    assert values["a"].tolist() == [[1, 0]]
    assert values["b"].tolist() == [[0, 1]]


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds, volumes])
@pytest.mark.parametrize("seed", range(3))
def test_float32_stays_within_the_error_bound(make: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = make(rng)
    x = random_samples(rng, model.input, 20)
    values = forward(model, x)
    steps = {m.name: values[m.name] for m in model.layers if isinstance(m, L.Step)}
    exact = forward_with_error(model, x, steps)
    assert set(exact) == set(steps)
    for layer in model.layers:
        if isinstance(layer, L.Step):
            before = values[layer.inputs[0]].astype(np.float64)
            value, bound = exact[layer.name]
            assert (np.abs(before - value) <= bound).all(), layer.name
            assert bound.max() < 1e-3
