"""The commands about chips: what they print, their JSON, their exit status, and the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.testing.networks import dense_model, random_samples

VOID = {"br", "meta", "path", "rect", "wbr"}
SECTIONS = (
    "answers",
    "travel",
    "network",
    "margins",
    "fits",
    "widths",
    "energy",
    "provenance",
)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whetsim.cli", *args],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


def as_json(*args: str) -> Any:
    result = command(*args, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the files of a small network with a hostile name, and of samples for it."""
    folder = tmp_path_factory.mktemp("net")
    model = replace(dense_model(np.random.default_rng(3)), name="<script>alert(1)</script>")
    whetsim.save(model, folder / "net.safetensors")
    x = random_samples(np.random.default_rng(4), model.input, 30)
    np.savez(folder / "data.npz", x=x, y=np.zeros(30, dtype=int))
    return str(folder / "net.safetensors"), str(folder / "data.npz")


def test_chips_are_listed_and_every_fact_of_one_has_a_source() -> None:
    told = as_json("chips")
    names = [chip["name"] for chip in told["chips"]]
    assert {"loihi", "truenorth", "spinnaker", "odin", "horowitz45"} <= set(names)
    one = as_json("chips", "loihi")
    assert one["quantities"]["limits.neurons_per_core"]["value"] == 1024
    assert all(q["source"] in one["sources"] for q in one["quantities"].values())
    assert "Loihi" in command("chips").stdout
    wrong = command("chips", "loihii")
    assert wrong.returncode == 2 and "Did you mean 'loihi'?" in wrong.stderr


def test_fit_tells_cores_and_fails_for_a_chip_that_was_named(files: tuple[str, str]) -> None:
    net, _ = files
    told = as_json("fit", net)
    fits = {chip["chip"]: chip["fits"] for chip in told["chips"]}
    assert fits["loihi"] and fits["spinnaker"]
    assert command("fit", net, "--chips", "loihi").returncode == 0
    wide = command("fit", "digits_conv", "--chips", "odin")
    assert wide.returncode == 1 and "odin" in wide.stdout
    assert command("fit", net, "--chips", "odinn").returncode == 2


@pytest.mark.parametrize("chip", ["loihi", "truenorth", "spinnaker", "odin"])
def test_a_network_runs_on_an_emulated_chip(files: tuple[str, str], chip: str) -> None:
    net, data = files
    told = as_json("run", net, "--data", data, "--backend", chip)
    assert told["kind"] == "emulated" and told["backend"] == chip
    assert told["quantization"]["flips"] == 0  # its weights are small whole numbers already
    exact = as_json("run", net, "--data", data)
    assert exact["kind"] == "reference"
    assert told["spikes_per_sample"] == exact["spikes_per_sample"]


def test_shards_take_no_chips(files: tuple[str, str], tmp_path: Path) -> None:
    net, data = files
    more = ("--shards", "2", "--out", str(tmp_path / "out"))
    result = command("run", net, "--data", data, "--backend", "loihi", *more)
    assert result.returncode == 2 and "quantized" in result.stderr


def test_energy_has_ranges_parts_and_sources(files: tuple[str, str]) -> None:
    net, data = files
    told = as_json("energy", net, "--data", data, "--chips", "loihi,cpu")
    assert len(told["estimates"]) == 2 and told["refused"] == {}
    shown = command("energy", net, "--data", data, "--chips", "loihi", "--sources")
    assert shown.returncode == 0
    for word in ("estimated", "emulated", "Davies", "without static"):
        assert word in shown.stdout
    refused = command("energy", net, "--data", data, "--chips", "akida")
    assert refused.returncode == 1 and "akida: no estimate" in refused.stdout


def test_sweep_flips_less_with_more_bits(files: tuple[str, str]) -> None:
    net, data = files
    told = as_json("sweep", net, "--data", data, "--bits", "1..8", "--split", "test")
    flips = {width["bits"]: width["flips"] for width in told["widths"]}
    assert list(flips) == list(range(1, 9)) and flips[8] == 0 < flips[1]
    for bits in ("8..1", "a..b", "0", "17", ""):
        wrong = command("sweep", net, "--data", data, "--bits", bits, "--split", "test")
        assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1, bits


class Checker(HTMLParser):
    """Finds tags that do not balance and what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "section":
            self.sections.append(str(given["id"]))
        address = given.get("src") or given.get("href") or ""
        if tag in ("script", "link", "img", "iframe") or address[:1] not in ("", "#"):
            self.loaded.append(f"{tag} {address}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_runs_no_code_of_a_file(
    files: tuple[str, str], tmp_path: Path
) -> None:
    net, data = files
    out = tmp_path / "page.html"
    result = command("report", net, "--data", data, "-o", str(out))
    assert result.returncode == 0, result.stderr
    page = out.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == [] and checker.loaded == []
    assert tuple(checker.sections) == SECTIONS
    assert not re.search(r"url\(|@import|https?://[^<\s]*\.(js|css|png)", page)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    for word in ("measured in simulation", "emulated", "estimated", "loihi"):
        assert word in page
    assert list(tmp_path.iterdir()) == [out]


def test_a_page_that_cannot_be_written_is_refused_first(files: tuple[str, str]) -> None:
    net, data = files
    result = command("report", net, "--data", data, "-o", "/no/such/folder/page.html")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
