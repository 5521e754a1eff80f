"""The commands about chips: what they print, their JSON, exit statuses, and how they fail."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whetsim
from whetsim import cli
from whetsim.backends.brian2 import Brian2Backend
from whetsim.backends.nest import NestBackend
from whetsim.errors import BackendNotInstalledError
from whetsim.testing.networks import dense_model, random_samples

CHIPS = {
    *("akida", "arm", "brainscales2", "cpu", "eyeriss", "gpu", "horowitz45", "loihi", "loihi2"),
    *("odin", "speck", "spinnaker", "spinnaker2", "tpu_v1", "truenorth"),
}
REFERENCES = {"arm", "cpu", "eyeriss", "gpu", "horowitz45", "tpu_v1"}
NO_ENERGY = {"akida", "brainscales2", "loihi2"}


class Ended(NamedTuple):
    """How a command ended: its exit status and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process."""

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["whetsim", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def no_simulators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Brian2 and NEST be missing."""

    def missing(self: Any) -> Any:
        raise BackendNotInstalledError(f"{self.name}: is not installed. Install it.")

    for engine in (Brian2Backend, NestBackend):
        monkeypatch.setattr(engine, "versions", missing)


class Files(NamedTuple):
    """Files of a small network that reads 0 and 1, and of samples for it."""

    net: str
    data: str
    folder: Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    model = dense_model(np.random.default_rng(3), n_classes=3)
    whetsim.save(model, tmp_path / "net.safetensors")
    x = random_samples(np.random.default_rng(4), model.input, 40)
    y = whetsim.run(whetsim.map_to_spikes(model), x).predictions
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "none.npz", x=x[:0], y=y[:0])
    np.savez(tmp_path / "one.npz", x=x[:1], y=y[:1])
    return Files(str(tmp_path / "net.safetensors"), str(tmp_path / "data.npz"), tmp_path)


def parsed(ended: Ended) -> Any:
    """Return the JSON that a command printed, and nothing else with it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert ended.err == ""
    return json.loads(ended.out, parse_constant=refuse)


def test_chips_lists_all_with_sources(command: Command) -> None:
    ended = command("chips")
    assert ended.status == 0
    for name in CHIPS:
        assert name in ended.out
    told = parsed(command("chips", "--json"))["chips"]
    assert {chip["name"] for chip in told} == CHIPS
    assert {c["name"] for c in told if c["energy_refused"]} == NO_ENERGY
    for chip in told:
        assert set(chip) == {
            *("name", "title", "status", "about", "quantities"),
            *("energy_sets", "energy_refused", "sources"),
        }
        assert all(q["source"] in chip["sources"] for q in chip["quantities"].values())


def test_chips_shows_one_chip(command: Command) -> None:
    ended = command("chips", "truenorth")
    assert ended.status == 0
    for text in ("limits.neurons_per_core", "256", "evidence: P read in the primary source"):
        assert text in ended.out
    told = parsed(command("chips", "truenorth", "--json"))
    assert told["quantities"]["limits.neurons_per_core"]["value"] == 256


def test_fit_says_how_tightly_and_why_not(command: Command, files: Files) -> None:
    ended = command("fit", files.net)
    assert ended.status == 0
    assert "fullest core" in ended.out
    told = parsed(command("fit", files.net, "--json"))
    assert {chip["chip"] for chip in told["chips"]} == CHIPS - REFERENCES
    loihi = next(chip for chip in told["chips"] if chip["chip"] == "loihi")
    assert (loihi["fits"], loihi["n_chips"]) == (True, 1)
    assert all(used <= most for _, used, most in loihi["tightest"])


def test_fit_exits_with_1_if_it_does_not_fit_a_chip_that_was_named(command: Command) -> None:
    assert command("fit", "digits_conv").status == 0
    assert command("fit", "digits_conv", "--chips", "loihi").status == 0
    ended = command("fit", "digits_conv", "--chips", "loihi,odin", "--json")
    assert ended.status == 1
    odin = parsed(ended)["chips"][1]
    assert odin["fits"] is False
    assert "fan_in: needs 512; there are 256" in odin["reason"]


def test_energy_of_chips_and_processors(command: Command, files: Files) -> None:
    args = ("energy", files.net, "--data", files.data, "--chips", "loihi,horowitz45,akida")
    ended = command(*args, "--sources")
    assert ended.status == 1, "akida was named and has no energies"
    for text in ("counts emulated on loihi", "not included", "energy.table2.static_mw_per_chip"):
        assert text in ended.out
    told = parsed(command(*args, "--json"))
    loihi, horowitz = told["estimates"]
    assert loihi["labels"] == {"counts": "emulated", "energies": "estimated"}
    assert loihi["total_pj"]["low"] <= loihi["total_pj"]["typical"] <= loihi["total_pj"]["high"]
    assert horowitz["network"] == "dense"
    assert list(told["refused"]) == ["akida"]


def test_energy_of_all_chips_names_those_without(command: Command, files: Files) -> None:
    ended = command("energy", files.net, "--data", files.data, "--json")
    assert ended.status == 0
    told = parsed(ended)
    assert set(told["refused"]) >= NO_ENERGY
    assert {e["chip"] for e in told["estimates"]} | set(told["refused"]) == CHIPS


def test_energy_with_another_set_and_step(command: Command, files: Files) -> None:
    args = ("energy", files.net, "--data", files.data, "--json")
    told = parsed(command(*args, "--set", "table2", "--step-us", "100"))
    (loihi,) = told["estimates"]
    assert (loihi["chip"], loihi["energy_set"], told["refused"]) == ("loihi", "table2", {})
    assert loihi["throughput_hz"]["typical"] == pytest.approx(10_000)


def test_sweep(command: Command, files: Files) -> None:
    args = ("sweep", files.net, "--data", files.data)
    told = parsed(command(*args, "--bits", "2,4", "--json"))
    assert [w["bits"] for w in told["widths"]] == [2, 4]
    assert told["widths"][1]["flips"] == 0, "its weights are whole numbers from -4 to 4 already"
    assert set(told["safe_bits"]) == {"step_0", "step_1", "step_2"}
    assert (told["accuracy"], told["n_samples"]) == (1.0, 40)
    ended = command(*args, "--bits", "1..3", "--chip", "loihi", "--method", "max")
    assert ended.status == 0
    assert "smallest safe width" in ended.out


def test_run_on_a_chip_quantizes_first(command: Command, files: Files) -> None:
    args = ("run", files.net, "--data", files.data, "--backend", "loihi")
    told = parsed(command(*args, "--json"))
    assert told["backend"] == "loihi"
    assert told["accuracy"] == 1.0
    assert told["quantization"]["flips"] == 0
    assert [p["name"] for p in told["quantization"]["populations"]] == [
        "step_0",
        "step_1",
        "step_2",
    ]
    ended = command(*args, "--bits", "2")
    assert ended.status == 0
    assert "weights rounded to 2 bits for loihi" in ended.out


def test_run_on_a_chip_takes_grey_input_as_bit_planes(command: Command) -> None:
    told = parsed(command("run", "digits_conv", "--backend", "loihi", "--limit", "50", "--json"))
    assert told["encoding"] == "bitplane"
    assert told["accuracy"] >= 0.9


@pytest.mark.parametrize(("data", "n"), [("none.npz", 0), ("one.npz", 1)])
def test_one_sample_or_none(command: Command, files: Files, data: str, n: int) -> None:
    path = str(files.folder / data)
    run = command("run", files.net, "--data", path, "--backend", "loihi", "--json")
    energy = command("energy", files.net, "--data", path, "--chips", "loihi", "--json")
    if n:
        assert parsed(run)["samples"] == 1
        assert parsed(energy)["estimates"][0]["n_samples"] == 1
        return
    assert (run.status, energy.status) == (2, 2)
    assert "no calibration samples" in run.err
    assert "energy: no samples to count spikes of" in energy.err


@pytest.mark.usefixtures("no_simulators")
@pytest.mark.parametrize("data", ["data.npz", "one.npz", "none.npz"])
def test_report_without_simulators(command: Command, files: Files, data: str) -> None:
    out = files.folder / "page.html"
    path = str(files.folder / data)
    ended = command("report", files.net, "--data", path, "--out", str(out), "--json")
    assert ended.status == 0
    told = parsed(ended)
    assert told["bytes"] == out.stat().st_size
    assert (told["runs"], set(told["missing"])) == (["exact"], {"brian2", "nest"})
    assert told["agrees"] is True
    assert told["samples"] == {"data.npz": 40, "one.npz": 1, "none.npz": 0}[data]
    assert told["accuracy"] == (None if data == "none.npz" else 1.0)
    assert ("loihi" in told["flips"]) == (data != "none.npz")
    assert set(told["fits"]) == CHIPS - REFERENCES
    assert {p.name for p in files.folder.iterdir()} == {
        *("net.safetensors", "data.npz", "none.npz", "one.npz", "page.html"),
    }
    assert out.read_text("utf-8").endswith("</html>\n")


@pytest.mark.usefixtures("no_simulators")
def test_report_prints_one_line_and_replaces_a_page(command: Command, files: Files) -> None:
    out = files.folder / "page.html"
    out.write_text("old")
    ended = command("report", files.net, "--data", files.data, "-o", str(out))
    assert (ended.status, ended.err) == (0, "")
    told = f"wrote {out}: {out.stat().st_size:,} bytes"
    assert ended.out.replace("\n", "") == told.replace("\n", "")
    assert out.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.usefixtures("no_simulators")
def test_report_that_is_interrupted_leaves_the_old_page(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("whetsim_hardware.report.content.fit", stop)
    out = files.folder / "page.html"
    out.write_text("old")
    ended = command("report", files.net, "--data", files.data, "-o", str(out))
    assert ended.status == 130
    assert ended.err == ("whetsim: interrupted while placing on chips; nothing was written.\n")
    assert out.read_text() == "old"


def test_report_exits_with_1_if_a_simulator_differs(
    command: Command, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whetsim_hardware.report import content

    known = content.run

    def wrong(network: Any, samples: Any, *, backend: str, **options: Any) -> Any:
        found = known(network, samples, backend="exact", **options)
        if backend != "nest":
            return found
        packed = {name: bits.copy() for name, bits in found.packed.items()}
        packed["step_1"][2, 0] ^= 128
        return replace(found, backend="nest", packed=packed)

    monkeypatch.setattr(NestBackend, "versions", lambda self: {})
    monkeypatch.setattr(content, "run", wrong)
    out = files.folder / "page.html"
    ended = command("report", files.net, "--data", files.data, "-o", str(out), "--json")
    assert ended.status == 1
    assert parsed(ended)["agrees"] is False
    page = out.read_text("utf-8")
    assert "First difference of nest: sample 2, population &#x27;step_1&#x27;, step 2" in page


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["chips", "loihii"], "no chip named 'loihii'; there are: akida, "),
        (["chips", "loihii"], "Did you mean 'loihi'?"),
        (["fit", "NET", "--chips", "loihii"], "Did you mean 'loihi'?"),
        (["fit", "NET", "--chips", " , "], "chips: none named. Give --chips loihi"),
        (["fit", "NET", "--chips", "gpu"], "chip 'gpu': its file gives no limits of cores"),
        (["fit", "NET", "--chips", "no.toml"], "no.toml: no such file"),
        (["energy", "NET", "--chips", "loihi,loihii"], "Did you mean 'loihi'?"),
        (["energy", "NET", "--chips", "loihi", "--set", "table"], "Did you mean 'table2'?"),
        (["energy", "NET", "--set", "x"], "set: no energies named 'x'"),
        (["energy", "NET", "--step-us", "0"], "step-us: need a number of microseconds > 0"),
        (["energy", "NET", "--step-us", "nan"], "step-us: need a number of microseconds > 0"),
        (["energy", "NET", "--limit", "0"], "energy: no samples to count spikes of"),
        (["sweep", "NET", "--chip", "loihii"], "Did you mean 'loihi'?"),
        (["sweep", "NET", "--bits", "0"], "bits: need widths of 1 to 16 (got '0'"),
        (["sweep", "NET", "--bits", "17"], "bits: need widths of 1 to 16 (got '17'"),
        (["sweep", "NET", "--bits", "a..b"], "bits: need widths of 1 to 16 (got 'a..b'"),
        (["sweep", "NET", "--bits", ""], "bits: need widths of 1 to 16 (got ''"),
        (["sweep", "NET", "--bits", "8..1"], "Give the smaller one first: 1..8."),
        (["sweep", "NET", "--bits", "12", "--chip", "loihi"], "it has at most 8"),
        (["sweep", "NET", "--method", "mx"], "no method 'mx'; there are: flips, max. Did you mean"),
        (["sweep", "NET", "--limit", "0"], "no calibration samples"),
        (["run", "NET", "--backend", "loihi", "--bits", "99"], "need a whole number in 1..16"),
        (["run", "NET", "--backend", "loihi", "--shards", "2", "--out", "x"], "--shards: loihi"),
        (["report", "NET", "--out", "nowhere/page.html"], "its folder does not exist. Make it"),
        (["report", "NET", "--out", "."], "no file that could be written"),
        (["report", "NET", "--out", "page/"], "no file that could be written"),
        (["report", "NET", "--out", "NET"], "this is a file to read"),
    ],
)
def test_bad_use_is_one_line_and_status_2(
    args: list[str],
    text: str,
    command: Command,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files.folder)
    given = [files.net if arg == "NET" else arg for arg in args]
    data = [] if args[0] in ("chips", "fit") else ["--data", files.data]
    ended = command(*given, *data)
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("whetsim: ")
    assert text in ended.err


def test_data_that_is_missing(command: Command, files: Files) -> None:
    out = files.folder / "page.html"
    for args in (("sweep",), ("energy",), ("report", "--out", str(out))):
        ended = command(args[0], files.net, *args[1:], "--data", "nowhere.npz")
        assert ended.status == 2
        assert ended.err == "whetsim: nowhere.npz: no such file.\n"
    ended = command("report", files.net, "--out", str(out))
    assert "names no data set. Give --data" in ended.err
    assert not out.exists()


def test_a_chip_of_ones_own(command: Command, files: Files) -> None:
    """It is placed and priced by its own file, and runs in exact integers: it has no emulator."""
    from importlib import resources

    bundled = resources.files("whetsim_hardware") / "chips" / "loihi.toml"
    path = files.folder / "mine.toml"
    path.write_text(bundled.read_text("utf-8").replace('name = "loihi"', 'name = "mine"'))
    args = ("energy", files.net, "--data", files.data, "--json", "--chips", str(path))
    (mine,) = parsed(command(*args))["estimates"]
    assert mine["chip"] == "mine"
    assert mine["labels"]["counts"] == "measured in simulation"
    assert math.isfinite(mine["total_pj"]["typical"])
