"""Sharded runs: the figures of one piece, after kills, damage and lost workers too."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.engines import SumsSimulation
from whetsim import cli, registry, runner
from whetsim.backends.exact import ExactBackend
from whetsim.errors import FormatError, SampleError, UnsupportedError, WhetsimError
from whetsim.report import facts
from whetsim.shards import cluster as cluster_module
from whetsim.shards import compare_sharded, diff_runs, folder, packing, rerun, run_sharded, work
from whetsim.testing.networks import conv_model, dense_model, random_samples

N = 30
TIMES = ("build_s", "run_s", "read_s", "samples_per_s")
SLOW = """
import os, sys, time
from whetsim import cli
from whetsim.shards import work

run, fsync = work.ShardRunner.run, os.fsync

def slow_run(*args):
    time.sleep(0.02)
    return run(*args)

def slow_fsync(file):
    time.sleep(0.02)
    fsync(file)

work.ShardRunner.run, os.fsync = slow_run, slow_fsync
cli.main()
"""
"""The command with time to be killed in: between shards, and between writing one and naming it."""


def model_and_samples(n: int = N, seed: int = 3) -> tuple[whetsim.Model, Any, Any]:
    model = dense_model(np.random.default_rng(seed), high=15)
    rng = np.random.default_rng(seed + 1)
    return model, random_samples(rng, model.input, n), rng.integers(0, 3, n)


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in TIMES}


def shard_files(path: Path) -> list[Path]:
    return sorted(path.glob("shard-*.npz"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Write a network and samples into a folder, and work there."""
    model, x, y = model_and_samples()
    whetsim.save(model, tmp_path / "net.safetensors")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    return "net.safetensors", "data.npz"


Command = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command here and returns status, output and errors."""

    def run(*args: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["whetsim", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


class Off(SumsSimulation):
    """Wrong on some samples, which it knows by what they hold."""

    def rasters(self, values: Any) -> dict[str, Any]:
        rasters = super().rasters(values)
        wrong = values.sum(axis=1) % 5 == 0
        rasters["step_1"][wrong, 3] ^= True
        return rasters


class OffBackend(ExactBackend):
    name = "off"

    def build(self, network: Any, schedule: Any, **options: Any) -> Any:
        return Off(network, schedule)


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a backend that is wrong on some samples."""
    known = registry.get_backend
    found = lambda name: OffBackend() if name == "off" else known(name)  # noqa: E731
    monkeypatch.setattr(registry, "get_backend", found)
    monkeypatch.setattr(runner, "get_backend", found)


# The same figures


@pytest.mark.parametrize(
    ("n", "shards", "sizes"),
    [
        (10, 3, [4, 3, 3]),
        (3, 8, [1, 1, 1]),
        (0, 4, [0]),
        (7, 1, [7]),
        (6, 6, [1] * 6),
    ],
)
def test_split(n: int, shards: int, sizes: list[int]) -> None:
    parts = packing.split(n, shards)
    assert [p.stop - p.start for p in parts] == sizes
    assert [p.number for p in parts] == list(range(len(parts)))
    assert (parts[0].start, parts[-1].stop) == (0, n)
    assert all(a.stop == b.start for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize("encoding", ["graded", "bitplane", "binary"])
@pytest.mark.parametrize("kind", ["dense", "conv", "no readout"])
def test_a_sharded_run_has_the_figures_of_one_piece(
    kind: str, encoding: Any, tmp_path: Path
) -> None:
    model, x, y = model_and_samples()
    if kind == "conv":
        model = conv_model(np.random.default_rng(1))
        x = random_samples(np.random.default_rng(2), model.input, N)
    if kind == "no readout":
        model = whetsim.Model(model.name, model.input, model.layers)
    whole = whetsim.run(whetsim.map_to_spikes(model), x, encoding=encoding)
    results = set()
    for shards in (1, 3, 7, 1000):
        out = tmp_path / str(shards)
        recording = run_sharded(model, x, y, out=out, shards=shards, encoding=encoding)
        assert len(shard_files(out)) == min(shards, N)
        for figures in ("spike_counts", "synops", "digests"):
            mine, other = getattr(recording, figures), getattr(whole, figures)
            assert list(mine) == list(other)
            assert all(np.array_equal(mine[name], other[name]) for name in other)
        assert whetsim.compare(whole, recording).n_differences == 0
        assert without_times(facts.run_facts(recording, y)) == without_times(
            facts.run_facts(whole, y)
        )
        results.add((out / "result.json").read_bytes())
    assert len(results) == 1


@pytest.mark.parametrize("backends", [("exact",), ("exact", "off"), ("off", "exact")])
def test_a_sharded_comparison_has_the_facts_of_one_piece(
    backends: tuple[str, ...], off: None, tmp_path: Path
) -> None:
    names = list(backends)
    model, x, y = model_and_samples()
    network = whetsim.map_to_spikes(model)
    whole = {name: whetsim.run(network, x, backend=name, record="rasters") for name in names}
    agreement = whetsim.agreement(whole)
    with_model = whetsim.compare_with_model(model, whole[names[0]], x, y)
    expected = (
        facts.agreement_facts(agreement),
        facts.model_comparison_facts(with_model),
        facts.margin_facts(whetsim.margins(network, x)),
    )
    results = set()
    for shards in (1, 3, 7):
        out = tmp_path / str(shards)
        found = compare_sharded(model, x, y, out=out, shards=shards, backends=names)
        assert facts.agreement_facts(found.agreement) == expected[0]
        assert facts.model_comparison_facts(found.model) == expected[1]
        assert facts.margin_facts(found.margins) == expected[2]
        assert str(found.model) == str(with_model)
        assert found.agrees == (backends == ("exact",))
        for name, recording in found.recordings.items():
            assert without_times(facts.run_facts(recording, y)) == without_times(
                facts.run_facts(whole[name], y)
            )
        results.add((out / "result.json").read_bytes())
    assert len(results) == 1
    if "off" in backends:
        assert agreement.matrix[0, 1] > 3
        first = agreement.comparisons[0].first
        assert first is not None and first.sample > N // 7
        assert bool(with_model.faults) == (names[0] == "off")


def test_the_command_prints_what_it_prints_without_shards(
    files: tuple[str, str], command: Command
) -> None:
    net, data = files
    for what in (["run"], ["compare", "--backends", "exact"]):
        args = [what[0], net, "--data", data, *what[1:], "--json"]
        plain, sharded = (
            json.loads(command(*args, *more)[1])
            for more in ([], ["--shards", 4, "--out", f"out-{what[0]}"])
        )
        for told in (plain, sharded):
            for run in told.get("runs", [told]):
                for key in TIMES:
                    run.pop(key)
        assert sharded == plain
    status, out, err = command("compare", net, "--data", data, "--backends", "exact")
    again = command(
        *("compare", net, "--data", data, "--backends", "exact", "--shards", 4),
        *("--out", "out-compare"),
    )
    assert (status, err) == (again[0], again[2]) == (0, "")
    # The first table has times in it, and widths that depend on them.
    assert out.partition("spikes of exact")[2] == again[1].partition("spikes of exact")[2] != ""


def test_a_comparison_that_differs_ends_with_1(
    files: tuple[str, str], command: Command, off: None
) -> None:
    args = ["compare", files[0], "--data", files[1], "--backends", "exact,off"]
    plain = command(*args)
    status, out, _ = command(*args, "--shards", 3, "--out", "out")
    assert status == plain[0] == 1
    assert "first difference of off: sample" in out
    assert json.loads(Path("out/result.json").read_text())["agrees"] is False


def test_no_samples(files: tuple[str, str], command: Command) -> None:
    status, out, _ = command(
        *("run", files[0], "--data", files[1], "--limit", 0, "--shards", 3),
        *("--out", "out", "--json"),
    )
    assert status == 0
    assert json.loads(out)["samples"] == 0
    assert len(shard_files(Path("out"))) == 1


def test_the_result_holds_no_times_dates_or_paths(tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, y, out=tmp_path / "a", shards=3)
    text = (tmp_path / "a" / "result.json").read_text()
    assert not any(word in text for word in ('_s"', str(tmp_path), 'version": {', "numpy"))
    timings = json.loads((tmp_path / "a" / "timings.json").read_text())
    assert [t["samples"] for t in timings["shards"]] == [10, 10, 10]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        ".lock",
        "manifest.json",
        "result.json",
        *(f"shard-0000{i}.npz" for i in range(3)),
        "timings.json",
    ]


def test_the_manifest_says_what_decides_the_result(
    files: tuple[str, str], command: Command
) -> None:
    command("run", files[0], "--data", files[1], "--shards", 3, "--out", "out", "-o", "threads=1")
    told = json.loads(Path("out/manifest.json").read_text())
    network = whetsim.map_to_spikes(whetsim.load(files[0]))
    assert told["network"]["fingerprint"] == network.fingerprint
    assert len(told["network"]["sha256"]) == 64
    assert (told["samples"], told["shards"], told["options"]) == (N, 3, {"threads": 1})
    assert {"whetsim", "numpy", "numba"} <= set(told["versions"])
    assert told["data"]["given"] == files[1]


# Resuming


class Counted:
    """Counts the shards that are computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        run = work.ShardRunner.run

        def counted(runner: Any, shard: Any, *args: Any) -> bytes:
            self.numbers.append(shard.number)
            return run(runner, shard, *args)

        monkeypatch.setattr(work.ShardRunner, "run", counted)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sealed(**arrays: Any) -> bytes:
    """Return an archive with a right checksum, and anything in it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return packing._seal(buffer.getvalue())


def bomb() -> None:
    raise AssertionError("a pickle was opened")


class Hostile:
    def __reduce__(self) -> Any:
        return bomb, ()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda p: p.unlink(),
    "cut off": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "one bit": flip,
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("nothing"),
    "of another shard": lambda p: shutil.copy(p.with_name("shard-00000.npz"), p),
    "pickle": lambda p: p.write_bytes(sealed(about=np.array([Hostile()], dtype=object))),
    "no about": lambda p: p.write_bytes(sealed(x=np.zeros(3))),
    "nonsense": lambda p: p.write_bytes(sealed(about=np.frombuffer(b"[[1]]", np.uint8))),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_done_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, y, out=tmp_path, shards=5)
    result = (tmp_path / "result.json").read_bytes()
    DAMAGE[kind](tmp_path / "shard-00002.npz")
    counted = Counted(monkeypatch)
    run_sharded(model, x, y, out=tmp_path, shards=5)
    assert counted.numbers == [2]
    assert (tmp_path / "result.json").read_bytes() == result
    run_sharded(model, x, y, out=tmp_path, shards=5)
    assert counted.numbers == [2]


def test_shards_of_another_run_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, y, out=tmp_path / "a", shards=5)
    run_sharded(model, x[::-1], y, out=tmp_path / "b", shards=5)
    shutil.copy(tmp_path / "b" / "shard-00001.npz", tmp_path / "a" / "shard-00001.npz")
    counted = Counted(monkeypatch)
    run_sharded(model, x, y, out=tmp_path / "a", shards=5)
    assert counted.numbers == [1]


def test_a_damaged_result_is_mended(tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, y, out=tmp_path, shards=5)
    result = (tmp_path / "result.json").read_bytes()
    (tmp_path / "result.json").write_bytes(result[:-9])
    run_sharded(model, x, y, out=tmp_path, shards=5)
    assert (tmp_path / "result.json").read_bytes() == result


def other_network(manifest: Path) -> None:
    model = dense_model(np.random.default_rng(77), high=15)
    whetsim.save(model, "net.safetensors")


def other_samples(manifest: Path) -> None:
    _, x, y = model_and_samples(seed=8)
    np.savez("data.npz", x=x, y=y)


def other_labels(manifest: Path) -> None:
    _, x, y = model_and_samples()
    np.savez("data.npz", x=x, y=2 - y)


def manifest_with(*place: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        told = json.loads(path.read_text())
        target = told
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        path.write_text(json.dumps(target if not place[:-1] else told))

    return change


@pytest.mark.parametrize(
    ("change", "more", "text"),
    [
        (None, ["--shards", 4], "number of shards (got 4; manifest has 3)"),
        (None, ["--limit", 9], "limit (got 9; manifest has none); number of samples (got 9; man"),
        (None, ["--schedule", "sequential"], "schedule (got 'sequential'; manifest has none)"),
        (None, ["--encoding", "bitplane"], "encoding (got 'bitplane'; manifest has none)"),
        (None, ["-o", "threads=1"], "options (got {'threads': 1}; manifest has {})"),
        (other_network, [], "SHA-256 of the network file (got "),
        (other_samples, [], "digest of the samples (got "),
        (other_labels, [], "digest of the labels (got "),
        (
            manifest_with("versions", "numpy", value="1.0"),
            [],
            f"version of numpy (got '{np.__version__}'; manifest has '1.0')",
        ),
        (
            manifest_with("versions", "nest-simulator", value="9"),
            [],
            "version of nest-simulator (got none; manifest has '9')",
        ),
        (manifest_with("backends", value=["nest"]), [], "backends (got ['exact']; manifest has"),
        (manifest_with("platform", value="VAX"), [], "platform (got "),
        (manifest_with("command", value="compare"), [], "command (got 'run'; manifest has 'comp"),
    ],
)
def test_another_run_is_refused_by_name(
    change: Any, more: list[Any], text: str, files: tuple[str, str], command: Command
) -> None:
    first = ["run", files[0], "--data", files[1], "--out", "out"]
    assert command(*first, "--shards", 3)[0] == 0
    before = {p.name: p.read_bytes() for p in Path("out").iterdir()}
    if change is not None:
        change(Path("out/manifest.json"))
        before["manifest.json"] = Path("out/manifest.json").read_bytes()
    status, out, err = command(*first, *(more if "--shards" in more else ["--shards", 3, *more]))
    assert (status, out) == (2, "")
    assert err.startswith("whetsim: out: the run in this folder is another one; it differs in ")
    assert text in err
    assert err.endswith("or name another folder with --out.\n") and err.count("\n") == 1
    assert {p.name: p.read_bytes() for p in Path("out").iterdir()} == before


def test_the_same_files_elsewhere_are_the_same_run(
    files: tuple[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = ["--shards", 3, "--out", "out"]
    command("run", files[0], "--data", files[1], *rest)
    Path("sub").mkdir()
    for file in files:
        shutil.copy(file, Path("sub") / file)
    counted = Counted(monkeypatch)
    assert command("run", f"sub/{files[0]}", "--data", f"sub/{files[1]}", *rest)[0] == 0
    assert counted.numbers == []


def test_a_slip_before_the_first_shard_binds_nothing(
    files: tuple[str, str], command: Command
) -> None:
    first = ["run", files[0], "--data", files[1], "--out", "out", "--shards", 3]
    status, _, err = command(*first, "--encoding", "rate")
    assert status == 2 and "encoding 'rate' is not supported" in err
    assert command(*first)[0] == 0


# What may go wrong


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": "other"}', b"\xff\xfe", b"[" * 100_000, b'{"a": 1}' * 2**20],
    ids=["empty", "cut", "list", "foreign", "bytes", "deep", "large"],
)
def test_a_damaged_or_foreign_manifest_is_refused(
    content: bytes, files: tuple[str, str], command: Command
) -> None:
    first = ["run", files[0], "--data", files[1], "--out", "out", "--shards", 3]
    Path("out").mkdir()
    Path("out/manifest.json").write_bytes(content)
    for args in (first, ["rerun", "out"], ["diff", "out", "out"]):
        status, _, err = command(*args)
        assert status == 2
        assert "manifest.json: is no manifest of a sharded run, or a damaged one" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("version",), 2),
        (("shards",), 0),
        (("shards",), "3"),
        (("samples",), -1),
        (("samples",), True),
        (("command",), "rm"),
        (("backends",), []),
        (("backends",), ["exact", "nest"]),
        (("backends",), [1]),
        (("network",), None),
        (("network", "given"), ["x"]),
        (("data", "limit"), "9"),
        (("data", "split"), 1),
        (("reading", "input_range"), [1]),
        (("reading", "input_scale"), "1"),
        (("reading", "assume_sharp"), 0),
        (("options",), []),
        (("versions",), []),
        (("schedule",), 3),
        (("level",), "3"),
    ],
)
def test_a_manifest_with_wrong_entries_is_refused(
    place: tuple[str, ...], value: Any, files: tuple[str, str], command: Command
) -> None:
    first = ["run", files[0], "--data", files[1], "--out", "out", "--shards", 3]
    command(*first)
    manifest_with(*place, value=value)(Path("out/manifest.json"))
    for args in (first, ["rerun", "out"], ["diff", "out", "out"]):
        status, _, err = command(*args)
        assert status == 2
        assert err.startswith("whetsim: out/manifest.json: ") and err.count("\n") == 1


def test_bad_use(files: tuple[str, str], command: Command) -> None:
    Path("file").write_text("x")
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("x")
    first = ["run", files[0], "--data", files[1]]
    for more, text in (
        (["--shards", 0, "--out", "out"], "--shards"),
        (["--shards", "many", "--out", "out"], "--shards"),
        (["--shards", 3], "--shards needs --out"),
        (["--out", "out"], "--out needs --shards"),
        (["--scheduler", "local"], "--scheduler hands out shards"),
        (["--shards", 3, "--out", "file"], "file: is a file. Name a folder with --out."),
        (["--shards", 3, "--out", "file/sub"], "file/sub: the folder cannot be made (Not a dir"),
        (["--shards", 3, "--out", "full"], "full: holds files that are not of a sharded run ('th"),
    ):
        status, out, err = command(*first, *more)
        assert (status, out) == (2, "")
        assert err.startswith("whetsim: ") and err.count("\n") == 1
        assert text in err
    assert not Path("out").exists()
    assert [p.name for p in Path("full").iterdir()] == ["thesis.txt"]


def test_bad_use_of_the_functions(tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    for shards in (0, -1, 2.0, True):
        with pytest.raises(SampleError, match="shards: need a whole number, 1 or more"):
            run_sharded(model, x, y, out=tmp_path, shards=shards)  # type: ignore[arg-type]
    with pytest.raises(SampleError, match=r"labels: int64 of shape \(29,\)"):
        run_sharded(model, x, y[1:], out=tmp_path, shards=3)
    with pytest.raises(SampleError, match="samples: one sample has shape"):
        run_sharded(model, x[:, :5], y, out=tmp_path, shards=3)
    with pytest.raises(UnsupportedError, match="binary encoding changes"):
        compare_sharded(model, x, y, out=tmp_path, shards=3, backends=["exact"], encoding="binary")
    with pytest.raises(UnsupportedError, match="no backend named"):
        compare_sharded(model, x, y, out=tmp_path, shards=3, backends=[])
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(files: tuple[str, str], command: Command) -> None:
    with folder.RunFolder("out"):
        status, _, err = command(
            *("run", files[0], "--data", files[1], "--shards", 3, "--out", "out")
        )
    assert status == 2
    assert err.startswith("whetsim: out: another process works in this folder.")
    assert err.count("\n") == 1
    args = ("run", files[0], "--data", files[1], "--shards", 3, "--out", "out")
    assert command(*args)[0] == 0


def test_a_full_disk_loses_nothing(
    files: tuple[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("run", files[0], "--data", files[1], "--shards", 6, "--out", "out")
    real, calls = os.fsync, itertools.count()

    def full(file: int) -> None:
        if next(calls) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        status, _, err = command(*args)
    assert status == 2
    assert "cannot be written (No space left on device). What is finished is kept" in err
    assert err.count("\n") == 1
    # Two calls a file: the manifest and two shards were written before.
    assert len(shard_files(Path("out"))) == 2
    assert not list(Path("out").glob(".*.part"))
    counted = Counted(monkeypatch)
    assert command(*args)[0] == 0
    assert counted.numbers == [2, 3, 4, 5]


def test_a_limit_on_file_sizes_is_one_line(files: tuple[str, str]) -> None:
    resource = pytest.importorskip("resource")
    args = ["run", files[0], "--data", files[1], "--shards", "1", "--out", "out"]
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-m", "whetsim.cli", *args],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small,
        env={**os.environ, "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", "/dev/null")},
    )
    assert done.returncode == 2
    assert "shard-00000.npz: cannot be written (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1


# Killed and interrupted


def wait_for_shards(path: Path, n: int, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 60
    while len(shard_files(path)) < n and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)


def test_killed_at_random_moments_the_result_is_the_same_to_the_byte(
    files: tuple[str, str], command: Command
) -> None:
    args = ["compare", files[0], "--data", files[1], "--backends", "exact", "--shards", "24"]
    assert command(*args, "--out", "whole")[0] == 0
    rng = random.Random(7)
    # Ever more shards are there when it is killed, in the middle of another one.
    for target in sorted(rng.sample(range(1, 22), 5)):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *args, "--out", "killed"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for_shards(Path("killed"), target, process)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        _, error = process.communicate()
        assert process.returncode == -signal.SIGKILL, error
        assert not Path("killed/result.json").exists()
    assert command(*args, "--out", "killed")[0] == 0
    for name in ("result.json", "manifest.json"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()
    # What was being written when it was killed is written over.
    assert {p.name for p in Path("killed").iterdir()} == {p.name for p in Path("whole").iterdir()}


def test_ctrl_c_says_how_far_it_is_and_the_same_command_resumes(
    files: tuple[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["run", files[0], "--data", files[1], "--shards", "25", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_shards(Path("out"), 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    there = len(shard_files(Path("out")))
    assert (process.returncode, out) == (130, "")
    assert 3 <= there < 25
    # The last one may have been written but not yet told.
    assert err in [
        f"whetsim: interrupted: {n} of 25 shards are done; they are in out; the same command "
        "resumes.\n"
        for n in (there - 1, there)
    ]
    counted = Counted(monkeypatch)
    assert command(*args)[0] == 0
    assert counted.numbers == list(range(there, 25))


# Again, and side by side


def test_rerun(files: tuple[str, str], command: Command) -> None:
    for what in (["run", "-o", "threads=1"], ["compare", "--backends", "exact"]):
        out = f"out-{what[0]}"
        args = [what[0], files[0], "--data", files[1], "--limit", 20, *what[1:]]
        command(*args, "--shards", 3, "--out", out)
        assert command("rerun", out) == (0, "result.json: the same byte for byte\n", "")
        assert command("rerun", f"{out}/manifest.json", "--out", f"again-{out}")[0] == 0
        assert Path(f"again-{out}/result.json").exists()
        told = json.loads(command("rerun", out, "--json")[1])
        assert told == {"same_result": True, "settings": [], "difference": None}


def test_rerun_with_other_versions_says_so(files: tuple[str, str], command: Command) -> None:
    command("run", files[0], "--data", files[1], "--shards", 3, "--out", "out")
    manifest_with("versions", "numpy", value="1.0")(Path("out/manifest.json"))
    status, out, _ = command("rerun", "out")
    assert status == 0
    assert out.startswith(f"version of numpy: '{np.__version__}' now, '1.0' then\n")


def test_rerun_finds_another_result(files: tuple[str, str], command: Command) -> None:
    command("run", files[0], "--data", files[1], "--shards", 3, "--out", "out")
    path = Path("out/result.json")
    path.write_text(path.read_text().replace('"tied_predictions"', '"tied"'))
    status, out, _ = command("rerun", "out")
    assert (status, out) == (1, "result.json: differs\n")
    for file in shard_files(Path("out")):
        file.unlink()
    assert command("rerun", "out")[:2] == (1, "result.json: differs\n")


def test_rerun_needs_the_same_network_and_data(files: tuple[str, str], command: Command) -> None:
    command("run", files[0], "--data", files[1], "--shards", 3, "--out", "out")
    for change in (other_network, other_samples, other_labels):
        kept = {file: Path(file).read_bytes() for file in files}
        change(Path())
        status, _, err = command("rerun", "out")
        assert status == 2
        assert "out: this is not what ran; it differs in " in err and err.count("\n") == 1
        for file, data in kept.items():
            Path(file).write_bytes(data)
    Path("moved").mkdir()
    for file in files:
        os.rename(file, f"moved/{file}")
    assert "net.safetensors: no such file" in command("rerun", "out")[2]
    moved = ["--network", f"moved/{files[0]}", "--data", f"moved/{files[1]}"]
    assert command("rerun", "out", *moved)[0] == 0
    status, _, err = command("rerun", "out", *moved, "--out", "out")
    assert status == 2 and "is the folder of the run itself" in err


def test_rerun_and_diff_need_a_finished_run(files: tuple[str, str], command: Command) -> None:
    args = ["run", files[0], "--data", files[1], "--shards", 3, "--out", "out"]
    command(*args)
    command("run", files[0], "--data", files[1], "--shards", 3, "--out", "good")
    Path("out/result.json").unlink()
    for again in (["rerun", "out"], ["diff", "good", "out"]):
        status, _, err = command(*again)
        assert status == 2 and "out/result.json: is missing" in err
    flip(Path("out/shard-00001.npz"))
    assert "out: shard 1 is missing or damaged" in command("diff", "out", "good")[2]
    Path("out/shard-00001.npz").unlink()
    assert "out: is not finished, 2 of 3 shards are there" in command("diff", "good", "out")[2]
    for missing in ("nowhere", "net.safetensors"):
        status, _, err = command("diff", "good", missing)
        assert status == 2 and err.count("\n") == 1
    Path("good/result.json").write_text("[")
    assert "result.json: is damaged" in command("diff", "good", "good")[2]


def test_rerun_of_a_run_from_python(tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, out=tmp_path / "a", shards=3)
    assert rerun(tmp_path / "a", model, x, y).same_result
    with pytest.raises(WhetsimError, match="is not what ran; it differs in number of samples"):
        rerun(tmp_path / "a", model, x[1:])


def test_diff_of_equal_runs(files: tuple[str, str], command: Command) -> None:
    args = ["run", files[0], "--data", files[1]]
    for name, shards in (("a", 3), ("b", 3), ("c", 7)):
        command(*args, "--shards", shards, "--out", name)
    assert command("diff", "a", "b") == (0, "result.json: the same byte for byte\n", "")
    status, out, _ = command("diff", "a", "c")
    assert status == 0
    assert out == "number of shards: 3 and 7\nresult.json: the same byte for byte\n"
    told = json.loads(command("diff", "a", "c", "--json")[1])
    assert told["agrees"] is told["results_agree"] is True
    assert told["backends"][0]["first"] is None


def test_diff_names_what_differs(
    files: tuple[str, str], command: Command, off: None, tmp_path: Path
) -> None:
    args = ["run", files[0], "--data", files[1], "--shards", 3]
    command(*args, "--out", "a")
    command(*args, "--out", "off", "--backend", "off")
    status, out, _ = command("diff", "a", "off")
    assert status == 1
    assert "backends: ['exact'] and ['off']\n" in out
    model, x, _ = model_and_samples()
    network = whetsim.map_to_spikes(model)
    right, wrong = (whetsim.run(network, x, backend=name) for name in ("exact", "off"))
    differing = {n: right.digests[n] != wrong.digests[n] for n in right.digests}
    first = min(int(d.argmax()) for d in differing.values() if d.any())
    told = diff_runs("a", "off").backends
    assert told is not None
    assert told[0].samples == {n: int(d.sum()) for n, d in differing.items()}
    assert told[0].n_predictions == (right.predictions != wrong.predictions).sum()
    assert f"first differing sample: {first}, population 'step_1'" in out
    # The same spikes, made otherwise.
    command(*args, "--out", "planes", "--encoding", "bitplane")
    assert command("diff", "a", "planes")[0] == 1
    assert command("diff", "a", "planes", "--results-only")[0] == 0
    assert command("diff", "a", "off", "--results-only")[0] == 1
    # Other samples are not compared.
    command(*args, "--out", "few", "--limit", 20)
    status, out, _ = command("diff", "a", "few")
    assert status == 1
    assert "number of samples: 30 and 20" in out
    assert "spikes: not compared, because the runs are on different samples" in out
    other_network(tmp_path)
    command(*args, "--out", "net")
    status, out, _ = command("diff", "a", "net")
    assert status == 1
    assert "fingerprint of the network: " in out and "samples have other spikes" in out


# On a cluster


def on_workers(client: Any, code: str) -> None:
    client.run(exec, f"import os, time\nfrom whetsim.shards import work\n{code}", {})


SLOW_WORKERS = """
run = work.ShardRunner.run
def slow(*args):
    time.sleep(0.1)
    return run(*args)
work.ShardRunner.run = slow
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two workers; a shard that is lost once with its worker is given back at once."""
    distributed = pytest.importorskip(
        "distributed", reason='needs Dask: pip install "whetsim[dask]"'
    )
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as started,
    ):
        yield started


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    import distributed

    with distributed.Client(  # type: ignore[no-untyped-call]
        cluster.scheduler_address, set_as_default=False
    ) as found:
        found.wait_for_workers(2, timeout=30)
        yield found
        found.wait_for_workers(2, timeout=30)
        on_workers(found, "import importlib; importlib.reload(work)")


def test_workers_give_the_same_result(client: Any, tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    address = client.scheduler.address
    told: list[tuple[int, int]] = []
    note = lambda done, total: told.append((done, total))  # noqa: E731
    run_sharded(model, x, y, out=tmp_path / "here", shards=12)
    run_sharded(*(model, x, y), out=tmp_path / "there", shards=12, scheduler=address, progress=note)
    compare_sharded(model, x, y, out=tmp_path / "c1", shards=5, backends=["exact"])
    compare_sharded(
        *(model, x, y), out=tmp_path / "c2", shards=5, backends=["exact"], scheduler=address
    )
    for a, b in (("here", "there"), ("c1", "c2")):
        results = [(tmp_path / name / "result.json").read_bytes() for name in (a, b)]
        assert results[0] == results[1]
    assert told == [(done, 12) for done in range(13)]


def test_a_lost_worker_is_no_loss(client: Any, tmp_path: Path) -> None:
    model, x, y = model_and_samples()
    run_sharded(model, x, y, out=tmp_path / "here", shards=20)
    on_workers(client, SLOW_WORKERS)
    pids = list(client.run(os.getpid).values())

    def kill(done: int, total: int) -> None:
        if done in (4, 9):
            os.kill(pids.pop(), signal.SIGKILL)

    run_sharded(
        *(model, x, y),
        out=tmp_path / "there",
        shards=20,
        scheduler=client.scheduler.address,
        progress=kill,
    )
    assert not pids
    results = [(tmp_path / name / "result.json").read_bytes() for name in ("here", "there")]
    assert results[0] == results[1]


def test_workers_that_die_again_and_again_are_one_line(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = model_and_samples()
    on_workers(client, "work.ShardRunner.run = lambda *args: os._exit(1)")
    monkeypatch.setattr(cluster_module, "TRIES", 0)
    with pytest.raises(WhetsimError, match=r"shard \d: failed at the workers \(Attempted to run"):
        run_sharded(model, x, y, out=tmp_path, shards=3, scheduler=client.scheduler.address)


def test_a_lost_scheduler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason='needs Dask: "whetsim[dask]"')
    monkeypatch.setattr(cluster_module, "CONNECT_S", 1.0)
    model, x, y = model_and_samples()
    with distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=":0", silence_logs=50
    ) as started:

        def stop(done: int, total: int) -> None:
            if done == 3:
                started.close(timeout=1)

        with pytest.raises(WhetsimError, match=r"the connection was lost .* same command resumes"):
            run_sharded(
                *(model, x, y),
                out=tmp_path,
                shards=30,
                scheduler=started.scheduler_address,
                progress=stop,
            )
    there = len(shard_files(tmp_path))
    assert 3 <= there < 30
    run_sharded(model, x, y, out=tmp_path, shards=30)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "work.environment = lambda names: {'versions': {'numpy': '1.0'}}",
            r"shard \d: was computed with other versions \(got \{'numpy': '1.0'\}; manifest has",
        ),
        (
            "work.map_to_spikes = lambda model: __import__('types').SimpleNamespace(fingerprint=0)",
            r"shard \d, at a worker: the worker's whetsim maps this network to other weights",
        ),
        (
            "work.ShardRunner.run = lambda *args: 1 / 0",
            r"shard \d: failed at the workers \(division by zero\). What is finished is kept",
        ),
    ],
)
def test_a_worker_that_cannot_is_one_line(
    code: str, text: str, client: Any, tmp_path: Path
) -> None:
    model, x, y = model_and_samples()
    on_workers(client, code)
    with pytest.raises(WhetsimError, match=text):
        run_sharded(model, x, y, out=tmp_path, shards=3, scheduler=client.scheduler.address)
    assert not shard_files(tmp_path)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("tcp://127.0.0.1:1", "scheduler tcp://127.0.0.1:1: cannot be reached (Timed out"),
        ("nonsense", "scheduler 'nonsense': is no address (missing port number"),
        ("tcp://127.0.0.1:99999", "is no address (no port 99999)"),
        ("carrier://pigeon:1", "is no address (unknown address scheme 'carrier'"),
    ],
)
def test_an_unreachable_scheduler_is_one_line(
    address: str,
    text: str,
    files: tuple[str, str],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("distributed", reason='needs Dask: pip install "whetsim[dask]"')
    assert cluster_module.CONNECT_S < 8
    monkeypatch.setattr(cluster_module, "CONNECT_S", 1.0)
    args = ["run", files[0], "--data", files[1], "--shards", 3, "--out", "out"]
    begin = time.monotonic()
    status, out, err = command(*args, "--scheduler", address)
    assert time.monotonic() - begin < 5
    assert (status, out) == (2, "")
    assert text in err and err.count("\n") == 1
    assert command(*args)[0] == 0


def test_without_dask_the_install_line_is_told(
    files: tuple[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, _, err = command(
        *("run", files[0], "--data", files[1], "--shards", 3, "--out", "out"),
        *("--scheduler", "local"),
    )
    assert status == 2
    assert 'Install it: pip install "whetsim[dask]"' in err and err.count("\n") == 1
    assert not Path("out").exists()


def test_shards_need_no_dask() -> None:
    code = "import sys, whetsim.shards; print([m for m in ('dask', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_not_a_shard_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match="the shard is cut off or damaged"):
        packing.unpack(b"PK")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.zeros(10**6, np.uint8))
    with pytest.raises(FormatError, match="the shard is compressed"):
        packing.unpack(packing._seal(buffer.getvalue()))
