"""`sweep`: how many bits a network's weights need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.backend import Progress
from whetsim.errors import SampleError, quote
from whetsim.network import SpikingNetwork
from whetsim.progress import progress_reporter
from whetsim_hardware.chip import Chip
from whetsim_hardware.quantize import Method, quantize
from whetsim_hardware.quantize_report import Quantization
from whetsim_hardware.quantize_rules import MAX_BITS

__all__ = ["Sweep", "Width", "sweep"]

SAFE_SHARE = 0.001


@dataclass(frozen=True)
class Width:
    """All populations quantized at one width.

    Parameters
    ----------
    bits : int
    flips : int
        Flipped spikes of all populations.
    flip_rate : float
        Flips a neuron and sample.
    accuracy : float, optional
        Where labels were given.
    """

    bits: int
    flips: int
    flip_rate: float
    accuracy: float | None


@dataclass(frozen=True)
class Sweep:
    """A network at several widths of its weights.

    Parameters
    ----------
    chip : str, optional
    method : str
    n_samples : int
    accuracy : float, optional
        Of the network as it is.
    share : float
        Flips a neuron and sample up to which a population alone counts as safe.
    widths : tuple of Width
    safe_bits : dict of str to int or None
        For each population the smallest width at which it is safe if it alone is quantized; None
        if none of the widths is.
    """

    chip: str | None
    method: str
    n_samples: int
    accuracy: float | None
    share: float
    widths: tuple[Width, ...]
    safe_bits: dict[str, int | None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{'bits':>4} {'flips':>11} {'a neuron':>9} {'accuracy':>9}"]
        for width in self.widths:
            accuracy = "-" if width.accuracy is None else f"{width.accuracy:.2%}"
            lines.append(f"{width.bits:4} {width.flips:11,} {width.flip_rate:9.2e} {accuracy:>9}")
        as_it_is = "" if self.accuracy is None else f", {self.accuracy:.2%} as it is"
        lines.append(f"{self.n_samples:,} samples{as_it_is}")
        lines.append(f"smallest safe width (at most {self.share:g} flips a neuron and sample):")
        for name, bits in self.safe_bits.items():
            lines.append(f"{name:24} {'none' if bits is None else bits:>4}")
        return "\n".join(lines)


def sweep(
    network: SpikingNetwork,
    samples: ArrayLike,
    labels: NDArray[Any] | None = None,
    *,
    bits: int | Iterable[int] = range(1, MAX_BITS + 1),
    chip: Chip | str | Path | None = None,
    method: Method = "flips",
    share: float = SAFE_SHARE,
    progress: Progress = False,
) -> Sweep:
    """Quantize a network at several widths: all populations together, and each alone.

    Parameters
    ----------
    network : SpikingNetwork
    samples : integer array (n_samples, ...)
        Calibration samples; flips and accuracies are on these.
    labels : int array (n_samples,), optional
        With them, a population is safe only if the accuracy is not lower than before.
    bits : int or iterable of int
        Widths, 1..16.
    chip : Chip, str or Path, optional
        Its rules for thresholds and sums; it must have weights that wide.
    method, progress
        See `quantize`.
    share : float
        Flips a neuron and sample that a population alone may have and be safe.

    Returns
    -------
    Sweep

    Raises
    ------
    WhetsimError
        What `quantize` raises.
    """
    asked = _widths(bits)
    _check_share(share)
    labels = None if labels is None else np.asarray(labels)
    names = [p.name for p in network.populations]
    found: list[Quantization] = []
    safe: dict[str, int | None] = {}
    with progress_reporter(progress, len(asked) + len(names), "widths and layers") as report:
        for width in asked:
            found.append(quantize(network, chip, samples, bits=width, method=method, labels=labels))
            report(len(found))
        for done, name in enumerate(names, len(asked) + 1):
            # The widths from below: most populations are safe at a few bits.
            candidates = (
                (
                    width,
                    quantize(
                        network,
                        chip,
                        samples,
                        bits=width,
                        method=method,
                        labels=labels,
                        only=[name],
                    ),
                )
                for width in asked
            )
            safe[name] = next((w for w, q in candidates if _is_safe(q, name, share)), None)
            report(done)
    first = found[0]
    decisions = max(1, network.n_neurons * first.n_samples)
    widths = tuple(
        Width(width, q.flips, q.flips / decisions, q.accuracy_after)
        for width, q in zip(asked, found, strict=True)
    )
    return Sweep(first.chip, method, first.n_samples, first.accuracy_before, share, widths, safe)


def _widths(bits: Any) -> list[int]:
    widths: set[int] = set()
    for width in bits if isinstance(bits, Iterable) and not isinstance(bits, str) else [bits]:
        whole = isinstance(width, (int, np.integer)) and not isinstance(width, bool)
        if not whole or not 1 <= width <= MAX_BITS:
            raise SampleError(
                f"sweep: bits is {quote(width)}; need whole numbers in 1..{MAX_BITS}."
            )
        widths.add(int(width))
    if not widths:
        raise SampleError("sweep: no widths. Give bits=range(1, 17) for example.")
    return sorted(widths)


def _check_share(share: Any) -> None:
    number = isinstance(share, (int, float, np.number)) and not isinstance(share, bool)
    if not number or not 0 <= share <= 1:
        raise SampleError(f"sweep: share is {quote(share)}; need a number in 0..1.")


def _is_safe(found: Quantization, name: str, share: float) -> bool:
    if found[name].flip_rate > share:
        return False
    before, after = found.accuracy_before, found.accuracy_after
    return before is None or after is None or after >= before
