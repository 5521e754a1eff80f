"""`quantize`: weights as the whole numbers of a chip, with as few flipped spikes as possible.

Population by population, in the order of depths: each is fitted to the original network's spikes,
given the spikes that the quantized populations before it really send, so that later ones make up
for earlier ones where they can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.backend import Progress
from whetsim.coding import bit_factors, encode_network, encode_samples, to_integers
from whetsim.errors import CapacityError, SampleError, UnknownNameError, did_you_mean, quote
from whetsim.network import Encoding, Population, Projection, SpikingNetwork
from whetsim.progress import progress_reporter
from whetsim.recording import Recording
from whetsim.runner import run
from whetsim_hardware.chip import Chip, load_chip
from whetsim_hardware.quantize_inputs import (
    Grouped,
    Rows,
    grouped,
    read_rows,
    rows_that_fit,
    written,
)
from whetsim_hardware.quantize_overflow import n_exposed, sign_plane, worst_sums
from whetsim_hardware.quantize_report import PopulationReport, Quantization, flips_between
from whetsim_hardware.quantize_rules import Rules, rules_of
from whetsim_hardware.quantize_search import Solution, by_flips, by_largest, fitting

__all__ = ["METHODS", "Method", "quantize"]

Method = Literal["flips", "max"]
METHODS: tuple[Method, ...] = ("flips", "max")
Floats = NDArray[np.float64]
LEFT = Rules(0, 0, 0)
"""Of a population that stays as it is; nothing is asked of its weights."""
SINGLE_BITS = 24
"""Sums of whole numbers below 2^24 are exact in single precision."""


def quantize(
    network: SpikingNetwork,
    chip: Chip | str | Path | None,
    samples: ArrayLike,
    *,
    bits: int | None = None,
    method: Method = "flips",
    labels: NDArray[Any] | None = None,
    only: Iterable[str] | None = None,
    encoding: Encoding | None = None,
    level: int | None = None,
    progress: Progress = False,
) -> Quantization:
    """Return a network whose weights are whole numbers that a chip can hold.

    Parameters
    ----------
    network : SpikingNetwork
        As mapped. With grey input, a weight is that of the value; what a bit plane counts is not
        part of it.
    chip : Chip, str or Path, optional
        None: by `bits` alone.
    samples : integer array (n_samples, ...)
        Calibration samples; 1,000 or more of those that the network was trained on.
    bits : int, optional
        Width of the weights, 1..16, the sign counted: -(2^(bits-1) - 1) to 2^(bits-1) - 1; with
        two bits -1, 0, 1; with one -1, 1. What the chip has by default.
    method : str
        ``flips``: a scale for each neuron (or output channel), rounding with error feedback, and
        the threshold with fewest flipped spikes. ``max``: one scale for each population, at which
        its largest weight fits; weights, thresholds and biases just rounded.
    labels : int array (n_samples,), optional
        For the accuracy before and after.
    only : names, optional
        Populations to quantize; the others stay as they are.
    encoding, level : optional
        Encoding that the network returned has, see `whetsim.coding.encode_network`; graded by
        default, which a backend turns into what it needs.
    progress : bool or callable
        As for `whetsim.run`, in populations.

    Returns
    -------
    Quantization

    Raises
    ------
    SampleError
        If samples, labels, width or method are not what they must be.
    UnsupportedError
        If the chip decides with analog values, or its file lacks a number.
    CapacityError
        If the chip has no weights that wide.
    UnknownNameError
        If there is no such chip or population.

    Notes
    -----
    Neuron i of the result fires iff the sum of its whole weights reaches its whole threshold; it
    is written with an exponent k and the bias ``2^(k-1) - threshold``. Populations whose weights
    are whole numbers in range up to a factor decide as before on all samples, not only on these.
    """
    if method not in METHODS:
        raise SampleError(
            f"quantize: no method {method!r}; there are: {', '.join(METHODS)}."
            f"{did_you_mean(method, METHODS)}"
        )
    network = _readable(network, encoding, level)
    integers = to_integers(samples, network.input)
    if not len(integers):
        raise SampleError("quantize: no calibration samples. Give 1,000 or so.")
    chosen = _chosen(network, only)
    loaded = _loaded(chip)
    job = _Job(network, loaded, bits, integers, chosen)
    found = job.run(method, labels, progress)
    if method == "flips":
        plain = job.run("max", labels, False)
        # Flips are those of an ideal chip: what overflows on this one may do worse.
        if plain.flips < found.flips and not _exposed(plain):
            found = replace(plain, method=method)
    if encoding == "bitplane":
        found = replace(found, network=encode_network(found.network, "bitplane"))
    return found


def _loaded(chip: object) -> Chip | None:
    if chip is None or isinstance(chip, Chip):
        return chip
    if isinstance(chip, (str, Path)):
        return load_chip(chip)
    raise SampleError(
        f"quantize: chip is {quote(chip)}; need a Chip, a name, the path of a .toml file, or None."
    )


def _readable(
    network: SpikingNetwork, encoding: Encoding | None, level: int | None
) -> SpikingNetwork:
    if network.input.encoding == "bitplane":
        raise SampleError(
            "quantize: the network's input is bit planes already, and what a plane counts is no "
            "part of a weight. Give the network as mapped, and encoding='bitplane'."
        )
    if encoding == "bitplane":
        encode_network(network, "bitplane", level)
        return network
    return encode_network(network, encoding or "graded", level)


def _chosen(network: SpikingNetwork, only: Iterable[str] | None) -> frozenset[str]:
    names = [p.name for p in network.populations]
    if only is None:
        return frozenset(names)
    if not isinstance(only, Iterable):
        raise SampleError(f"quantize: only is {quote(only)}; need names of populations.")
    asked = [only] if isinstance(only, str) else list(only)
    chosen = frozenset(name for name in asked if isinstance(name, str))
    for name in asked:
        if isinstance(name, str) and name in names:
            continue
        raise UnknownNameError(
            f"quantize: no population named {quote(name)}; there are: {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )
    return chosen


def _exposed(found: Quantization) -> int:
    return sum(p.exposed for p in found.populations)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A population quantized, before its flips are counted."""

    population: Population
    projections: tuple[tuple[Projection, Projection], ...]
    report: PopulationReport


class _Job:
    """One network, one chip and one set of calibration samples."""

    def __init__(
        self,
        network: SpikingNetwork,
        chip: Chip | None,
        bits: int | None,
        integers: NDArray[Any],
        chosen: frozenset[str],
    ) -> None:
        self._network = network
        self._chip = chip
        self._integers = integers
        self._chosen = chosen
        self._before = run(network, integers, record="rasters")
        self._rules = {
            p.name: _rules(network, p.name, chip, bits) if p.name in chosen else LEFT
            for p in network.populations
        }

    def run(self, method: Method, labels: NDArray[Any] | None, progress: Progress) -> Quantization:
        network, after, current = self._network, self._before, True
        reports = []
        with progress_reporter(progress, len(network.populations), "populations") as report:
            for done, population in enumerate(self._network.populations, 1):
                if not current:
                    after = run(network, self._integers, record="rasters")
                fitted = self._fit(network, population, after, method)
                if population.name in self._chosen:
                    network, current = _put(network, fitted), False
                reports.append(fitted.report)
                report(done)
        after = run(network, self._integers, record="rasters")
        flips = flips_between(self._before, after, labels)
        n = self._before.n_samples
        counted = [
            replace(
                r,
                flips=flips.by_population[r.name],
                flip_rate=flips.by_population[r.name] / max(1, r.neurons * n),
            )
            for r in reports
        ]
        return Quantization(
            network,
            None if self._chip is None else self._chip.name,
            max((self._rules[name].bits for name in self._chosen), default=0),
            method,
            n,
            tuple(counted),
            flips.accuracy_before,
            flips.accuracy_after,
        )

    def _fit(
        self, network: SpikingNetwork, population: Population, after: Recording, method: Method
    ) -> _Fitted:
        """Quantize one population, or only measure it if it is to be left as it is."""
        original = self._network
        groups = grouped(original, population)
        exponent = population.exponent.reshape(groups.n_places, groups.n_groups)
        rules = self._rules[population.name]
        which = self._subset(groups)
        real = _sums(groups, self._rows(groups, self._before, which, double=False))
        fired = self._spikes(self._before, population.name, which).reshape(real.shape)
        positive, negative = (
            of_each.reshape(-1, groups.n_groups).max(axis=0)
            for of_each in worst_sums(original, population, original.into(population.name), rules)
        )
        fits, exact = fitting(groups, exponent, rules, (positive, negative))
        left = population.name not in self._chosen
        if left:
            scale = np.ones(groups.n_groups)
            parts = [w for w, _ in groups.parts()]
            solution = Solution(parts[0], tuple(parts[1:]), groups.threshold, scale)
        elif fits.all():
            solution = exact
        elif rules.refusal:
            raise CapacityError(f"quantize: population {population.name!r}: {rules.refusal}")
        elif method == "max":
            solution = by_largest(groups, exponent, rules)
        else:
            rows = self._rows(groups, after, which, _needs_double(original, population.name, rules))
            grid = np.ldexp(1.0, exponent[0].astype(np.int32))
            solution = by_flips(groups, rows, real, fired > 0, rules, (positive, negative), grid)
            solution = solution.choose(exact, fits, groups)
        new, projections = _write(population, groups, solution)
        rows = self._rows(groups, after, which, double=False)
        # Halfway between the sums that count on either side of the threshold.
        below = 0.0 if left else rules.step / 2 - rules.step // 2
        reached = rows.sums(solution.weight, solution.sparse) - _tiled(
            solution.threshold - below, len(real)
        )
        unit = np.ldexp(1.0, -exponent.astype(np.int32))
        saturated = sum(
            int(rules.saturated(w / solution.scale[i]).sum()) for w, i in groups.parts()
        )
        scales = (solution.scale * unit).ravel()
        report = PopulationReport(
            name=population.name,
            neurons=population.size,
            weights=groups.n_weights,
            flips=0,
            flip_rate=0.0,
            margin_before=_mean_margin(real - _tiled(groups.threshold, len(real)), unit),
            margin_after=_mean_margin(reached, unit * solution.scale),
            bits=0 if left else rules.bits,
            kept=not left and bool(fits.all()),
            saturated=0 if left else saturated,
            scale_low=float(scales.min(initial=np.inf)) if scales.size else 0.0,
            scale_high=float(scales.max(initial=0.0)),
            threshold_shift=_mean(
                np.abs((solution.threshold - below) * solution.scale - groups.threshold) * unit
            ),
            exposed=0
            if left
            else n_exposed(original, new, (p for _, p in projections), solution.threshold, rules),
        )
        return _Fitted(new, projections, report)

    def _subset(self, groups: Grouped) -> NDArray[np.int64]:
        n = min(len(self._integers), rows_that_fit(groups))
        return np.unique(np.linspace(0, len(self._integers) - 1, n).astype(np.int64))

    def _rows(
        self, groups: Grouped, recording: Recording, which: NDArray[np.int64], double: bool
    ) -> Rows:
        projections = (*groups.shared, *(p.projection for p in groups.sparse))
        names = {p.source for p in projections}
        spikes = {n: self._spikes(recording, n, which) for n in names}
        return read_rows(groups, spikes, double, len(which), sign_plane(self._network.input))

    def _spikes(self, recording: Recording, name: str, which: NDArray[np.int64]) -> NDArray[Any]:
        """Return what the events of a population carry, on some of the samples."""
        source = self._network.input
        if name == source.name:
            return encode_samples(self._integers[which], source)
        size = self._network.size_of(name)
        packed = recording.packed[name][which]
        return np.unpackbits(packed, axis=1, count=size, bitorder="little")


def _sums(groups: Grouped, rows: Rows) -> NDArray[Any]:
    weight, *sparse = (w for w, _ in groups.parts())
    return rows.sums(weight, tuple(sparse))


def _tiled(by_place: Floats, n_rows: int) -> Floats:
    return np.tile(by_place, (n_rows // len(by_place), 1))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else 0.0


def _mean_margin(distance: NDArray[Any], unit: Floats) -> float:
    """Return the mean of ``|distance|`` over rows, on the real scale."""
    if not distance.size:
        return 0.0
    by_place = np.abs(distance).reshape(-1, *unit.shape).mean(axis=0, dtype=np.float64)
    return float((by_place * unit).mean())


def _rules(network: SpikingNetwork, name: str, chip: Chip | None, bits: int | None) -> Rules:
    """Return what the numbers of a population may be."""
    source = network.input
    reads = any(p.source == source.name for p in network.into(name))
    planes = len(bit_factors(source)) if reads and source.is_graded else 1
    signed = planes > 1 and sign_plane(source) > 0
    try:
        return rules_of(chip, bits, _fan_in(network, name, planes), planes, signed)
    except CapacityError as error:
        raise CapacityError(f"quantize: population {name!r}: {error}") from None


def _fan_in(network: SpikingNetwork, name: str, planes: int = 1) -> int:
    """Return how many synapses the widest neuron has, those of input planes one by one."""
    total = np.zeros(network.size_of(name), dtype=np.int64)
    for projection in network.into(name):
        of_each = planes if projection.source == network.input.name else 1
        total += projection.connectivity.fan_in * of_each
    return int(total.max(initial=0))


def _needs_double(network: SpikingNetwork, name: str, rules: Rules) -> bool:
    """Return whether sums of rounded weights may leave single precision."""
    largest = max(rules.high, -rules.low) * max(1, network.input.largest)
    return bool(largest * max(1, _fan_in(network, name)) >= 2**SINGLE_BITS)


def _write(
    population: Population, groups: Grouped, solution: Solution
) -> tuple[Population, tuple[tuple[Projection, Projection], ...]]:
    threshold = np.rint(solution.threshold).astype(np.int64).ravel()
    largest = int(np.abs(threshold).max(initial=1))
    exponent = 1 + (largest - 1).bit_length() if largest > 1 else 1
    bias = 2 ** (exponent - 1) - threshold
    new = replace(population, bias=bias, exponent=np.full(population.size, exponent))
    return new, tuple(written(groups, solution.weight, solution.sparse))


def _put(network: SpikingNetwork, fitted: _Fitted) -> SpikingNetwork:
    """Return the network with one population replaced, and the projections into it."""
    changed: Mapping[int, Projection] = {id(old): new for old, new in fitted.projections}
    return replace(
        network,
        populations=tuple(
            fitted.population if p.name == fitted.population.name else p
            for p in network.populations
        ),
        projections=tuple(changed.get(id(p), p) for p in network.projections),
        graded_fingerprint="",
    )
