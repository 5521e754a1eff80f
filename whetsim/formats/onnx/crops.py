"""ONNX operators that cut parts out of a tensor, or repeat it.

Cutting cells off a map is a convolution of each channel with a kernel that holds a single 1. What a
transposed convolution made is rather made smaller at once: exporters write its padding so.
"""

from __future__ import annotations

import math

import numpy as np

from whetsim.errors import FormatError, quote
from whetsim.formats.onnx.call import Call, Operator
from whetsim.formats.onnx.folding import broadcast_target, split_sizes
from whetsim.formats.onnx.steps import Cells, Repeated, Signal, Tensor, Uncut
from whetsim.formats.value import Value
from whetsim.layers import Shape

__all__ = ["CROPS", "cropped", "merged_repeat"]


def _slice(call: Call) -> Tensor:
    signal = call.signal()
    full = (call.build.batch, *signal.shape)
    starts, ends = call.integers(1, "starts") or (), call.integers(2, "ends") or ()
    axes = call.integers(3, "axes")
    places = tuple(range(len(starts))) if axes is None else axes
    strides = call.integers(4, "steps") or (1,) * len(starts)
    cuts = [(0, 0)] * len(full)
    for start, end, axis, stride in zip(starts, ends, places, strides, strict=True):
        if not -len(full) <= axis < len(full) or stride != 1:
            raise FormatError(
                f"it takes every {stride}th of axis {axis} (need every one, of one of "
                f"{len(full)} axes)."
            )
        first, last, _ = slice(start, end).indices(full[axis])
        if first >= last:
            raise FormatError(f"it leaves nothing of axis {axis}.")
        cuts[axis % len(full)] = (first, full[axis] - last)
    if cuts[0] != (0, 0):
        raise FormatError("it leaves samples out.")
    return _cropped_signal(call, call.name, signal, cuts[1:])


def _split(call: Call) -> list[Tensor]:
    signal = call.signal()
    rank = len(signal.shape) + 1
    axis = call.attributes.integer("axis")
    if not -rank <= axis < rank or axis % rank == 0:
        raise FormatError(f"axis {axis} of {rank} splits samples.")
    place = axis % rank - 1
    n = signal.shape[place]
    results: list[Tensor] = []
    begin = 0
    for i, size in enumerate(split_sizes(call, n)):
        cuts = [(0, 0)] * len(signal.shape)
        cuts[place] = (begin, n - begin - size)
        results.append(_cropped_signal(call, f"{call.name}/{i}", signal, cuts))
        begin += size
    return results


def _cropped_signal(call: Call, name: str, signal: Signal, cuts: list[Cells]) -> Signal:
    if not any(before or after for before, after in cuts):
        return signal
    return call.made(cropped(call, name, call.build.plain(signal), cuts))


def cropped(call: Call, name: str, x: Value, cuts: list[Cells]) -> Value:
    """Return a value without some cells before and after, for each axis."""
    channel = x.order[-1]
    uncut = call.build.uncut.get(x.name)
    if uncut is not None and cuts[channel] == (0, 0):
        return Value.of_stored(
            *_made_smaller(uncut, name, [cuts[a] for a in x.order[:-1]]), x.order
        )
    axes = [a for a, cut in enumerate(cuts) if cut != (0, 0)]
    if not axes:
        return x
    if channel in axes or not 2 <= x.rank <= 4:
        axis = channel if channel in axes else axes[0]
        rest = [(0, 0) if a == axis else cut for a, cut in enumerate(cuts)]
        return cropped(call, name, _selected(call, name, x, axis, cuts[axis]), rest)
    cells = [cut for a, cut in enumerate(cuts) if a != channel]
    sizes = tuple(before + after + 1 for before, after in cells)
    call.build.spend(math.prod(sizes) * x.shape[channel])
    kernel = np.zeros((*sizes, x.shape[channel], 1), np.float32)
    kernel[tuple(before for before, _ in cells)] = 1
    return call.build.graph.depthwise(name, x, kernel, channel_axis=channel)


def _made_smaller(uncut: Uncut, name: str, cuts: list[Cells]) -> tuple[str, Shape]:
    """Return name and shape of a transposed convolution that makes fewer cells."""
    extra = [max(e - after, 0) for e, (_, after) in zip(uncut.extra, cuts, strict=True)]
    # What was added behind goes first.
    pads = [
        (b + before, a + after - (e - left))
        for (b, a), (before, after), e, left in zip(
            uncut.pads, cuts, uncut.extra, extra, strict=True
        )
    ]
    made = uncut.make(name, pads, extra)
    return made.name, made.stored_shape


def _selected(call: Call, name: str, x: Value, axis: int, cut: Cells) -> Value:
    """Return some of an axis, by a matrix of 0 and 1."""
    before, after = cut
    if not before and not after:
        return x
    n = x.shape[axis]
    call.build.spend(n * (n - before - after))
    matrix = np.eye(n, n - before - after, -before, dtype=np.float32)
    order = (*(a for a in range(x.rank) if a != axis), axis)
    graph = call.build.graph
    chosen = graph.dense(name, graph.transpose(x, order), matrix)
    return graph.transpose(chosen, tuple(order.index(a) for a in range(x.rank)))


def _expand(call: Call) -> Tensor:
    """Repeat one axis of size 1, as exporters write an enlargement of maps."""
    signal = call.signal()
    full = (call.build.batch, *signal.shape)
    asked = call.integers(1, "the shape")
    if asked is None:
        raise FormatError("the shape is missing. The file is damaged.")
    target = broadcast_target(full, asked)
    if target == full:
        return signal
    return call.made(_repeated(call, call.build.plain(signal), full, target))


def _tile(call: Call) -> Tensor:
    signal = call.signal()
    full = (call.build.batch, *signal.shape)
    repeats = call.integers(1, "the repeats")
    fits = repeats is not None and len(repeats) == len(full) and min(repeats) > 0
    if not fits or any(n != 1 and r != 1 for n, r in zip(full, repeats or (), strict=True)):
        raise FormatError(
            f"it repeats a tensor of shape {full} {quote(repeats)} times (need axes of size 1)."
        )
    target = tuple(n * r for n, r in zip(full, repeats or (), strict=True))
    if target == full:
        return signal
    return call.made(_repeated(call, call.build.plain(signal), full, target))


def _repeated(call: Call, x: Value, full: Shape, target: Shape) -> Value:
    grown = [a for a, (n, m) in enumerate(zip(full, target, strict=False)) if n != m]
    if len(target) != len(full) or len(grown) != 1 or grown[0] == 0:
        raise FormatError(
            f"it repeats a tensor of shape {full} to {quote(target)} (need one axis repeated, not "
            "that of the samples)."
        )
    axis = grown[0] - 1
    factor = target[axis + 1]
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    build = call.build
    plane = build.reshape(f"{call.name}/plane", x, (before, 1, after))
    larger = build.graph.upsample(f"{call.name}/repeated", plane, (1, factor), channel_axis=2)
    made = build.reshape(call.name, larger, target[1:])
    build.repeated[made.name] = Repeated(x, axis, factor)
    return made


def merged_repeat(call: Call, x: Value, shape: Shape) -> Value | None:
    """Return x in another shape as an enlarged map, if it is a map whose cells were repeated."""
    repeated = call.build.repeated.get(x.name)
    if repeated is None or repeated.axis == 0:
        return None
    source, axis, factor = repeated
    small = (*source.shape[:axis], *source.shape[axis + 1 :])
    large = tuple(n * factor if a == axis - 1 else n for a, n in enumerate(small))
    if shape != large or not 2 <= len(small) <= 3:
        return None
    plain = call.build.reshape(f"{call.name}/small", source, small)
    channel = len(small) - 1 if axis - 1 != len(small) - 1 else 0
    factors = [factor if a == axis - 1 else 1 for a in range(len(small)) if a != channel]
    return call.build.graph.upsample(call.name, plain, factors, channel_axis=channel)


CROPS: dict[str, Operator] = {"Expand": _expand, "Slice": _slice, "Split": _split, "Tile": _tile}
