"""ONNX operators without weights that look at neighbours: pools, padding, repetition."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from whetsim.errors import FormatError, quote
from whetsim.formats.graph import Value
from whetsim.formats.onnx.call import Call, Operator
from whetsim.formats.onnx.crops import cropped
from whetsim.formats.onnx.layers import Window, window_of
from whetsim.formats.onnx.steps import Refusal, Tensor

__all__ = ["POOLS"]


def _max_pool(call: Call) -> list[Tensor]:
    x = call.plain()
    window = window_of(call, x)
    pads, _ = _pool_padding(call, window)
    value = call.build.graph.max_pool(
        call.name, x, window.kernel, window.strides, pads, channel_axis=0
    )
    indices = Refusal(FormatError(f"node {quote(call.name)}: places of maxima are not supported."))
    return [call.made(value), indices]


def _average_pool(call: Call) -> Tensor:
    x = call.plain()
    window = window_of(call, x)
    pads, grew = _pool_padding(call, window)
    count = bool(call.attributes.integer("count_include_pad"))
    if count and grew:
        raise FormatError(
            "its last windows reach beyond the padding (ceil_mode), and padding counts: their "
            "means have different divisors. Set ceil_mode or count_include_pad to 0."
        )
    value = call.build.graph.average_pool(
        call.name, x, window.kernel, window.strides, pads, channel_axis=0, count_padding=count
    )
    return call.made(value)


def _pool_padding(call: Call, window: Window) -> tuple[list[tuple[int, int]], bool]:
    """Return the padding, and whether it grew to hold the last windows of ceil_mode."""
    if any(d != 1 for d in window.dilation):
        raise FormatError(f"dilations {quote(window.dilation)} are not supported in a pool.")
    if not call.attributes.integer("ceil_mode") or window.auto.startswith("SAME"):
        return window.pads, False
    pads = []
    for n, k, s, (before, after) in zip(
        window.size, window.kernel, window.strides, window.pads, strict=True
    ):
        cells = -(-(n + before + after - k) // s) + 1
        if (cells - 1) * s >= n + before:
            # A window that would begin in the padding behind the map is left out.
            cells -= 1
        reach = (cells - 1) * s + k - n - before
        pads.append((before, max(after, reach)))
    return pads, pads != window.pads


def _global_pool(maximum: bool) -> Operator:
    def read(call: Call) -> Tensor:
        x = call.plain()
        if x.rank < 2:
            raise FormatError(f"its input has shape {x.shape} (need channels and cells).")
        pooled = call.build.graph.global_pool(call.name, x, maximum=maximum, channel_axis=0)
        return call.made(_with_axes(call, x, pooled, 0))

    return read


def _reduce(maximum: bool, total: bool = False) -> Operator:
    """Return the reader of a reduction over all axes but one."""

    def read(call: Call) -> Tensor:
        x = call.plain()
        given = call.integers(1, "the axes")
        axes = call.attributes.integers("axes") if given is None else given
        if not axes and call.attributes.integer("noop_with_empty_axes"):
            return call.signal()
        full = x.rank + 1
        if not axes or any(not -full <= a < full for a in axes):
            raise FormatError(f"axes {quote(axes)} must be some of {full}, without the samples.")
        reduced = {a % full - 1 for a in axes}
        kept = [a for a in range(x.rank) if a not in reduced]
        if -1 in reduced or len(kept) != 1:
            raise FormatError(
                f"it reduces axes {quote(axes)} of {full} (need all but the samples and one, as "
                "a global pool does)."
            )
        graph = call.build.graph
        value = graph.global_pool(call.name, x, maximum=maximum, channel_axis=kept[0])
        if total:
            n_cells = x.size // x.shape[kept[0]]
            value = graph.scale_and_shift(f"{value.name}/total", value, scale=float(n_cells))
        if call.attributes.integer("keepdims", 1):
            value = _with_axes(call, x, value, kept[0])
        return call.made(value)

    return read


def _with_axes(call: Call, x: Value, pooled: Value, channel_axis: int) -> Value:
    """Return what a global pool of x made, with axes of size 1 where the others were."""
    shape = tuple(n if a == channel_axis else 1 for a, n in enumerate(x.shape))
    return call.build.reshape(f"{pooled.name}/axes", pooled, shape)


def _pad(call: Call) -> Tensor:
    x = call.plain()
    if call.attributes.text("mode", "constant") != "constant":
        raise FormatError(f"mode {quote(call.attributes.text('mode'))} is none but 'constant'.")
    if call.has(2) and call.array(2, "the value").any():
        raise FormatError("it pads with another number than 0.")
    pads = call.integers(1, "the pads") or ()
    full = x.rank + 1
    given = call.integers(3, "the axes")
    axes = tuple(range(full)) if given is None else given
    if len(pads) != 2 * len(axes) or any(not -full <= a < full for a in axes):
        raise FormatError(f"pads {quote(pads)} do not fit {full} axes.")
    padding = [(0, 0)] * full
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        padding[axis % full] = (before, after)
    if padding[0] != (0, 0):
        raise FormatError(f"pads {quote(pads)} add samples.")
    cuts = [(max(-before, 0), max(-after, 0)) for before, after in padding[1:]]
    if any(before or after for before, after in cuts):
        if any(sum(cut) >= n for cut, n in zip(cuts, x.shape, strict=True)):
            raise FormatError(f"pads {quote(pads)} leave nothing.")
        x = cropped(call, f"{call.name}/cut", x, cuts)
    return call.made(_padded(call, x, [(max(b, 0), max(a, 0)) for b, a in padding[1:]]))


def _padded(call: Call, x: Value, padding: list[tuple[int, int]]) -> Value:
    if not any(before or after for before, after in padding):
        return x
    channel = next((a for a, pair in enumerate(padding) if pair == (0, 0)), None)
    if channel is None:
        raise FormatError("it pads all axes (need one that is not padded, the channels').")
    cells = [pair for a, pair in enumerate(padding) if a != channel]
    return call.build.graph.zero_pad(call.name, x, cells, channel_axis=channel)


def _resize(call: Call) -> Tensor:
    x = call.plain()
    mode = call.attributes.text("mode", "nearest")
    if mode != "nearest":
        raise FormatError(f"mode {quote(mode)} is not supported (need 'nearest').")
    factors = _factors(call, x)
    for n, factor in zip(x.shape, factors, strict=True):
        _check_repeats(call, n, factor)
    channel = next((a for a, factor in enumerate(factors) if factor == 1), None)
    if channel is None:
        raise FormatError("it enlarges all axes (need one that stays, the channels').")
    if all(factor == 1 for factor in factors):
        return call.signal()
    cells = [factor for a, factor in enumerate(factors) if a != channel]
    value = call.build.graph.upsample(call.name, x, cells, channel_axis=channel)
    return call.made(value)


def _factors(call: Call, x: Value) -> list[int]:
    """Return by how much each axis of a sample grows."""
    full = (call.build.batch, *x.shape)
    axes = call.attributes.integers("axes") or tuple(range(len(full)))
    if len({a % len(full) for a in axes if -len(full) <= a < len(full)}) != len(axes):
        raise FormatError(f"axes {quote(axes)} are none of {len(full)}.")
    sizes = call.integers(3, "the sizes")
    factors: list[Fraction] = [Fraction(1)] * len(full)
    if sizes:
        if call.attributes.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise FormatError("keep_aspect_ratio_policy is not supported (need 'stretch').")
        given = [Fraction(n, full[a]) for a, n in zip(axes, sizes, strict=False)]
    else:
        scales = call.floats(2, "the scales").ravel()
        if not all(map(math.isfinite, scales.tolist())):
            raise FormatError("its scales are not finite.")
        given = [Fraction(float(s)) for s in scales[: len(axes)]]
    if len(given) != len(axes):
        raise FormatError(f"its scales do not fit {len(axes)} axes.")
    for axis, factor in zip(axes, given, strict=True):
        factors[axis] = factor
    if factors[0] != 1 or any(f.denominator != 1 or f < 1 for f in factors):
        shown = ", ".join(f"{float(f):g}" for f in factors)
        raise FormatError(
            f"it enlarges by {shown} (need whole numbers, and 1 for samples): only repetition "
            "keeps spikes."
        )
    return [int(f) for f in factors[1:]]


def _check_repeats(call: Call, n: int, factor: int) -> None:
    """Refuse a mode that does not repeat every cell `factor` times."""
    if factor == 1:
        return
    where = call.attributes.text("coordinate_transformation_mode", "half_pixel")
    nearest = call.attributes.text("nearest_mode", "round_prefer_floor")
    if where not in _PLACES or nearest not in _NEAREST:
        raise FormatError(f"modes {quote(where)} and {quote(nearest)} are not supported.")
    if factor > 4096:
        raise FormatError(f"it enlarges by {factor} (need <= 4096).")
    # Places repeat from cell to cell but for align_corners: its ends tell.
    last = n * factor - 1
    for i in {*range(min(2 * factor, last + 1)), *range(max(last - 2 * factor, 0), last + 1)}:
        place = _PLACES[where](i, n, n * factor)
        if min(max(_NEAREST[nearest](place), 0), n - 1) != i // factor:
            raise FormatError(
                f"modes {quote(where)} and {quote(nearest)} do not repeat every cell {factor} "
                "times. Export it with 'asymmetric' and 'floor'."
            )


_HALF = Fraction(1, 2)
_PLACES: dict[str, Callable[[int, int, int], Fraction]] = {
    "asymmetric": lambda i, n, m: Fraction(i * n, m),
    "half_pixel": lambda i, n, m: (i + _HALF) * n / m - _HALF,
    "half_pixel_symmetric": lambda i, n, m: (i + _HALF) * n / m - _HALF,
    "pytorch_half_pixel": lambda i, n, m: (i + _HALF) * n / m - _HALF if m > 1 else Fraction(0),
    "align_corners": lambda i, n, m: Fraction(i * (n - 1), m - 1) if m > 1 else Fraction(0),
}
_NEAREST: dict[str, Callable[[Fraction], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - _HALF),
    "round_prefer_ceil": lambda x: math.floor(x + _HALF),
}

POOLS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool(False),
    "GlobalMaxPool": _global_pool(True),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMax": _reduce(True),
    "ReduceMean": _reduce(False),
    "ReduceSum": _reduce(False, total=True),
    "Resize": _resize,
}
