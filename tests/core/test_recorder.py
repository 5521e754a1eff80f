"""What a run keeps: figures that grow in place, many of them in a temporary file."""

from __future__ import annotations

import errno
import mmap
import pickle
import tempfile
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

import whetsim.rows as rows_module
from whetsim.comparison import compare
from whetsim.mapping import map_to_spikes
from whetsim.model_comparison import compare_with_model
from whetsim.network import Encoding, SpikingNetwork
from whetsim.recording import Recorder, Recording
from whetsim.registry import get_backend
from whetsim.rows import IN_MEMORY
from whetsim.runner import run
from whetsim.testing.networks import conv_model, dense_model, random_samples


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    return map_to_spikes(dense_model(np.random.default_rng(0)))


def block_of(network: SpikingNetwork, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return input values and rasters of `n` samples, spikes drawn at random."""
    rng = np.random.default_rng(n)
    values = (
        random_samples(rng, network.input.samples, n)
        .reshape(n, network.input.size)
        .astype(np.int32)
    )
    return values, {p.name: rng.random((n, p.size)) < 0.3 for p in network.populations}


def arrays_of(recording: Recording) -> dict[str, np.ndarray]:
    """Return every array of a recording by a name of its own."""
    kinds = ("spike_counts", "synops", "digests", "packed")
    found = {f"{kind} {n}": a for kind in kinds for n, a in getattr(recording, kind).items()}
    return found if recording.scores is None else found | {"scores": recording.scores}


def finished(recorder: Recorder) -> Recording:
    return recorder.finish(
        backend="none",
        schedule="pipelined",
        versions={},
        samples=None,
        samples_digest="",
        input_rounding=0.0,
        timing=None,
    )


@pytest.mark.parametrize("expected", [0, 5, 40, 1000])
def test_what_was_expected_changes_nothing(network: SpikingNetwork, expected: int) -> None:
    whole, parts = Recorder(network, "rasters"), Recorder(network, "rasters", expected)
    values, rasters = block_of(network, 40)
    whole.add(values, rasters)
    for start in (0, 1, 4, 11, 31):
        part = slice(start, {0: 1, 1: 4, 4: 11, 11: 31, 31: 40}[start])
        parts.add(values[part], {name: raster[part] for name, raster in rasters.items()})
    one, other = arrays_of(finished(whole)), arrays_of(finished(parts))
    assert one.keys() == other.keys() and one
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert np.array_equal(array, other[name]), name
        assert len(array) == len(other[name]) == 40
        # Nothing is left of the room that was made for more.
        assert other[name].base is None or len(other[name].base) == 40


def test_no_samples_leave_empty_arrays(network: SpikingNetwork) -> None:
    recording = finished(Recorder(network, "rasters"))
    assert recording.n_samples == 0
    names = [p.name for p in network.populations]
    assert list(recording.spike_counts) == [network.input.name, *names]
    assert list(recording.synops) == list(recording.digests) == list(recording.packed) == names
    for name, array in arrays_of(recording).items():
        assert len(array) == 0, name
    assert recording.digests[names[0]].dtype == np.uint64
    assert recording.packed[names[0]].shape == (0, -(-network[names[0]].size // 8))


@pytest.mark.parametrize("make", [dense_model, conv_model])
def test_an_iterator_leaves_what_an_array_leaves(make: object) -> None:
    network = map_to_spikes(make(np.random.default_rng(3)))  # type: ignore[operator]
    samples = random_samples(np.random.default_rng(4), network.input.samples, 57)
    streamed = run(network, (samples[i : i + 10] for i in range(0, 57, 10)), record="rasters")
    one, other = arrays_of(run(network, samples, record="rasters")), arrays_of(streamed)
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert np.array_equal(array, other[name]), name


def recorded(network: SpikingNetwork, record: str, sizes: list[int]) -> dict[str, np.ndarray]:
    """Return what a recorder has of blocks of these sizes."""
    recorder = Recorder(network, record)
    for size in sizes:
        recorder.add(*block_of(network, size))
    return arrays_of(finished(recorder))


def limit_memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    monkeypatch.setattr(rows_module, "IN_MEMORY", n_bytes)


@pytest.mark.parametrize("record", ["counts", "rasters"])
@pytest.mark.parametrize("n_bytes", [1, 500, 3000])
def test_results_in_a_file_are_those_in_memory(
    network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch, record: str, n_bytes: int
) -> None:
    sizes = [3, 40, 0, 1, 17, 30]
    inside = recorded(network, record, sizes)
    limit_memory(monkeypatch, n_bytes)
    outside = recorded(network, record, sizes)
    assert list(inside) == list(outside)
    for name, array in inside.items():
        mapped = outside[name]
        while isinstance(mapped, np.ndarray):
            mapped = mapped.base
        assert isinstance(mapped, mmap.mmap), name
        assert array.dtype == outside[name].dtype and not outside[name].flags.writeable
        assert np.array_equal(array, outside[name]), name
        assert np.array_equal(array, pickle.loads(pickle.dumps(outside[name])))


@pytest.mark.parametrize("written", [0, 1, 2])
def test_results_stay_in_memory_where_no_file_can_be_written(
    network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """A full disk: half of a piece is written, then no more."""
    sizes = [3, 40, 1, 17, 30]
    right = recorded(network, "rasters", sizes)
    limit_memory(monkeypatch, 2000)

    class Full:
        def __init__(self, buffering: int) -> None:
            self.file = tempfile.TemporaryFile(buffering=buffering)  # noqa: SIM115
            self.left = written
            self.seek, self.readinto = self.file.seek, self.file.readinto
            self.close = self.file.close

        def write(self, data: memoryview) -> int:
            if not self.left:
                self.file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
            return self.file.write(data)

    made: list[Full] = []

    def make(buffering: int) -> Full:
        made.append(Full(buffering))
        return made[-1]

    monkeypatch.setattr(rows_module, "tempfile", SimpleNamespace(TemporaryFile=make))
    found = recorded(network, "rasters", sizes)
    assert made and all(full.left == 0 and full.file.closed for full in made)
    for name, array in right.items():
        assert np.array_equal(array, found[name]), name


def test_results_are_read_back_where_files_cannot_be_mapped(
    network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = recorded(network, "rasters", [50, 50])
    limit_memory(monkeypatch, 500)
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np, "memmap", refuse)
    found = recorded(network, "rasters", [50, 50])
    assert asked
    for name, array in right.items():
        assert np.array_equal(array, found[name]), name


def test_results_stay_in_memory_without_a_folder_for_them(
    network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = recorded(network, "counts", [50, 50])
    limit_memory(monkeypatch, 500)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere at all")
    found = recorded(network, "counts", [50, 50])
    for name, array in right.items():
        assert np.array_equal(array, found[name]), name


def test_a_run_in_files_is_compared_as_one_in_memory(
    network: SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = dense_model(np.random.default_rng(0))
    samples = random_samples(np.random.default_rng(6), network.input.samples, 200)
    inside = run(network, samples, record="rasters")
    limit_memory(monkeypatch, 100)
    outside = run(network, samples, record="rasters")
    assert inside.samples is not None and outside.samples is not None
    assert inside.samples.base is None or inside.samples.base.base is None
    assert np.array_equal(inside.samples, outside.samples)
    assert np.array_equal(inside.samples, samples.reshape(200, -1))
    assert compare(inside, outside).n_differences == 0
    one, other = (compare_with_model(model, r) for r in (inside, outside))
    assert one.faults == other.faults and one.ties == other.ties
    for population in network.populations:
        name = population.name
        assert np.array_equal(inside.raster(name), outside.raster(name))


@pytest.mark.parametrize("encoding", ["graded", "bitplane"])
def test_samples_are_kept_as_given_in_every_encoding(
    network: SpikingNetwork, encoding: Encoding
) -> None:
    samples = random_samples(np.random.default_rng(7), network.input.samples, 12)
    recording = run(network, samples, record="rasters", encoding=encoding)
    assert recording.samples is not None
    assert np.array_equal(recording.samples, samples.reshape(12, -1))


@pytest.mark.parametrize("known", [False, True])
def test_memory_is_bounded(network: SpikingNetwork, known: bool) -> None:
    size = 500
    values, rasters = block_of(network, size)
    block = 10 * size * (network.input.size + network.n_neurons)
    peaks = []
    for n in (60_000, 180_000):
        tracemalloc.start()
        recorder = Recorder(network, "counts", n if known else 0)
        for _ in range(n // size):
            recorder.add(values, rasters)
        recording = finished(recorder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        results = sum(array.nbytes for array in arrays_of(recording).values())
        names = len(network.populations)
        assert network.readout is not None
        # Eight bytes each: spikes of the input and each population, synops, digests, class scores.
        assert results == n * 8 * (1 + 3 * names + network.readout.n_classes)
        assert recording.spike_counts["input"].sum() == n // size * np.count_nonzero(values)
        # Mapped results are no memory of Python's.
        assert results > 2 * IN_MEMORY
    assert max(peaks) < IN_MEMORY * 9 / 8 + block < results / 2


def test_totals_of_many_runs_are_those_of_one(network: SpikingNetwork) -> None:
    samples = random_samples(np.random.default_rng(5), network.input.samples, 90)

    def batches() -> Iterator[np.ndarray]:
        yield from (samples[i : i + 20] for i in range(0, 90, 20))

    with get_backend("exact").prepare(network) as simulation:
        whole = simulation.run(batches())
        parts = [simulation.run(batch) for batch in batches()]
    for name, counts in whole.spike_counts.items():
        assert sum(int(part.spike_counts[name].sum()) for part in parts) == counts.sum()
