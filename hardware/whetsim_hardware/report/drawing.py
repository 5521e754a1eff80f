"""Pictures in HTML and SVG: bars, ranges, histograms, rasters.

Everything takes its colours from the page, so that it reads in light and in dark, and its width
from where it stands, so that it fits a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "bars", "histogram", "raster", "table"]

MAX_CELLS = 20_000
"""Neurons drawn of one population; more would make the page slow and show no more."""
ROW = 32
"""Neurons in one row of a population that has no maps."""


class Bar(NamedTuple):
    """One bar: its value with a range, as they are drawn and as they are written."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    tone: str = "main"


def bars(rows: Sequence[Bar], *, logarithmic: bool = False, most: float | None = None) -> str:
    """Return bars from the left, one a row; on a logarithmic scale from a decade below the least.

    The largest value fills its row, or `most` would. A range is drawn as a thin line over the end
    of its bar.
    """
    ends = [v for r in rows for v in (r.value, r.low, r.high) if v is not None]
    positive = [v for v in ends if v > 0]
    if not positive:
        return table(["", ""], [[escape(r.label), escape(r.text)] for r in rows])
    top = max(positive) if most is None else most
    bottom = 10.0 ** math.floor(math.log10(min(positive)) - 0.5) if logarithmic else 0.0

    def place(value: float) -> float:
        if logarithmic:
            if value <= bottom:
                return 0.0
            return 100 * math.log(value / bottom) / math.log(top / bottom)
        return 100 * value / top

    lines = []
    for r in rows:
        whisker = ""
        if r.low is not None and r.high is not None and r.high > r.low:
            left, right = place(r.low), place(r.high)
            whisker = f'<i class="range" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
        lines.append(
            f'<div class="bar"><span class="label">{escape(r.label)}</span>'
            f'<span class="track"><i class="fill {r.tone}" style="width:{place(r.value):.2f}%"></i>'
            f'{whisker}</span><span class="value">{escape(r.text)}</span></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def histogram(counts: Sequence[int], labels: Sequence[str]) -> str:
    """Return columns with a label below each; heights are square roots, so that few show too."""
    top = math.sqrt(max([*counts, 1]))
    columns = []
    for count, label in zip(counts, labels, strict=True):
        height = 100 * math.sqrt(count) / top
        columns.append(
            f'<span class="column" title="{escape(label)}: {count:,}">'
            f'<i style="height:{height:.1f}%"></i><b>{escape(label)}</b></span>'
        )
    return f'<div class="histogram">{"".join(columns)}</div>'


def raster(spikes: NDArray[np.bool_], shape: Sequence[int]) -> str:
    """Return the spikes of a population for one sample; maps side by side, a square a neuron."""
    if len(shape) == 3:
        height, width, channels = shape
        maps = spikes.reshape(height, width, channels).transpose(2, 0, 1)
    else:
        width = min(ROW, max(spikes.size, 1))
        height = -(-spikes.size // width)
        padded = np.zeros(height * width, dtype=bool)
        padded[: spikes.size] = spikes.ravel()
        maps = padded.reshape(1, height, width)
    shown = maps[: max(1, MAX_CELLS // max(1, height * width))]
    columns = _columns(len(shown), height / width)
    rows = -(-len(shown) // columns)
    gap = 1 if len(shown) > 1 else 0
    path, frames = [], []
    for i, one in enumerate(shown):
        left, top = (i % columns) * (width + gap), (i // columns) * (height + gap)
        frames.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}"/>')
        path += [f"M{left + x} {top + y}h{n}v1h-{n}z" for y, x, n in _runs(one)]
    box = f"0 0 {columns * (width + gap) - gap} {rows * (height + gap) - gap}"
    cut = "" if len(shown) == len(maps) else f" (the first {len(shown)} of {len(maps)} maps)"
    return (
        f'<svg class="raster" viewBox="{box}" role="img" aria-label="spikes{cut}" '
        f'preserveAspectRatio="xMinYMin meet" style="--columns:{columns * (width + gap)}">'
        f'<g class="cells">{"".join(frames)}</g><path class="spikes" d="{"".join(path)}"/></svg>'
    )


def _columns(n_maps: int, aspect: float) -> int:
    """Return maps in a row: about 2.5 times as wide as high, without a ragged end if possible."""
    wanted = math.sqrt(n_maps * 2.5 * aspect)
    whole = [n for n in range(1, n_maps + 1) if n_maps % n == 0 and wanted / 2 < n < wanted * 2]
    return min(whole or [max(1, min(n_maps, round(wanted)))], key=lambda n: abs(n - wanted))


def _runs(picture: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Return row, first column and length of every horizontal run of spikes."""
    edges = np.diff(np.pad(picture.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    y, first = np.nonzero(edges == 1)
    _, last = np.nonzero(edges == -1)
    return [(int(a), int(b), int(c - b)) for a, b, c in zip(y, first, last, strict=True)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table of cells that are HTML already; columns in `numbers` stand to the right."""

    def cells(kind: str, row: Sequence[str]) -> str:
        marks = [' class="number"' if i in numbers else "" for i in range(len(row))]
        return "".join(f"<{kind}{m}>{c}</{kind}>" for m, c in zip(marks, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
