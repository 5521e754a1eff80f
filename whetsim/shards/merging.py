"""Shards put together: the same figures as if all samples had run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.coding import encode_network
from whetsim.comparison import Agreement, Comparison, Difference
from whetsim.errors import FormatError
from whetsim.margin import Margins
from whetsim.model_comparison import ModelComparison, UnitDifference
from whetsim.network import Encoding, SpikingNetwork
from whetsim.recording import Recording, Timing
from whetsim.shards.packing import KINDS, ShardContent

__all__ = ["ShardedComparison", "merge_comparisons", "merge_recordings", "plain_comparison"]


@dataclass(frozen=True, eq=False)
class ShardedComparison:
    """What `compare_sharded` found.

    Parameters
    ----------
    recordings : mapping
        Backend to its run, without rasters.
    agreement : Agreement
        Each backend with each. First differences are those of the lowest sample.
    model : ModelComparison
        The first backend with the float32 network.
    margins : Margins
    """

    recordings: Mapping[str, Recording]
    agreement: Agreement
    model: ModelComparison
    margins: Margins

    @property
    def agrees(self) -> bool:
        """Whether no spike and no prediction differs, but for what float32 rounding explains."""
        return self.agreement.agrees and not self.model.faults


def merge_recordings(
    network: SpikingNetwork, contents: Sequence[ShardContent], samples_digest: str
) -> tuple[Recording, ...]:
    """Return the run of each backend over all samples, with counts alone.

    Parameters
    ----------
    network : SpikingNetwork
        As mapped, not yet encoded.
    contents : sequence of ShardContent
        All shards, in their order.
    samples_digest : str
        Of all samples.

    Raises
    ------
    FormatError
        If the shards are of another network.
    """

    @cache
    def encoded(encoding: Encoding, level: int | None) -> SpikingNetwork:
        return encode_network(network, encoding, level)

    result = []
    for i, about in enumerate(contents[0].runs):
        ran = encoded(about["encoding"], about["level"])
        names = [p.name for p in ran.populations]
        if about["spike_counts"] != [ran.input.name, *names] or about["digests"] != names:
            raise FormatError("the shards are of another network.")
        joined = {
            kind: dict(zip(about[kind], _rows(contents, i, kind), strict=True)) for kind in KINDS
        }
        scores = None
        if about["has_scores"]:
            scores = np.concatenate([c.arrays[i]["scores"] for c in contents])
        runs = [c.runs[i] for c in contents]
        times = (sum(run[phase] for run in runs) for phase in ("build_s", "run_s", "read_s"))
        result.append(
            Recording(
                network=ran,
                backend=about["backend"],
                schedule=about["schedule"],
                versions=about["versions"],
                n_samples=contents[-1].shard.stop,
                packed={},
                scores=scores,
                samples=None,
                samples_digest=samples_digest,
                input_rounding=max(run["input_rounding"] for run in runs),
                timing=Timing(*times),
                **joined,
            )
        )
    return tuple(result)


def plain_comparison(
    agreement: Agreement, model: ModelComparison, margins: Margins
) -> dict[str, Any]:
    """Return the comparisons of a shard as values that JSON can hold."""
    n, accuracy = model.n_samples, model.accuracy
    return {
        "matrix": agreement.matrix.tolist(),
        "comparisons": [
            {
                "names": list(c.names),
                "differences": dict(c.differences),
                "first": None if c.first is None else asdict(c.first),
                "n_predictions": c.n_predictions,
            }
            for c in agreement.comparisons
        ],
        "model": {
            "n_units": model.n_units,
            "differences": dict(model.differences),
            "ties": [asdict(d) for d in model.ties],
            "faults": [asdict(d) for d in model.faults],
            "n_predictions": model.n_predictions,
            # A count adds up; a share would be rounded.
            "n_right": None if accuracy is None or not n else round(accuracy[0] * n),
        },
        "margins": {
            "smallest": dict(margins.smallest),
            "histogram": {name: h.tolist() for name, h in margins.histogram.items()},
        },
    }


def merge_comparisons(
    recordings: Sequence[Recording], contents: Sequence[ShardContent], labels: NDArray[Any] | None
) -> ShardedComparison:
    """Return the comparisons of all shards as one; numbers of samples are those of the whole run.

    Raises
    ------
    FormatError
        If a shard holds no comparison.
    """
    parts = []
    for content in contents:
        if content.comparison is None:
            raise FormatError("the shards are of a run without comparison.")
        parts.append((content.shard.start, content.comparison))
    names = tuple(r.backend for r in recordings)
    matrix = np.array([part["matrix"] for _, part in parts], dtype=np.int64).sum(axis=0)
    comparisons = tuple(
        _merged_pair([(start, part["comparisons"][i]) for start, part in parts], recordings)
        for i in range(len(names) - 1)
    )
    return ShardedComparison(
        recordings=dict(zip(names, recordings, strict=True)),
        agreement=Agreement(names, matrix, comparisons),
        model=_merged_model([(s, p["model"]) for s, p in parts], recordings[0], labels),
        margins=_merged_margins([p["margins"] for _, p in parts], recordings[0].n_samples),
    )


def _rows(contents: Sequence[ShardContent], i: int, kind: str) -> NDArray[Any]:
    rows: NDArray[Any] = np.concatenate([c.arrays[i][kind] for c in contents], axis=1)
    rows.flags.writeable = False
    return rows


def _merged_pair(
    parts: Sequence[tuple[int, Mapping[str, Any]]], recordings: Sequence[Recording]
) -> Comparison:
    first = next(
        (_difference(part["first"], start) for start, part in parts if part["first"] is not None),
        None,
    )
    a, b = parts[0][1]["names"]
    return Comparison(
        names=(a, b),
        n_samples=recordings[0].n_samples,
        differences=_added([part["differences"] for _, part in parts]),
        counted=True,
        first=first,
        n_predictions=sum(part["n_predictions"] for _, part in parts),
        accuracy=None,
    )


def _difference(value: Mapping[str, Any], start: int) -> Difference:
    found = Difference(**value)
    place, spikes = found.coordinates, found.spikes
    return replace(
        found,
        sample=found.sample + start,
        coordinates=None if place is None else tuple(place),
        spikes=None if spikes is None else (spikes[0], spikes[1]),
    )


def _merged_model(
    parts: Sequence[tuple[int, Mapping[str, Any]]],
    recording: Recording,
    labels: NDArray[Any] | None,
) -> ModelComparison:
    def units(kind: str) -> tuple[UnitDifference, ...]:
        found = ((start, UnitDifference(**value)) for start, p in parts for value in p[kind])
        return tuple(
            replace(d, sample=d.sample + start, coordinates=tuple(d.coordinates))
            for start, d in found
        )

    n = recording.n_samples
    accuracy = None
    right = [part["n_right"] for _, part in parts]
    if labels is not None and recording.scores is not None and None not in right:
        accuracy = (sum(right) / n, recording.accuracy(labels))
    return ModelComparison(
        backend=recording.backend,
        n_samples=n,
        n_units=parts[0][1]["n_units"],
        differences=_added([part["differences"] for _, part in parts]),
        ties=units("ties"),
        faults=units("faults"),
        n_predictions=sum(part["n_predictions"] for _, part in parts),
        accuracy=accuracy,
    )


def _merged_margins(parts: Sequence[Mapping[str, Any]], n_samples: int) -> Margins:
    names = parts[0]["smallest"]
    return Margins(
        n_samples,
        {name: min(part["smallest"][name] for part in parts) for name in names},
        {
            name: np.sum([part["histogram"][name] for part in parts], axis=0, dtype=np.int64)
            for name in names
        },
    )


def _added(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(part[name] for part in parts) for name in parts[0]}
