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
from whetsim_hardware.chip_keys import SECTIONS

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


def test_bounds_from_elsewhere_name_source_and_evidence() -> None:
    """A range whose end is another source's says which, as the tag is the typical value's."""
    others = {
        ("loihi", "energy.table2.static_mw_per_chip"): "blouw2019 (S)",
        ("loihi", "energy.table2.static_mw_per_core"): "blouw2019 (S)",
        ("loihi", "energy.sana_fe.static_mw_per_chip"): "blouw2019 (S)",
        ("loihi", "energy.sana_fe.static_mw_per_core"): "blouw2019 (S)",
        ("loihi", "arithmetic.weight_exponent_min"): "brian2_loihi (P)",
        ("spinnaker", "timing.clock_mhz"): "painkras2013 (P)",
        ("spinnaker", "energy.software.synop_nj"): "(S)",
        ("spinnaker2", "energy.prototype.synop_nj"): "(S)",
    }
    for (name, key), text in others.items():
        quantity = dict(load_chip(name).quantities())[key]
        assert quantity.low is not None or quantity.high is not None
        assert text in quantity.note, key
    cores = load_chip("spinnaker").limits["cores"]
    assert (cores.value, cores.evidence) == (16, "D")


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
        ("value = 4", "value = [4, 5]", "limits.cores: value is [4, 5]; need one number."),
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
        ("value = 2.5", "value = -2.5", "synop_pj: value is -2.5; need a number >= 0."),
        ("value = 2.5", "value = 3.5", "need low <= value <= high (high is 3)"),
        ("value = 2.5, ", "value = [2.5], ", "synop_pj: value is [2.5]; need one number."),
        ("low = 2, high = 3", "low = -1", "energy.all.synop_pj: low is -1; need a number >= 0."),
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
        ("value = 4", f"value = {'9' * 5000}", "line 11 has 5,066 bytes; need at most 2,000."),
        ("value = 4", "value = " + "[\n" * 3000 + "]" * 900, "tables are nested too deeply."),
        ("cores =", f"cores.{'a.' * 900}a =", "limits.cores"),
        ("cores =", f"cores.{'a.' * 60_000}a =", "line 11 has 120,069 bytes; need at most 2,000."),
        ("A toy", "A\\u001b[2J toy", "title is 'A\\x1b[2J toy'; need a text of one line"),
        ("Made up", "Made\\nup", "about is 'Made\\nup for tests.'; need a text of one line"),
        (
            '"A toy"',
            f'"""{"x" * 1500}\\\n{"x" * 1500}"""',
            "need a text of at most 2,000 characters",
        ),
        (
            '"D", low',
            '"D", note = "\\u0007", low',
            "synop_pj: note is '\\x07'; need a text of one line",
        ),
        ('b = "The', '"c\\n" = "x"\nb = "The', "sources: a key is 'c\\n'; need a short one"),
        (
            "[energy.all]",
            '[energy."a\\nb"]',
            "energy: a key is 'a\\nb'; need a short one of one line.",
        ),
        ('value = ">=",', 'value = "=>",', "arithmetic.fire: value is '=>'; need '>=' or '>'."),
        (
            SYNOP,
            SYNOP + '\nsynop_nj = { value = 1, unit = "nJ", source = "b", evidence = "P" }',
            "energy.all.synop_nj: synop_pj is the price of it already; need one.",
        ),
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


def with_facts(*facts: tuple[str, str, str, str]) -> str:
    """Return the good file with facts of its own: section, key, value and unit."""
    text = GOOD
    for section, key, value, unit in facts:
        line = f'{key} = {{ value = {value}, unit = "{unit}", source = "b", evidence = "P" }}'
        text = text.replace(f"[{section}]", f"[{section}]\n{line}", 1)
    return text


@pytest.mark.parametrize(
    "key", [k for k, kind in SECTIONS["limits"].items() if kind.unit != "rule"]
)
def test_no_limit_is_negative_or_a_fraction(key: str) -> None:
    unit = SECTIONS["limits"][key].unit
    for value in ("-5", "0.5", "1e300", "1e-300", "[1, -2]", "[1, 0.5, 2, 3]"):
        wrong = with_facts(("limits", key, value, unit))
        if key == "cores":
            wrong = wrong.replace(CORES, "")
        with pytest.raises(FormatError, match=rf"^toy\.toml: limits\.{key}: value is .*; need "):
            read(wrong)


@pytest.mark.parametrize(
    ("section", "key", "unit", "value", "text"),
    [
        ("limits", "delay", "step", "0", "need a whole number >= 1."),
        ("limits", "neurons_per_core", "neurons", "0", "need a whole number >= 1."),
        ("limits", "synapse_word_bits", "bit", "0", "need a whole number from 1 to 1,048,576."),
        (
            "limits",
            "synapse_memory",
            "rule",
            '"cores"',
            "need 'core' or 'chip'.",
        ),
        ("limits", "weight_bits_stored", "bit", "8", "need a list of numbers."),
        ("limits", "weight_bits_stored", "bit", "[]", "need at least one number."),
        ("limits", "weight_bits_stored", "bit", f"{[1] * 65}", "need at most 64 numbers."),
        ("limits", "neurons_per_core_each", "neurons", "4", "need a list of one number for each"),
        (
            "limits",
            "neurons_per_core_each",
            "neurons",
            "[1, 2]",
            "has 2 numbers; need one for each",
        ),
        ("arithmetic", "weight_bits", "bit", "[1, 2]", "need one number."),
        ("arithmetic", "weight_bits", "bit", "65", "need a whole number from 1 to 64."),
        ("arithmetic", "weight_max", "1", "0", "need a whole number >= 1."),
        ("arithmetic", "weight_max", "1", "7.0", "need a whole number >= 1."),
        ("arithmetic", "weight_step", "1", "0", "need a whole number >= 1."),
        ("arithmetic", "weight_shift", "bit", "1_000_000", "need a whole number from 0 to 64."),
        ("arithmetic", "bias_exponent_max", "1", "-1", "need a whole number from 0 to 64."),
        ("arithmetic", "membrane_max", "1", "0", "need a whole number >= 1."),
        ("arithmetic", "threshold_max", "1", "0", "need a whole number >= 1."),
        ("arithmetic", "accumulator_bits", "bit", "1e15", "need a whole number from 1 to 64."),
    ],
)
def test_numbers_that_no_chip_can_have(
    section: str, key: str, unit: str, value: str, text: str
) -> None:
    with pytest.raises(FormatError) as caught:
        read(with_facts((section, key, value, unit)))
    assert f"{section}.{key}" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"weight_step": 9, "weight_max": 7}, "arithmetic.weight_step is 9; need at most"),
        ({"weight_min": -1, "weight_step": 2}, "weight_step is 2; need at most 1, as weight_min"),
        ({"threshold_min": 9, "threshold_max": 7}, "arithmetic.threshold_min is 9; need at most"),
        ({"weight_exponent_min": 3, "weight_exponent_max": 2}, "arithmetic.weight_exponent_min"),
    ],
)
def test_numbers_that_contradict_each_other(facts: dict[str, int], text: str) -> None:
    with pytest.raises(FormatError, match=text):
        read(with_facts(*(("arithmetic", key, str(v), "1") for key, v in facts.items())))


def test_more_cores_than_tiles_hold() -> None:
    mesh = {"tile_columns": "tiles", "tile_rows": "tiles", "cores_per_tile": "cores"}
    assert read(with_facts(*(("limits", k, "2", unit) for k, unit in mesh.items())))
    with pytest.raises(FormatError, match="cores is 4; need at most the 1 x 1 tiles of 1 cores"):
        read(with_facts(*(("limits", k, "1", unit) for k, unit in mesh.items())))


@pytest.mark.parametrize("value", ["0", "-1", "1e-300", "1e12", "[1]"])
def test_times_are_positive(value: str) -> None:
    timing = f'[timing]\nclock_mhz = {{ value = {value}, unit = "MHz", source = "b", '
    with pytest.raises(FormatError, match=r"timing\.clock_mhz: value is .*; need "):
        read(GOOD.replace("[energy.all]", timing + 'evidence = "P" }\n[energy.all]'))


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
    with pytest.raises(FormatError, match=r"^folder\.toml: a folder; need a file\.$"):
        load_chip(tmp_path / "folder.toml")
    with pytest.raises(FormatError, match=r"^'xxxx.*\.\.\.: no such file\.$"):
        load_chip("x" * 5000 + ".toml")
    with pytest.raises(FormatError, match=r"^'a\\x00b\.toml': no such file"):
        load_chip("a\0b.toml")
    with pytest.raises(FormatError, match=r"a folder; need a \.toml file\.$"):
        load_chip(tmp_path)
    (tmp_path / "large.toml").write_bytes(b"#\n" * MAX_FILE_BYTES)
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
