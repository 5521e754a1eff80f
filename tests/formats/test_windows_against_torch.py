"""Every layer that slides a window: spikes of the exact backend equal torch's steps, ties included.

Weights and inputs are multiples of a quarter, so that float32 sums are exact in any order and many
units tie with the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model
from whetsim.runner import run

torch = pytest.importorskip("torch", reason="compares with torch")
F = torch.nn.functional

LOW, HIGH, SCALE = -3, 4, 0.25
N_SAMPLES = 3
CONVOLUTIONS = ("conv", "grouped", "depthwise", "transposed")
POOLS = ("max", "mean", "counted")
KINDS = [
    (kind, n_axes)
    for kind in (*CONVOLUTIONS, *POOLS)
    for n_axes in ((1, 2) if kind == "transposed" else (1, 2, 3))
]
"""Kinds of layers, and over how many axes their window slides."""
EXTENT = {1: 9, 2: 6, 3: 4}
"""Cells of an axis at most, unless its kernel needs more."""
Sides = list[tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """One layer, with weights ``(*kernel, inputs / groups, outputs)`` if it has any.

    `before` tells to put a step in front of the layer, `strict` which kind of step is behind it.
    """

    kind: str
    size: tuple[int, ...]
    channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Any
    output_padding: tuple[int, ...]
    n_out: int
    seed: int
    before: bool
    strict: bool

    @property
    def n_axes(self) -> int:
        return len(self.size)

    @property
    def groups(self) -> int:
        return {"depthwise": self.channels, "grouped": 2}.get(self.kind, 1)

    @property
    def spans(self) -> list[int]:
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def samples(self) -> np.ndarray:
        """Return whole numbers ``(n_samples, channels, *size)``, as torch has them."""
        rng = np.random.default_rng(self.seed)
        # Means of both signs would hardly ever reach a half.
        low = 0 if self.kind in ("mean", "counted") else LOW
        return rng.integers(low, HIGH + 1, (N_SAMPLES, self.channels, *self.size))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias; a transposed convolution's is ``(*kernel, outputs, inputs)``."""
        rng = np.random.default_rng(self.seed + 1)
        shape = (self.channels // self.groups, self.n_out)
        if self.kind == "transposed":
            shape = (self.n_out, self.channels)
        weight = rng.integers(-4, 5, (*self.kernel, *shape)) / 4
        return weight.astype(np.float32), (rng.integers(-2, 4, self.n_out) / 4).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, kind: str, n_axes: int) -> Case:
    """Draw a layer of any geometry that leaves an output."""
    random = draw(st.randoms(use_true_random=False))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(random.randint(low, high) for _ in range(n_axes))

    kernel = each(1, 5 if n_axes < 3 or random.random() < 0.2 else 3)
    dilation = (1,) * n_axes if kind in POOLS else each(1, 3)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding: Any = random.choice(["valid", "same", "explicit"])
    size = each(1, EXTENT[n_axes])
    if padding == "explicit":
        padding = tuple(_sides(random, kind, k, s) for k, s in zip(kernel, spans, strict=True))
    if kind != "transposed" and padding != "same":
        around = [(0, 0)] * n_axes if padding == "valid" else padding
        size = tuple(max(n, s - sum(p)) for n, s, p in zip(size, spans, around, strict=True))
    channels = random.choice([2, 4]) if kind == "grouped" else random.randint(1, 3)
    n_out = {"grouped": 4, "depthwise": channels * random.randint(1, 2)}.get(kind)
    return Case(
        kind=kind,
        size=size,
        channels=channels,
        kernel=kernel,
        strides=each(1, 3),
        dilation=dilation,
        padding=padding,
        output_padding=each(0, 1) if not isinstance(padding, str) else (0,) * n_axes,
        n_out=n_out or random.randint(1, 3),
        seed=random.randrange(2**32),
        before=random.random() < 0.3,
        strict=random.random() < 0.3,
    )


def _sides(random: Random, kind: str, kernel: int, span: int) -> tuple[int, int]:
    """Return cells before and after: less than a pool, and no more than a window is cut."""
    before, after = random.randint(0, 3), random.randint(0, 3)
    if kind in POOLS:
        return min(before, kernel - 1), min(after, kernel - 1)
    if kind == "transposed":
        before = min(before, span - 1)
        return before, min(after, span - 1 - before)
    return before, after


# --- torch --------------------------------------------------------------------------------------


def same_sides(case: Case) -> Sides:
    """Return the padding of 'same' as TensorFlow's documentation has it: the odd cell behind."""
    sides = []
    for n, span, stride in zip(case.size, case.spans, case.strides, strict=True):
        rest = n % stride
        total = max(span - (stride if rest == 0 else rest), 0)
        sides.append((total // 2, total - total // 2))
    return sides


def padded(x: Any, sides: Sides, value: float = 0.0) -> Any:
    """Return a tensor with cells around it, or without them where their number is negative."""
    flat = [cells for pair in reversed(sides) for cells in pair]
    return F.pad(x, flat, value=value)


def fires_in_torch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return which units fire, and which of them no binary fraction decides.

    The mean of 3 cells is a third of their sum, which no grid holds; where it ties exactly, no
    finite number of bits says so.
    """
    x = torch.tensor(case.samples() * SCALE, dtype=torch.float32)
    if case.before:
        x = (x >= 0.5).float()
    cells = torch.ones(())
    if case.kind in POOLS:
        y, cells = pooled_by_torch(case, x)
    else:
        y = convolved_by_torch(case, x)
    # A mean is at least a half if the sum is at least half the number of cells.
    level = cells * 0.5
    tied = (y == level).numpy()
    n = np.broadcast_to(cells.numpy().astype(int), tied.shape)
    fires = ((y > level) if case.strict else (y >= level)).numpy()
    return fires, tied & ((n & (n - 1)) != 0)


def convolved_by_torch(case: Case, x: Any) -> Any:
    weight, bias = (torch.tensor(array) for array in case.arrays())
    weight = weight.movedim((-1, -2), (0, 1))
    options = {"stride": case.strides, "dilation": case.dilation, "groups": case.groups}
    if case.kind != "transposed":
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[case.n_axes]
        sides = {"valid": [(0, 0)] * case.n_axes, "same": same_sides(case)}
        around = sides[case.padding] if isinstance(case.padding, str) else list(case.padding)
        return convolve(padded(x, around), weight, bias, **options)
    spread = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[case.n_axes]
    whole = spread(x, weight, **options)
    cut: Sides = list(case.padding) if not isinstance(case.padding, str) else []
    extra = case.output_padding
    if not cut:
        # Keras: 'same' makes n * stride cells, 'valid' n * stride + max(span - stride, 0).
        excess = [s - stride for s, stride in zip(case.spans, case.strides, strict=True)]
        extra = tuple(max(-e, 0) for e in excess)
        cuts = [max(e, 0) if case.padding == "same" else 0 for e in excess]
        cut = [(c // 2, c - c // 2) for c in cuts]
    sides = [(-before, e - after) for (before, after), e in zip(cut, extra, strict=True)]
    return padded(whole, sides) + bias.reshape(-1, *(1,) * case.n_axes)


def pooled_by_torch(case: Case, x: Any) -> tuple[Any, Any]:
    """Return the largest value under each window, or the sum, and by what to divide it."""
    sides = {"valid": [(0, 0)] * case.n_axes, "same": same_sides(case)}
    around = sides[case.padding] if isinstance(case.padding, str) else list(case.padding)
    if case.kind == "max":
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[case.n_axes]
        return pool(padded(x, around, -math.inf), case.kernel, case.strides), torch.ones(())

    def total(values: Any) -> Any:
        if case.n_axes == 1:
            summed = F.avg_pool2d(
                padded(values, around)[:, :, None],
                (1, *case.kernel),
                (1, *case.strides),
                divisor_override=1,
            )
            return summed[:, :, 0]
        pool = F.avg_pool2d if case.n_axes == 2 else F.avg_pool3d
        return pool(padded(values, around), case.kernel, case.strides, divisor_override=1)

    n_cells = torch.tensor(float(math.prod(case.kernel)))
    return total(x), n_cells if case.kind == "counted" else total(torch.ones_like(x[:1]))


# --- whetsim ------------------------------------------------------------------------------------


def model_of_layers(case: Case) -> tuple[Model, Value]:
    """Return the layer between steps as it is, for a map or a volume with channels last."""
    weight, bias = case.arrays()
    values: dict[str, Any] = {"name": "x", "strides": case.strides, "padding": case.padding}
    values["inputs"] = "before" if case.before else INPUT
    over_maps = case.n_axes == 2
    if case.kind in POOLS:
        values["pool_size"] = case.kernel
    else:
        values |= {"weight": weight, "bias": bias, "dilation": case.dilation}
    if case.kind == "max":
        layer: L.Layer = L.MaxPool2D(**values) if over_maps else L.MaxPool3D(**values)
    elif case.kind in POOLS:
        values["count_padding"] = case.kind == "counted"
        layer = L.AveragePool2D(**values) if over_maps else L.AveragePool3D(**values)
    elif case.kind == "transposed":
        layer = L.Conv2DTranspose(**values, output_padding=case.output_padding)
    elif case.kind == "depthwise" and over_maps:
        values["weight"] = weight.reshape(*case.kernel, case.channels, -1)
        layer = L.DepthwiseConv2D(**values)
    else:
        values["groups"] = case.groups
        layer = L.Conv2D(**values) if over_maps else L.Conv3D(**values)
    layers = [layer, L.Step(name="s", inputs="x", strict=case.strict)]
    if case.before:
        layers.insert(0, L.Step(name="before", inputs=INPUT))
    spec = InputSpec((*case.size, case.channels), LOW, HIGH, SCALE)
    model = Model("layers", spec, tuple(layers))
    order = (*range(case.n_axes + 1),)
    return model, Value("s", model.shapes["s"], order)


def model_of_graph(case: Case, channel_axis: int) -> tuple[Model, Value]:
    """Return what the graph builder makes of the layer, channels first or last in the file."""
    weight, bias = case.arrays()
    shape = (case.channels, *case.size) if channel_axis == 0 else (*case.size, case.channels)
    graph = Graph(shape)
    x = graph.input
    if case.before:
        x = graph.step("before", x, written_as="step")
    values: dict[str, Any] = {"strides": case.strides, "padding": case.padding}
    values["channel_axis"] = channel_axis
    if case.kind == "max":
        x = graph.max_pool("x", x, case.kernel, **values)
    elif case.kind in POOLS:
        counted = case.kind == "counted"
        x = graph.average_pool("x", x, case.kernel, **values, count_padding=counted)
    elif case.kind == "transposed":
        values["output_padding"] = case.output_padding
        x = graph.conv_transpose("x", x, weight, bias, **values, dilation=case.dilation)
    elif case.kind == "depthwise":
        weight = weight.reshape(*case.kernel, case.channels, -1)
        x = graph.depthwise("x", x, weight, bias, **values, dilation=case.dilation)
    else:
        values["groups"] = case.groups
        x = graph.conv("x", x, weight, bias, **values, dilation=case.dilation)
    y = graph.step("s", x, strict=case.strict, written_as="step")
    return graph.to_model("graph", y, Reading(SCALE, (LOW, HIGH))), y


def check(model: Model, output: Value, case: Case, channel_axis: int) -> None:
    """Check that every unit of every sample fires as in torch."""
    place = 1 if channel_axis == 0 else -1
    expected, undecided = (np.moveaxis(a, 1, place) for a in fires_in_torch(case))
    assert output.shape == expected.shape[1:]
    samples = np.moveaxis(case.samples(), 1, place)
    network = map_to_spikes(model)
    for n in (N_SAMPLES, 1, 0):
        raster = run(network, samples[:n], record="rasters").raster("s")
        fires = raster[:, output.units()].reshape(n, *output.shape)
        assert np.array_equal(fires[~undecided[:n]], expected[:n][~undecided[:n]])


@pytest.mark.parametrize(("kind", "n_axes"), [k for k in KINDS if k[1] > 1])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_layers_equal_torch(kind: str, n_axes: int, data: st.DataObject) -> None:
    case = data.draw(cases(kind, n_axes))
    check(*model_of_layers(case), case, -1)


@pytest.mark.parametrize("channel_axis", [0, -1])
@pytest.mark.parametrize(("kind", "n_axes"), KINDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_graphs_equal_torch(kind: str, n_axes: int, channel_axis: int, data: st.DataObject) -> None:
    case = data.draw(cases(kind, n_axes))
    check(*model_of_graph(case, channel_axis), case, channel_axis)


@pytest.mark.parametrize(("kind", "n_axes"), KINDS)
def test_the_cases_tie_often_and_have_every_padding(kind: str, n_axes: int) -> None:
    paddings = set()
    n_tied = n_undecided = n_units = n_firing = 0

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(cases(kind, n_axes))
    def look(case: Case) -> None:
        nonlocal n_tied, n_undecided, n_units, n_firing
        paddings.add(case.padding if isinstance(case.padding, str) else "explicit")
        fires, undecided = fires_in_torch(case)
        other, _ = fires_in_torch(replace(case, strict=not case.strict))
        n_tied += int((fires != other).sum())
        n_undecided += int(undecided.sum())
        n_firing += int(fires.sum())
        n_units += fires.size

    look()
    assert paddings == {"valid", "same", "explicit"}
    assert n_tied > 0.01 * n_units
    assert 0.1 < n_firing / n_units < 0.95
    assert n_undecided < 0.1 * n_units
