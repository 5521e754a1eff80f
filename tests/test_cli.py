"""The command line: what it prints, its JSON, its exit status, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.layers import Flatten
from whetsim.model import INPUT
from whetsim.testing.networks import dense_model, random_samples

ROOT = Path(__file__).parents[1]


def whetsim_command(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "whetsim.cli", *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


def as_json(*args: str) -> Any:
    result = whetsim_command(*args, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


@pytest.fixture
def dense(tmp_path: Path) -> tuple[str, str]:
    """Return the files of a small network and of samples for it."""
    model = dense_model(np.random.default_rng(3), high=15)
    whetsim.save(model, tmp_path / "net.safetensors")
    x = random_samples(np.random.default_rng(4), model.input, 30)
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(30, dtype=int))
    return str(tmp_path / "net.safetensors"), str(tmp_path / "data.npz")


def test_inspect_shows_layers_and_populations() -> None:
    result = whetsim_command("inspect", "digits_conv")
    assert result.returncode == 0
    for word in ("conv_1", "max_pool2d", "spikes_2/before_pool_2", "readout: key", "308,800"):
        assert word in result.stdout
    facts = as_json("inspect", "digits_conv")
    assert facts["network"]["synapses"] == 308_800
    assert facts["model"]["input"] == {"shape": [8, 8, 1], "low": 0, "high": 16, "scale": 0.0625}
    assert facts["problem"] is None


def test_inspect_names_what_cannot_be_mapped(tmp_path: Path) -> None:
    from whetsim import layers as L

    layers = (L.Activation(name="act", inputs="input", function="relu"),)
    path = tmp_path / "relu.safetensors"
    whetsim.save(whetsim.Model("relu", whetsim.InputSpec((3,)), layers), path)
    result = whetsim_command("inspect", str(path))
    assert result.returncode == 2
    assert "act" in result.stdout
    assert "layer 'act': relu is not a step" in result.stderr


def test_run_reports_accuracy_and_spikes() -> None:
    facts = as_json("run", "digits_conv", "--limit", "50")
    assert facts["samples"] == 50
    assert facts["accuracy"] >= 0.9
    assert facts["encoding"] == "graded"
    assert set(facts["spikes_per_sample"]) == {
        "input",
        "spikes_1",
        "spikes_2/before_pool_2",
        "spikes_2",
        "spikes_3",
    }
    assert facts["synops_per_sample"] > facts["spikes_per_sample"]["spikes_1"]


def test_run_on_npz_and_other_encodings(dense: tuple[str, str]) -> None:
    net, data = dense
    graded = as_json("run", net, "--data", data)
    planes = as_json("run", net, "--data", data, "--encoding", "bitplane")
    binary = as_json("run", net, "--data", data, "--encoding", "binary", "--level", "3")
    assert graded["accuracy"] == planes["accuracy"]
    assert planes["encoding"] == "bitplane"
    spikes = {k: v for k, v in graded["spikes_per_sample"].items() if k != "input"}
    assert spikes == {k: v for k, v in planes["spikes_per_sample"].items() if k != "input"}
    assert binary["encoding"] == "binary"


@pytest.mark.simulator
def test_grey_images_are_cut_into_the_planes_that_the_network_was_trained_on(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(3)
    plain = dense_model(rng, high=1)
    (n_inputs,) = plain.input.shape
    spec = replace(plain.input, shape=(n_inputs // 2, 1, 2))
    flat = Flatten(name="flat", inputs=(INPUT,))
    first, *others = plain.layers
    layers = (flat, replace(first, inputs=("flat",)), *others)
    model = replace(plain, input=spec, layers=layers, metadata={"input_levels": [64, 128]})
    net, data = str(tmp_path / "net.safetensors"), str(tmp_path / "data.npz")
    whetsim.save(model, net)
    grey = rng.integers(0, 256, (9, n_inputs // 2, 1), dtype=np.uint8)
    np.savez(data, x=grey, y=np.zeros(9, dtype=int))

    def spikes(*options: str) -> Any:
        return as_json("run", net, "--data", data, *options)["spikes_per_sample"]["input"]

    both = (grey >= 64).sum() + (grey >= 128).sum()
    assert spikes() == pytest.approx(both / 9)
    assert spikes("--levels", "10, 250") == pytest.approx(
        ((grey >= 10).sum() + (grey >= 250).sum()) / 9
    )
    for wrong in ("many", "6 4", "1,,2"):
        result = whetsim_command("run", net, "--data", data, "--levels", wrong)
        assert result.returncode == 2
        assert f"levels: need whole numbers with commas between (got '{wrong}'" in result.stderr


def test_compare_agrees_and_exits_with_0(dense: tuple[str, str]) -> None:
    net, data = dense
    facts = as_json("compare", net, "--data", data, "--backends", "exact,nest")
    assert facts["agrees"] is True
    assert facts["agreement"]["matrix"] == [[0, 0], [0, 0]]
    assert facts["model"]["faults"] == []
    text = whetsim_command("compare", net, "--data", data, "--backends", "exact,nest").stdout
    assert "differing spikes" in text
    assert "margins: distance of v" in text


def test_compare_exits_with_1_when_a_backend_is_wrong(
    dense: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.engines import SumsSimulation
    from whetsim import cli, registry
    from whetsim.backends.exact import ExactBackend

    class Off(SumsSimulation):
        def rasters(self, values: Any) -> dict[str, Any]:
            rasters = super().rasters(values)
            rasters["step_1"] = rasters["step_1"].copy()
            rasters["step_1"][2, 3] ^= True
            return rasters

    class OffBackend(ExactBackend):
        name = "off"

        def build(self, network: Any, schedule: Any, **options: Any) -> Any:
            return Off(network, schedule)

    known = registry.get_backend
    monkeypatch.setattr(
        registry, "get_backend", lambda name: OffBackend() if name == "off" else known(name)
    )
    monkeypatch.setattr("whetsim.runner.get_backend", registry.get_backend)
    net, data = dense
    command = ["whetsim", "compare", net, "--data", data, "--backends", "exact,off"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "first difference of off: sample 2, population 'step_1', step 2, neuron 3" in shown


def test_backends_lists_all_five() -> None:
    rows = {row["name"]: row for row in as_json("backends")["backends"]}
    assert {"exact", "brian2", "nest", "pynn.brian2", "pynn.nest"} <= set(rows)
    assert rows["exact"]["installed"] is True
    assert "threads" in rows["nest"]["options"]
    assert "ready" in whetsim_command("backends").stdout


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["run", "nothing"], "nothing: no such file, and no bundled network has this name"),
        (["run", "digits_con"], "Did you mean 'digits_conv'?"),
        (["run", "digits_conv", "--backend", "nset"], "no backend named 'nset'; registered:"),
        (["run", "digits_conv", "--data", "minst"], "no data set named 'minst'"),
        (["run", "digits_conv", "--limit", "-3"], "--limit"),
        (["run", "digits_conv", "--schedule", "fast"], "schedule 'fast' is not supported"),
        (["run", "digits_conv", "--encoding", "rate"], "encoding 'rate' is not supported"),
        (["run", "digits_conv", "-o", "speed=9"], "exact: no option 'speed'; it has: threads"),
        (["run", "digits_conv", "-o", "speed"], "need NAME=VALUE"),
        (["run", "digits_conv", "--data", "x.npz"], "x.npz: no such file"),
        (["compare", "digits_conv", "--backends", "exact,nset"], "no backend named 'nset'"),
        (["compare", "digits_conv", "--backends", ","], "no backend named. Give"),
        (["compare", "digits_conv", "--encoding", "binary"], "binary encoding changes"),
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument"),
    ],
)
def test_bad_use_is_one_line_and_status_2(args: list[str], text: str) -> None:
    result = whetsim_command(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("whetsim: ")
    assert text in result.stderr


def test_damaged_file_and_wrong_samples(dense: tuple[str, str], tmp_path: Path) -> None:
    net, data = dense
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(net).read_bytes()[:-7])
    result = whetsim_command("run", str(damaged), "--data", data)
    assert result.returncode == 2
    assert result.stderr.startswith("whetsim: damaged.safetensors: ")
    result = whetsim_command("run", net, "--data", "digits")
    assert result.returncode == 2
    assert "one sample has shape (8, 8); the network reads (12,)" in result.stderr
    result = whetsim_command("run", net)
    assert result.returncode == 2
    assert "names no data set. Give --data" in result.stderr


def test_missing_simulator_says_how_to_get_it(tmp_path: Path) -> None:
    # A package folder in front of the real one hides what importlib.metadata would find.
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'nest-simulator':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    result = whetsim_command("run", "digits_conv", "--backend", "nest", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == (
        'whetsim: nest: nest-simulator is not installed. Install it: pip install "whetsim[nest]" '
        '(in a clone: pip install -e ".[nest]")\n'
    )


def test_no_progress_bar_in_a_pipe() -> None:
    result = whetsim_command("run", "digits_conv", "--limit", "20")
    assert result.stderr == ""


@pytest.mark.simulator
@pytest.mark.parametrize("backend", ["exact", "nest", "brian2"])
def test_ctrl_c_ends_quickly_with_a_message(backend: str, tmp_path: Path) -> None:
    model = dense_model(np.random.default_rng(3), (64, 128, 64, 6))
    whetsim.save(model, tmp_path / "net.safetensors")
    x = random_samples(np.random.default_rng(4), model.input, 200_000)
    np.savez(tmp_path / "data.npz", x=x.astype(np.uint8), y=np.zeros(len(x), dtype=int))
    command = [sys.executable, "-m", "whetsim.cli", "run", "net.safetensors"]
    command += ["--data", "data.npz", "--backend", backend, "--schedule", "sequential"]
    if backend == "brian2":
        command += ["-o", "target=numpy"]
    if backend == "exact":
        command[-1:] = ["pipelined"]
        np.savez(
            tmp_path / "data.npz",
            x=np.tile(x.astype(np.uint8), (20, 1)),
            y=np.zeros(20 * len(x), dtype=int),
        )
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(4)
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    process.send_signal(signal.SIGINT)
    try:
        _, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.startswith("whetsim: interrupted")
    assert error.count("\n") == 1


def test_inspect_lists_findings(tmp_path: Path) -> None:
    from whetsim.testing.networks import ties_and_biases

    path = str(tmp_path / "ties.safetensors")
    whetsim.save(ties_and_biases(), path)
    result = whetsim_command("inspect", path)
    assert result.returncode == 0
    assert "warning: layer 'first': 1 of its 6 outputs have no weight but zero" in result.stdout
    findings = as_json("inspect", path)["findings"]
    assert {"level", "where", "what", "advice"} == set(findings[0])
    assert any("exactly the threshold" in f["what"] for f in findings)


def test_convert_writes_and_checks(dense: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "copy.safetensors"
    facts = as_json("convert", dense[0], str(out))
    assert facts["bytes"] == out.stat().st_size
    assert facts["differing_spikes"] == facts["differing_predictions"] == 0
    assert out.read_bytes() == Path(dense[0]).read_bytes()


def test_convert_never_writes_over_what_it_reads(dense: tuple[str, str]) -> None:
    before = Path(dense[0]).read_bytes()
    result = whetsim_command("convert", dense[0], dense[0])
    assert result.returncode == 2
    assert "this is the file to read" in result.stderr
    assert Path(dense[0]).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--input-scale", "1/0"], "input-scale: need a number or a fraction (got '1/0'"),
        (["--input-scale", "grey"], "input-scale: need a number or a fraction (got 'grey'"),
        (["--input-range", "255"], "input-range: need two whole numbers"),
        (["--input-scale", "1/255"], "a native file says itself what the network reads"),
    ],
)
def test_bad_input_options(options: list[str], text: str) -> None:
    result = whetsim_command("run", "digits_conv", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("copy.h5", "whetsim writes .safetensors, .onnx and .nir (got '.h5')"),
        ("copy", "whetsim writes .safetensors, .onnx and .nir (got '')"),
        ("no/folder.safetensors", "cannot be written"),
        ("folder.safetensors", "cannot be written"),
    ],
)
def test_convert_refuses_what_it_cannot_write(
    dense: tuple[str, str], out: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.iterdir())
    result = whetsim_command("convert", dense[0], str(tmp_path / out))
    assert result.returncode == 2
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_convert_writes_nothing_that_cannot_be_checked(tmp_path: Path) -> None:
    from whetsim import layers as L

    layers = (L.Activation(name="act", inputs="input", function="relu"),)
    whetsim.save(whetsim.Model("relu", whetsim.InputSpec((3,)), layers), tmp_path / "a.safetensors")
    out = tmp_path / "b.safetensors"
    result = whetsim_command("convert", str(tmp_path / "a.safetensors"), str(out))
    assert result.returncode == 2
    assert "relu is not a step" in result.stderr
    assert not out.exists()
