"""The command `whetsim diary`; nothing here needs Keras."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.test_diary_file import HEADER, entry, write
from tests.test_cli import as_json, whetsim_command


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the diary of a training that ends sharp, cut off while it was written."""
    lines = [entry(1), entry(1.5, 0.25), entry(2, 1.0, 0.9), entry(3, 1.0, 0.875)]
    path = write(tmp_path, HEADER, *lines)
    with path.open("a") as file:
        file.write('{"epoch"')
    return path


def test_the_table_and_the_best_epoch(run: Path) -> None:
    result = whetsim_command("diary", str(run))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("run.jsonl: validation accuracy of 337 samples")
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["1", "0.00", "75.00%", "50.00%", "109.5", "2"],
        ["1.50", "0.25..0.50", "75.00%", "50.00%", "109.5", "2"],
        ["2", "1.00", "75.00%", "90.00%", "109.5", "2"],
        ["3", "1.00", "75.00%", "87.50%", "109.5", "2"],
    ]
    assert "best fully sharp epoch: 2, validation accuracy 90.00%" in lines
    assert lines[-1] == "The last line of the file was cut off and is left out."


def test_scores_of_another_kind_and_of_the_training_data(tmp_path: Path) -> None:
    train = {"as_is": -2.0, "spiking": None}
    header = HEADER | {"score_name": "[/red] minus loss"}
    path = write(tmp_path, header, entry(1, 0.5, -0.125, train=train))
    result = whetsim_command("diary", str(path))
    assert result.returncode == 0, result.stderr
    assert "validation [/red] minus loss of" in result.stdout
    for cell in ("-0.125", " -2 ", " - "):
        assert cell in result.stdout
    assert "best fully sharp epoch: none; no epoch ended with" in result.stdout


def test_json_has_everything(run: Path) -> None:
    facts = as_json("diary", str(run))
    assert facts["layers"] == {"hidden": 128, "output": 100}
    assert facts["best"] == {"epoch": 2.0, "score": 0.9, "logs": {"loss": 0.25, "accuracy": None}}
    assert facts["truncated"] is True
    assert facts["picture"] is None
    written = [json.loads(line) for line in run.read_text().splitlines()[1:-1]]
    assert facts["entries"] == [line | {"train": None} for line in written]


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_the_picture(run: Path, option: str) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'whetsim[plot]'")
    out = run.with_name("picture.png")
    result = whetsim_command("diary", str(run), option, str(out), DISPLAY="")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"picture: {out}" in " ".join(result.stdout.split())
    assert out.read_bytes().startswith(b"\x89PNG")


def test_bad_use_is_one_line_and_status_2(run: Path) -> None:
    (run.parent / "other.txt").write_text("hello\n")
    for args, text in [
        ((str(run.parent / "nothing.jsonl"),), "nothing.jsonl: no such file"),
        ((str(run.parent / "other.txt"),), "other.txt: this is no diary of a training"),
        ((str(run), "-o", "out.gif"), "out.gif: no picture of this kind"),
        ((), "Missing argument"),
    ]:
        result = whetsim_command("diary", *args)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("whetsim: ")
        assert result.stderr.count("\n") == 1
        assert text in result.stderr
