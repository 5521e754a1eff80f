"""Chip files: those that come with the package, and what is refused in one."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim.errors import FormatError, UnknownNameError, UnsupportedError, WhetsimError
from whetsim_hardware import Chip, chip_names, load_chip
from whetsim_hardware.chip import EVIDENCE, MAX_FILE_BYTES, read_chip

GOOD = """
name = "toy"
title = "A toy"
status = "full"
about = "Made up for tests."

[sources]
b = "The book of the toy"

[limits]
cores = { value = 4, unit = "cores", source = "b", evidence = "P" }

[arithmetic]
fire = { value = ">=", unit = "rule", source = "b", evidence = "P" }

[energy.all]
about = "Everything."
synop_pj = { value = 2.5, unit = "pJ", source = "b", evidence = "D", low = 2, high = 3 }
"""


def read(text: str) -> Chip:
    return read_chip(text.encode(), "toy.toml")


def test_all_chips_are_there() -> None:
    full = {"loihi", "truenorth", "spinnaker", "odin"}
    placed = {"spinnaker2", "speck"}
    limits = {"loihi2", "brainscales2", "akida"}
    references = {"horowitz45", "cpu", "gpu", "arm", "tpu_v1", "eyeriss"}
    by_status: dict[str, set[str]] = {}
    for name in chip_names():
        by_status.setdefault(load_chip(name).status, set()).add(name)
    assert by_status == {
        "full": full,
        "placed": placed,
        "limits": limits,
        "reference": references,
    }


@pytest.mark.parametrize("name", chip_names())
def test_every_quantity_has_unit_source_and_evidence(name: str) -> None:
    chip = load_chip(name)
    assert chip.name == name
    quantities = dict(chip.quantities())
    assert quantities
    used = set()
    for key, quantity in quantities.items():
        assert quantity.unit, key
        assert quantity.evidence in EVIDENCE, key
        assert len(chip.sources[quantity.source]) > 20, key
        used.add(quantity.source)
        if isinstance(quantity.value, int | float):
            low, typical, high = quantity.range
            assert -math.inf < low <= typical <= high < math.inf, key
    assert used <= set(chip.sources)
    assert bool(chip.energy) != bool(chip.energy_refused)


@pytest.mark.parametrize("name", chip_names())
def test_every_source_is_used_or_named(name: str) -> None:
    chip = load_chip(name)
    used = {quantity.source for _, quantity in chip.quantities()}
    notes = " ".join([chip.about, *(q.note for _, q in chip.quantities())]).lower()
    for source in set(chip.sources) - used:
        assert re.sub(r"\d+$", "", source) in notes, source


def test_limits_and_rules() -> None:
    chip = load_chip("loihi")
    assert chip.limit("cores") == 128
    assert chip.limit("fan_in") is None
    assert chip.rule("fire") == ">"
    with pytest.raises(UnsupportedError, match=r"says nothing of arithmetic\.colour"):
        chip.rule("colour")
    with pytest.raises(UnsupportedError, match=r"limits\.neurons_per_core_each is a list"):
        load_chip("speck").limit("neurons_per_core_each")
    with pytest.raises(UnsupportedError, match="has no range"):
        _ = chip.arithmetic["fire"].range


def test_sums_over_the_cores_of_speck() -> None:
    limits = load_chip("speck").limits
    assert sum(limits["neurons_per_core_each"].value) == 327_680  # type: ignore[arg-type]
    assert sum(limits["kernel_words_per_core_each"].value) == 272 * 1024  # type: ignore[arg-type]


def test_a_file_elsewhere_is_a_chip(tmp_path: Path) -> None:
    file = tmp_path / "toy.toml"
    file.write_text(GOOD)
    for given_path in (file, str(file)):
        chip = load_chip(given_path)
        assert (chip.name, chip.limit("cores")) == ("toy", 4)
        assert chip.energy["all"].quantities["synop_pj"].range == (2.0, 2.5, 3.0)
    assert repr(chip) == "Chip('toy': A toy, full)"


CORES = 'cores = { value = 4, unit = "cores", source = "b", evidence = "P" }'
SYNOP = 'synop_pj = { value = 2.5, unit = "pJ", source = "b", evidence = "D", low = 2, high = 3 }'


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('title = "A toy"', 'title = "A toy"\ncolor = 1', "unknown key 'color'."),
        ("[limits]", "[limit]", "unknown key 'limit'. Did you mean 'limits'?"),
        ("cores =", "coers =", "unknown key 'limits.coers'. Did you mean 'cores'?"),
        ("synop_pj", "synops_pj", "unknown key 'energy.all.synops_pj'. Did you mean 'synop_pj'?"),
        (', evidence = "P" }\n\n[ar', ', evidense = "P" }\n\n[ar', "limits.cores: unknown key"),
        ('unit = "cores", ', "", "limits.cores: unit is missing."),
        (
            ', source = "b", evidence = "P" }\n\n[ar',
            ', evidence = "P" }\n\n[ar',
            "cores: source",
        ),
        (', evidence = "P" }\n\n[ar', " }\n\n[ar", "limits.cores: evidence is missing."),
        ("value = 4, ", "", "limits.cores: value is missing."),
        ('unit = "cores"', 'unit = "neurons"', "limits.cores: unit is 'neurons'; need 'cores'."),
        ('unit = "pJ"', 'unit = "nJ"', "energy.all.synop_pj: unit is 'nJ'; need 'pJ'."),
        ("value = 4", "value = nan", "limits.cores: value is nan; need a finite number."),
        ("value = 4", "value = -inf", "limits.cores: value is -inf; need a finite number."),
        ("value = 4", "value = true", "limits.cores: value is True; need a finite number."),
        ("value = 4", "value = [4, nan]", "limits.cores: value is [4, nan]; need a finite"),
        ("value = 4", f"value = 1{'0' * 400}", "limits.cores: value is 1000"),
        ('value = ">="', "value = 1", "arithmetic.fire: value is 1; need a text."),
        ("low = 2,", "low = nan,", "energy.all.synop_pj: low is nan; need a finite number."),
        ("low = 2,", "low = 2.6,", "value is 2.5; need low <= value <= high (low is 2.6)."),
        ("high = 3", "high = 2.4", "value is 2.5; need low <= value <= high (high is 2.4)."),
        ('value = ">=",', 'value = ">=", low = 1,', "arithmetic.fire: low needs a value that"),
        ('"b", evidence = "P" }\n\n[ar', '"bk", evidence = "P" }\n\n[ar', "'bk' is not among"),
        (
            'source = "b"',
            "source = [1]",
            "limits.cores: source [1] is not among [sources]: b.",
        ),
        ('evidence = "P"', 'evidence = "R"', "evidence is 'R'; need one of: P, Q, S, D."),
        ('evidence = "P"', "evidence = []", "evidence is []; need one of: P, Q, S, D."),
        (
            'evidence = "D"',
            'evidence = "D", note = 1',
            "energy.all.synop_pj: note is 1; need a text",
        ),
        (CORES, "cores = 4", "limits.cores is 4; need a table with value, unit, source, evidence."),
        ('status = "full"', 'status = "ful"', "status is 'ful'; need one of: full, placed, limits"),
        ('status = "full"', "", "status is None; need a text."),
        ('name = "toy"', 'name = "boy"', "name is 'boy'; need the name of the file."),
        ('about = "Everything."', "", "energy.all.about is None; need a text."),
        (SYNOP, "", "energy.all has no energies."),
        ("value = 2.5", "value = -2.5", "need low <= value <= high"),
        ("value = 2.5, ", "value = [2.5], ", "energy.all.synop_pj: low needs a value that is one"),
        ("low = 2, high = 3", "low = -1", "energy.all.synop_pj is 2.5; need one number >= 0."),
        (
            "[energy.all]",
            "[energy]\nrefused = 'x'\n[energy.all]",
            "energy: need sets of energies, or",
        ),
        ("[energy.all]", "[energy]\nall = 1\n[energy.b]", "energy.all is 1; need a table."),
        (
            SYNOP,
            SYNOP + '\nsynop_all_in_pj = { value = 1, unit = "pJ", source = "b", evidence = "P" }',
            "energy.all: synop_all_in_pj has all power in it; nothing can stand beside it.",
        ),
        ("[sources]\n", "sources = 1\n[x]\n", "unknown key 'x'."),
        ('b = "The', 'b = 1\nc = "The', "sources.b is 1; need a text."),
        ("[limits]", "[limits", "not a TOML file (Expected ']' at the end of a table"),
        ("value = 4", f"value = {'9' * 5000}", "not a TOML file (Exceeds the limit"),
        ("value = 4", f"value = {'[' * 3000}{']' * 3000}", "tables are nested too deeply."),
        ("cores =", f"cores.{'a.' * 3000}a =", "limits.cores"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(old: str, new: str, text: str) -> None:
    assert old in GOOD
    with pytest.raises(FormatError) as caught:
        read(GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith("toy.toml: ")
    assert text in message
    assert "\n" not in message
    assert len(message) < 500


def test_energy_must_be_there_or_refused() -> None:
    with pytest.raises(FormatError, match="energy: need sets of energies, or 'refused'"):
        read(GOOD[: GOOD.index("[energy.all]")])
    with pytest.raises(FormatError, match=r"toy\.toml: energy is 1; need a table"):
        read("energy = 1\n" + GOOD[: GOOD.index("[energy.all]")])
    refused = GOOD[: GOOD.index("[energy.all]")] + '[energy]\nrefused = "unknown"'
    assert read(refused).energy_refused == "unknown"


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^gone\.toml: no such file\.$"):
        load_chip(tmp_path / "gone.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(FormatError, match=r"^folder\.toml: no such file\.$"):
        load_chip(tmp_path / "folder.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(FormatError, match=r"^large\.toml: a chip file has at most 200,000 bytes"):
        load_chip(tmp_path / "large.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe4'")
    with pytest.raises(FormatError, match=r"^latin\.toml: not a TOML file \('utf-8' codec"):
        load_chip(tmp_path / "latin.toml")


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"no chip named 'lohi'; there are: akida, .* Did"):
        load_chip("lohi")
    with pytest.raises(UnknownNameError, match=r"Or give the path of a \.toml file"):
        load_chip("../chips/loihi")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.text(max_size=12))
def test_a_damaged_file_never_crashes(start: int, length: int, text: str) -> None:
    damaged = GOOD[:start] + text + GOOD[start + length :]
    try:
        chip = read(damaged)
    except WhetsimError as error:
        assert "\n" not in str(error)
    else:
        assert chip.name == "toy"
