"""Reading and drawing the diary of a training; nothing here needs Keras."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whetsim.errors import BackendNotInstalledError, FormatError
from whetsim.report import diary_file, tables
from whetsim.report.diary_file import DiaryFile, Scores, read_diary
from whetsim.report.diary_plot import plot_diary
from whetsim.report.facts import diary_facts

LAYERS = {"hidden": 128, "output": 100}
HEADER = {
    "whetsim_diary": 1,
    "layers": list(LAYERS),
    "units": list(LAYERS.values()),
    "score_name": "accuracy",
    "n_samples": 337,
    "margin_quantiles": [0.01, 0.5],
}


def entry(epoch: float, sharpness: float = 0.0, spiking: float | None = 0.5, **more: Any) -> Any:
    return {
        "epoch": epoch,
        "kind": "epoch" if float(epoch).is_integer() else "step",
        "sharpness": {"hidden": min(2 * sharpness, 1.0), "output": sharpness},
        "straight_through": sharpness == 1,
        "logs": {"loss": 0.25, "accuracy": None},
        "validation": {"as_is": 0.75, "spiking": spiking},
        "spikes_per_sample": {"hidden": 60.5, "output": 49},
        "never": {"hidden": 1, "output": 0},
        "always": {"hidden": 0, "output": 2},
        "margins": {"hidden": [0.01, None], "output": [0.02, 0.3]},
        "seconds": epoch,
        **more,
    }


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in content.items() if k != key}


def text_of(*lines: Any, end: str = "\n") -> str:
    return "\n".join(json.dumps(line) for line in lines) + end


def write(folder: Path, *lines: Any, end: str = "\n") -> Path:
    path = folder / "run.jsonl"
    path.write_text(text_of(*lines, end=end))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the diary of a training that ends sharp."""
    train = {"as_is": 0.9, "spiking": 0.85}
    lines = [entry(1), entry(1.5, 0.3), entry(2, 0.7, train=train), entry(3, 1.0, 0.9)]
    return write(tmp_path, HEADER, *lines, entry(4, 1.0, 0.95), entry(5, 1.0, 0.95))


def test_a_diary_is_read(run: Path) -> None:
    diary = read_diary(run)
    assert (diary.name, diary.layers, diary.units) == (
        "run.jsonl",
        ("hidden", "output"),
        (128, 100),
    )
    assert (diary.score_name, diary.n_samples, diary.truncated) == ("accuracy", 337, False)
    assert diary.margin_quantiles == (0.01, 0.5)
    assert [e.epoch for e in diary.entries] == [1, 1.5, 2, 3, 4, 5]
    second = diary.entries[1]
    assert second.kind == "step"
    assert second.sharpness == {"hidden": 0.6, "output": 0.3}
    assert second.validation == Scores(0.75, 0.5)
    assert second.train is None
    assert diary.entries[2].train == Scores(0.9, 0.85)
    assert second.spikes_per_sample == {"hidden": 60.5, "output": 49.0}
    assert (second.never["hidden"], second.always["output"]) == (1, 2)
    assert second.margins["hidden"] == (0.01, None)
    assert second.logs == {"loss": 0.25, "accuracy": None}
    assert not second.is_sharp
    with pytest.raises(TypeError):
        second.never["hidden"] = 0  # type: ignore[index]


def test_the_best_epoch_is_fully_sharp_and_the_first_of_equal_ones(tmp_path: Path) -> None:
    lines = [entry(1, 0.9, 0.99), entry(1.5, 1.0, 0.98), entry(2, 1.0, None), entry(3, 1.0, -0.5)]
    assert read_diary(write(tmp_path, HEADER, *lines[:3])).best is None
    best = read_diary(write(tmp_path, HEADER, *lines, entry(4, 1.0, -0.5))).best
    assert best is not None
    assert best.epoch == 3


def test_lines_are_written_as_they_are_read(run: Path) -> None:
    diary = read_diary(run)
    lines = [diary_file.entry_line(e) for e in diary.entries]
    header = diary_file.header_line(
        list(diary.layers), list(diary.units), "accuracy", 337, diary.margin_quantiles
    )
    assert [json.loads(line) for line in (header, *lines)] == [
        json.loads(line) for line in run.read_text().splitlines()
    ]


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_last_line_that_was_cut_off_is_left_out(run: Path, cut: int) -> None:
    whole = run.read_bytes()
    run.write_bytes(whole[:-cut])
    diary = read_diary(run)
    # Without its line feed alone, the last entry is whole.
    assert (len(diary.entries), diary.truncated) == ((6, False) if cut == 1 else (5, True))


def test_a_diary_may_have_no_entry_yet(tmp_path: Path) -> None:
    assert read_diary(write(tmp_path, HEADER)).entries == ()
    assert read_diary(write(tmp_path, HEADER, end="")).entries == ()


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", r"this is no diary of a training \(line 1: no JSON\)"),
        ("\n", "line 1: no JSON"),
        ("{}", r"line 1: 'whetsim_diary' is missing"),
        ("[1]", r"line 1: no JSON object \(got \[1\]\)"),
        ("\x00\xff", "line 1: no JSON"),
        (NESTED, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"whetsim_diary": ' + "9" * 5000 + "}", "line 1: no JSON"),
        (text_of({**HEADER, "whetsim_diary": 2}), "version 2 .this whetsim reads version 1"),
        (text_of({**HEADER, "whetsim_diary": True}), "'whetsim_diary': got True; need a whole"),
        (text_of({**HEADER, "layers": []}), r"'layers': got \[\]; need a list of 1 to 10,000"),
        (text_of({**HEADER, "layers": ["a", "a"]}), "'layers' has a name twice"),
        (text_of({**HEADER, "layers": ["a", "b\x1b[2J"]}), "'layers': got .*; need a name"),
        (text_of({**HEADER, "layers": ["a"] * 10_001}), "'layers': got .*; need a list"),
        (text_of({**HEADER, "units": [1]}), "'units' has 1 numbers for 2 layers"),
        (text_of({**HEADER, "units": [1, -1]}), "'units': got -1; need a whole number"),
        (text_of({**HEADER, "score_name": 3}), "'score_name': got 3; need a name"),
        (text_of({**HEADER, "margin_quantiles": [2]}), "'margin_quantiles': got 2; need 0 to 1"),
        (text_of(without(HEADER, "n_samples")), "'n_samples' is missing"),
        (text_of({**HEADER, "n_samples": float("nan")}), "line 1: NaN is no number that JSON has"),
    ],
)
def test_what_is_no_diary_is_refused(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(FormatError, match=f"^run.jsonl: .*{text}") as raised:
        read_diary(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "batch"}, "'kind' is 'batch' .need 'epoch' or 'step'"),
        ({"epoch": -1}, "'epoch': got -1; need at least 0"),
        ({"epoch": 1e12}, r"'epoch': got 1e\+12; need at most 1e\+09"),
        ({"epoch": "1"}, "'epoch': got '1'; need a finite number"),
        ({"epoch": 0.5}, "epoch 0.5 stands after 1"),
        ({"straight_through": 1}, "'straight_through' is 1 .need true or false"),
        ({"sharpness": {"hidden": 0}}, "'sharpness' is not about the layers that the first line"),
        ({"sharpness": {"hidden": 0, "output": 1.1}}, "'sharpness': got 1.1; need 0 to 1"),
        ({"sharpness": [0, 1]}, r"'sharpness': got \[0, 1\]; need an object"),
        ({"logs": {"loss": "low"}}, "'logs': got 'low'; need a finite number"),
        ({"logs": {"loss": float("inf")}}, "Infinity is no number that JSON has"),
        ({"logs": {"loss": 10**400}}, "'logs': got 1000.*; need a finite number"),
        ({"logs": {str(i): 0 for i in range(1001)}}, "'logs' has 1,001 numbers"),
        ({"validation": {"as_is": 0.5}}, "'validation': 'spiking' is missing"),
        (
            {"validation": {"as_is": 0.5, "spiking": [NESTED]}},
            "'validation': got .*; need a finite",
        ),
        ({"train": None}, "'train': got None; need an object"),
        ({"spikes_per_sample": {"hidden": 0, "output": 101}}, "'output' has 100 units, but an"),
        ({"spikes_per_sample": {"hidden": -1, "output": 0}}, "'spikes_per_sample': got -1"),
        ({"never": {"hidden": 128, "output": 99}}, "'output' has 100 units, but an entry says 101"),
        ({"never": {"hidden": 1.5, "output": 0}}, "'never': got 1.5; need a whole number"),
        ({"margins": {"hidden": [0.1], "output": [1, 1]}}, "'margins' has not 2 numbers for 'hidd"),
        ({"margins": {"hidden": 0.1, "output": [1, 1]}}, "'margins': got 0.1; need a list"),
        ({"seconds": None}, "'seconds': got None; need a finite number"),
        ({"pad": "x" * 2**20}, "too long .got 1,0.* bytes; need at most 1,048,576"),
    ],
)
def test_a_damaged_entry_is_named_by_its_line(tmp_path: Path, change: Any, text: str) -> None:
    path = write(tmp_path, HEADER, entry(1), {**entry(2), **change}, entry(3))
    with pytest.raises(
        FormatError, match=f"^run.jsonl: line 3: {text}.*Cut the file off"
    ) as raised:
        read_diary(path)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("key", sorted(set(entry(1)) - {"kind", "straight_through"}))
def test_an_entry_with_a_part_missing_is_refused(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, HEADER, without(entry(1), key), end="")
    with pytest.raises(FormatError, match=f"line 2: '{key}' is missing"):
        read_diary(path)


def test_garbage_in_the_middle_is_no_cut_off_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text_of(HEADER, entry(1)) + '{"epo\n' + text_of(entry(2)))
    with pytest.raises(FormatError, match="line 3: no JSON"):
        read_diary(path)


def test_large_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match=r"no such file\. Name a diary"):
        read_diary(tmp_path / "nothing.jsonl")
    with pytest.raises(FormatError, match="is a folder"):
        read_diary(tmp_path)
    monkeypatch.setattr(diary_file, "MAX_BYTES", 1000)
    path = write(tmp_path, HEADER, *map(entry, range(1, 5)))
    with pytest.raises(FormatError, match=r"too large for a diary \(need at most 1,000 bytes\)"):
        read_diary(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted({*entry(1), *HEADER, "train"})), value=json_values)
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    header = {**HEADER, key: value} if key in HEADER else HEADER
    line = entry(2) if key in HEADER else {**entry(2), key: value}
    try:
        diary = read_diary(write(tmp_path, header, entry(1), line))
    except FormatError:
        return
    assert isinstance(diary, DiaryFile)
    tables.diary_table(diary_facts(diary))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError):
        read_diary(path)


# Pictures


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'whetsim[plot]'")


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")]
)
def test_a_picture_is_drawn(run: Path, suffix: str, magic: bytes) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    out = run.with_suffix(suffix)
    plot_diary(run, out)
    assert out.read_bytes().startswith(magic)
    assert out.stat().st_size > 10_000
    assert dict(mpl.rcParams) == before


def unusual() -> dict[str, list[Any]]:
    many = [f"layer_{i}" for i in range(40)]
    of_many = {name: 0.5 for name in many}
    deep = entry(1, 0.5) | {"sharpness": of_many, "spikes_per_sample": of_many}
    deep |= {"never": dict.fromkeys(many, 0), "always": dict.fromkeys(many, 0)}
    deep |= {"margins": {name: [0, 0] for name in many}}
    names = {"hidden": 'a $\\frac$ {} "<&', "output": "\u7de8" * 60}
    renamed = json.loads(
        json.dumps([HEADER, entry(1), entry(2, 1.0)])
        .replace('"hidden"', json.dumps(names["hidden"]))
        .replace('"output"', json.dumps(names["output"]))
    )
    no_scores = {"as_is": None, "spiking": None}
    huge = {"as_is": -1e300, "spiking": 1e300}
    silent = {"spikes_per_sample": {"hidden": 0, "output": 0}}
    wide = {"spikes_per_sample": {"hidden": 128, "output": 0.01}}
    return {
        "one": [HEADER, entry(1)],
        "start": [HEADER, entry(0)],
        "sharp from the start": [HEADER, entry(1, 1.0), entry(2, 1.0)],
        "goes on": [HEADER, entry(7, 0.5), entry(8, 1.0)],
        "no scores": [HEADER, entry(1, validation=no_scores), entry(2, validation=no_scores)],
        "huge scores": [HEADER, entry(1, validation=huge), entry(1e9, 1.0, validation=huge)],
        "silent": [HEADER, entry(1, **silent), entry(2, 1.0, **silent)],
        "wide": [HEADER, entry(1, **wide), entry(2, 0.5, **wide)],
        "many layers": [HEADER | {"layers": many, "units": [9] * 40}, deep, deep | {"epoch": 2}],
        "odd names": renamed,
    }


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", unusual())
def test_unusual_diaries_are_drawn_too(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, *unusual()[case])
    plot_diary(path, tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 10_000


@pytest.mark.usefixtures("_matplotlib")
def test_pictures_that_cannot_be_drawn(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"\(got '.jpg'; need .png, .pdf, .svg\)"):
        plot_diary(run, tmp_path / "out.jpg")
    with pytest.raises(FormatError, match=r"out: no picture .* \(got 'no suffix'"):
        plot_diary(run, tmp_path / "out")
    with pytest.raises(FormatError, match=r"out.png: cannot be written \(No such file"):
        plot_diary(run, tmp_path / "nowhere" / "out.png")
    with pytest.raises(FormatError, match=r"no entry yet\. Wait for the end of an epoch"):
        plot_diary(write(tmp_path, HEADER), tmp_path / "out.png")


def test_missing_matplotlib_says_how_to_get_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.style", raising=False)
    text = r'matplotlib is not installed .* pip install "whetsim\[plot\]"'
    with pytest.raises(BackendNotInstalledError, match=text):
        plot_diary(run, run.with_suffix(".png"))
