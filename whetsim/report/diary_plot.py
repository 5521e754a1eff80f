"""A picture of a training's diary: scores, sharpness and spikes over the epochs."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import BackendNotInstalledError, FormatError, did_you_mean, install_line
from whetsim.report.diary_file import DiaryEntry, DiaryFile, read_diary

__all__ = ["plot_diary"]

SUFFIXES = (".png", ".pdf", ".svg")
SPIKING, AS_IS, SHADE, INK = "#D55E00", "#0072B2", "#EFEBDD", "#333333"
"""Vermillion and blue of Okabe and Ito, which colour-blind people can tell apart."""
MOST_LABELS = 12
"""So many layers are labelled at most; of more, every k-th."""


def plot_diary(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Draw a diary.

    Above the scores as the network was and as a spiking network, with the best fully sharp epoch;
    in the middle the sharpness of each layer, the one next to the input at the bottom; below the
    spikes per sample of each layer. The time of sharpening is shaded.

    Parameters
    ----------
    path : path
        A file that `whetsim.sharpen.Diary` wrote.
    out : path
        File to write: .png, .pdf or .svg.

    Raises
    ------
    FormatError
        If the file is no diary, has no entry, or the picture has another suffix or cannot be
        written.
    BackendNotInstalledError
        If matplotlib is missing.
    """
    draw_diary(read_diary(path), out)


def draw_diary(diary: DiaryFile, out: str | os.PathLike[str]) -> None:
    """Draw a diary that has been read; see `plot_diary`."""
    out = Path(out)
    if out.suffix.lower() not in SUFFIXES:
        raise FormatError(
            f"{out}: no picture of this kind can be written (got {out.suffix or 'no suffix'!r}; "
            f"need {', '.join(SUFFIXES)}).{did_you_mean(out.suffix, SUFFIXES)}"
        )
    if not diary.entries:
        raise FormatError(f"{diary.name}: there is no entry yet. Wait for the end of an epoch.")
    try:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendNotInstalledError(
            f"diary: matplotlib is not installed (needed for pictures). Install it: "
            f"{install_line('plot')}"
        ) from None
    n_layers = len(diary.layers)
    strip = 0.55 + 0.17 * min(n_layers, MOST_LABELS)
    style = {"font.size": 10, "axes.edgecolor": INK, "axes.spines.top": False}
    style |= {"axes.spines.right": False, "axes.labelcolor": INK, "axes.titlelocation": "left"}
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(8.5, 5.9 + strip), layout="constrained")
        FigureCanvasAgg(figure)
        top, middle, bottom = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, strip, 2.4]}
        )
        figure.suptitle(_plain(diary.name, 80), x=0.01, ha="left", weight="bold")
        _draw_scores(top, diary)
        _draw_sharpness(figure, middle, diary)
        _draw_spikes(bottom, diary)
        _draw_times((top, bottom), diary)
        try:
            figure.savefig(out, dpi=150)
        except OSError as error:
            raise FormatError(
                f"{out}: cannot be written ({error.strerror}). Give another path."
            ) from None


def _draw_scores(axes: Any, diary: DiaryFile) -> None:
    from matplotlib.ticker import PercentFormatter

    x = _times(diary)
    has_train = any(entry.train is not None for entry in diary.entries)
    of = "validation, " if has_train else ""
    kinds: list[tuple[str, str, list[float | None], str]] = []
    for what, colour, field in (("as it is", AS_IS, "as_is"), ("as spiking", SPIKING, "spiking")):
        values = [getattr(entry.validation, field) for entry in diary.entries]
        kinds.append((f"{of}{what}", colour, values, "-"))
        if has_train:
            values = [entry.train and getattr(entry.train, field) for entry in diary.entries]
            kinds.append((f"train, {what}", colour, values, "--"))
    for label, colour, values, line in kinds:
        # Both are the same once the network is sharp: blue is wider, to be seen below the other.
        width = (2.0 if line == "-" else 1.0) * (1.8 if colour == AS_IS else 1.0)
        alpha = 0.6 if colour == AS_IS else 1.0
        style = {"color": colour, "lw": width, "alpha": alpha, "marker": _dot(x)}
        axes.plot(x, _floats(values), line, label=label, **style)
    shown = np.concatenate([_floats(values) for *_, values, _ in kinds])
    is_part = bool(np.nanmin(shown, initial=0) >= 0 and np.nanmax(shown, initial=1) <= 1)
    if is_part:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    best = diary.best
    if best is not None and best.validation.spiking is not None:
        value = best.validation.spiking
        text = f"{value:.1%}" if is_part else f"{value:.4g}"
        axes.plot(
            best.epoch,
            value,
            linestyle="none",
            marker="o",
            color=SPIKING,
            ms=8,
            mfc="white",
            mew=2,
            zorder=5,
            clip_on=False,
            label=f"best fully sharp: {text}, epoch {best.epoch:g}",
        )
    axes.set_ylabel(_plain(diary.score_name, 40))
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="best", framealpha=0.85, edgecolor="none", fontsize=9)


def _draw_sharpness(figure: Any, axes: Any, diary: DiaryFile) -> None:
    import matplotlib
    from matplotlib.colors import ListedColormap

    x = _times(diary)
    end = x[-1] or 1.0
    # Resampled: entries do not come at equal distances.
    grid = np.linspace(0, end, 800)
    rows = [
        np.interp(grid, x, [entry.sharpness[name] for entry in diary.entries])
        for name in diary.layers
    ]
    n_layers = len(rows)
    image = axes.imshow(
        np.array(rows),
        cmap=ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.12, 1.0, 256))),
        vmin=0,
        vmax=1,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, end, -0.5, n_layers - 0.5),
    )
    for edge in range(1, n_layers if n_layers <= MOST_LABELS else 0):
        axes.axhline(edge - 0.5, color="white", lw=1.5)
    chosen = _chosen(n_layers)
    axes.set_yticks(chosen, [_plain(diary.layers[i]) for i in chosen])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=0)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.01, 0.05, 0.015, 0.9)), ticks=[0, 1])
    bar.ax.set_yticklabels(["0: soft", "1: step"], fontsize=9)
    bar.ax.tick_params(length=0)
    bar.outline.set_linewidth(0.5)
    axes.set_title("sharpness", fontsize=10, color=INK, pad=3)


def _draw_spikes(axes: Any, diary: DiaryFile) -> None:
    import matplotlib

    x = _times(diary)
    n_layers = len(diary.layers)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.7, n_layers))
    lines = np.array(
        [[entry.spikes_per_sample[name] for entry in diary.entries] for name in diary.layers]
    )
    for line, colour in zip(lines, colours, strict=True):
        axes.plot(x, line, "-", color=colour, lw=1.8, marker=_dot(x))
    most, fewest = lines.max(), lines.min()
    if fewest > 0 and most > 20 * fewest:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * most if most else 1)
    axes.set_ylabel("spikes per sample\n(as spiking)")
    axes.set_xlabel("epochs done")
    axes.set_xlim(0, x[-1] or 1.0)
    axes.grid(axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    chosen = _chosen(n_layers)
    places = _spread(axes, [float(lines[i, -1]) for i in chosen])
    for i, place in zip(chosen, places, strict=True):
        axes.annotate(
            f"{_plain(diary.layers[i])} (of {diary.units[i]:,})",
            (1.0, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=colours[i],
            va="center",
            fontsize=9,
            annotation_clip=False,
        )


def _draw_times(axes: Iterable[Any], diary: DiaryFile) -> None:
    """Shade the time in which layers became sharper."""
    begin, end = _sharpening(diary.entries)
    if begin is None:
        return
    for number, panel in enumerate(axes):
        panel.axvspan(begin, end, color=SHADE, lw=0, zorder=0)
        if number == 0:
            panel.annotate(
                "sharpening",
                ((begin + end) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=9,
                color="#7A7152",
            )


def _sharpening(entries: Sequence[DiaryEntry]) -> tuple[float | None, float]:
    """Return when sharpening began and ended, (None, 0) if there was none."""
    changes = [
        i for i in range(1, len(entries)) if entries[i].sharpness != entries[i - 1].sharpness
    ]
    first = entries[0]
    if not first.is_sharp and any(first.sharpness.values()):
        return 0.0, entries[changes[-1]].epoch if changes else entries[-1].epoch
    if not changes:
        return None, 0.0
    return entries[changes[0] - 1].epoch, entries[changes[-1]].epoch


def _times(diary: DiaryFile) -> NDArray[np.float64]:
    return np.array([entry.epoch for entry in diary.entries])


def _floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _dot(x: NDArray[np.float64]) -> str:
    """Return the marker of a line: one for few entries, of which a line alone shows too little."""
    return "." if len(x) <= 12 else ""


def _chosen(n: int) -> list[int]:
    return list(range(0, n, -(-n // MOST_LABELS)))


def _spread(axes: Any, values: Sequence[float]) -> list[float]:
    """Return the heights of labels as parts of the axes, moved apart where they would overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = np.array([to_axes.transform((0.0, value))[1] for value in values])
    gap = min(0.085, 1.0 / max(len(values), 1))
    order = np.argsort(heights, kind="stable")
    placed = np.clip(heights[order], 0.02, 0.98)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed -= max(placed[-1] - 0.98, 0.0)
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    result = np.empty_like(placed)
    result[order] = placed
    return [float(height) for height in result]


def _plain(text: str, most: int = 24) -> str:
    """Return a name from a file so that matplotlib shows it as it is."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    shown = shown if len(shown) <= most else f"{shown[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
    return shown.replace("$", r"\$")
