"""The report: one page that is whole, loads nothing, and shows no file's markup as its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.backends.brian2 import Brian2Backend
from whetsim.backends.nest import NestBackend
from whetsim.errors import BackendNotInstalledError, UnsupportedError
from whetsim.testing.networks import conv_model, dense_model, random_samples
from whetsim_hardware.report import ReportContent, gather, render
from whetsim_hardware.report.drawing import Bar, bars, histogram, raster, table

SECTIONS = (
    *("answers", "travel", "network", "margins"),
    *("fits", "widths", "energy", "provenance"),
)
VOID = {"meta", "br", "wbr", "rect", "path", "img", "link"}
LOADING = {"src", "srcset", "poster", "action", "data", "xlink:href"}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section"),
    *("h1", "h2", "h3", "p", "a", "b", "i", "small", "span", "div", "code", "pre", "ul", "li"),
    *("details", "summary", "table", "thead", "tbody", "tr", "th", "td", "wbr"),
    *("figure", "figcaption", "svg", "g", "rect", "path"),
}
HOSTILE = "<script>alert(1)</script>"
QUOTED = '"x\' onmouseover=\'y" style="z'


class Page(HTMLParser):
    """Reads a page: whether its tags balance, what it loads, which ids and words it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, name: str) -> list[str]:
        """Return the values of an attribute."""
        return [value for _, key, value in self.attributes if key == name]


def check(text: str) -> Page:
    """Read a page and check what holds for any."""
    page = Page(text)
    assert page.open == [], "all tags are closed, in order"
    assert page.tags <= TAGS
    assert [i for i in page.all("id") if i in SECTIONS] == list(SECTIONS)
    assert len(set(page.all("id"))) == len(page.all("id"))
    assert sorted(page.all("href")) == sorted(f"#{key}" for key in SECTIONS)
    assert not {name for _, name, _ in page.attributes} & LOADING
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for style in [*page.all("style"), *re.findall("<style>(.*?)</style>", text, re.DOTALL)]:
        assert "url(" not in style
        assert "@import" not in style
        assert "//" not in style
    assert "nan" not in re.findall(r"\w+", " ".join(page.words).lower())
    return page


@pytest.fixture(autouse=True)
def no_simulators(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let Brian2 and NEST be missing, which saves their time, unless a test is about them."""
    if "simulator" in request.keywords:
        return

    def missing(self: Any) -> Any:
        raise BackendNotInstalledError(f"{self.name}: is not installed. Get {self.name} somewhere.")

    for engine in (Brian2Backend, NestBackend):
        monkeypatch.setattr(engine, "versions", missing)


def gathered(model: whetsim.Model, n_samples: int = 12, n_calibration: int = 20) -> ReportContent:
    rng = np.random.default_rng(5)
    samples = random_samples(rng, model.input, n_samples)
    labels = np.zeros(n_samples, dtype=np.int64)
    calibration = random_samples(rng, model.input, n_calibration)
    known = np.zeros(n_calibration, dtype=np.int64)
    return gather(
        model, samples, labels, (calibration, known), data="made up", calibration_data="others"
    )


def dense() -> whetsim.Model:
    return dense_model(np.random.default_rng(3))


def words(page: Page) -> str:
    return " ".join(" ".join(page.words).split())


def test_page_of_a_dense_network() -> None:
    content = gathered(dense())
    page = check(render(content))
    told = words(page)
    for name in ("step_", "loihi", "spinnaker", "truenorth", "odin", "horowitz45", "akida"):
        assert name in told
    for text in ("measured in simulation", "emulated", "estimated", "made up", "others"):
        assert text in told
    assert content.network.graded_fingerprint in told
    assert f"Not one of {12 * content.network.n_neurons:,} decisions differs" in told
    assert "Get nest somewhere." in told
    assert page.all("aria-label") == ["spikes"] * 4, "input and three populations"


def test_spikes_drawn_are_those_of_the_run() -> None:
    content = gathered(dense())
    text = render(content)
    for name in ("step_0", "step_1", "step_2"):
        spikes = content.truth.raster(name)[0]
        assert f"{spikes.sum()} of {spikes.size} spike" in text
    drawn = [
        sum(map(int, re.findall(r"h(\d+)v1", path)))
        for path in re.findall(r'class="spikes" d="([^"]*)"', text)
    ]
    counted = [content.truth.raster(p.name)[0].sum() for p in content.network.populations]
    assert content.truth.samples is not None
    assert drawn == [(content.truth.samples[0] != 0).sum(), *counted]


def test_what_chips_flip_is_shown_by_population() -> None:
    model = dense()
    rng = np.random.default_rng(8)
    rough = tuple(
        replace(layer, weight=rng.normal(0, 0.4, layer.weight.shape).astype(np.float32))
        if isinstance(layer, L.Dense)
        else layer
        for layer in model.layers
    )
    content = gathered(replace(model, layers=rough), 400)
    flips = {name: c.flips for name, c in content.chips.items()}
    assert sum(f.total for f in flips.values()) > 0
    told = words(check(render(content)))
    for found in flips.values():
        assert f"{found.total:,} flips" in told
        for count in found.by_population.values():
            assert f"{count:,} (" in told
    for name, first in content.first_flips.items():
        assert flips[name].total > 0
        assert str(first) in told


def test_page_of_maps_with_grey_input() -> None:
    content = gathered(conv_model(np.random.default_rng(4)), 3, 6)
    told = words(check(render(content)))
    assert content.truth.encoding == "graded"
    for on_chip in content.chips.values():
        assert on_chip.recording.encoding == "bitplane"
    assert "loihi" in content.chips
    for name in content.not_on_chips:
        assert content.not_on_chips[name] in told
        assert name not in content.energies


@pytest.mark.parametrize("n_samples", [0, 1])
def test_page_of_few_samples(n_samples: int) -> None:
    content = gathered(dense(), n_samples)
    told = words(check(render(content)))
    assert (content.energies == {}) == (n_samples == 0)
    assert ("There were no samples." in told) == (n_samples == 0)


def test_page_without_calibration_or_chips() -> None:
    content = gathered(dense(), 4, 0)
    assert (content.chips, content.sweep) == ({}, None)
    told = words(check(render(content)))
    assert "Not possible. quantize: no calibration samples." in told


def test_page_without_readout() -> None:
    content = gathered(replace(dense(), readout=None))
    assert content.labels is None
    page = check(render(content))
    assert "is taken for class" not in words(page)


def test_names_from_a_hostile_file_are_text() -> None:
    model = dense()
    named = {"step_0": QUOTED, "step_1": HOSTILE}
    layers = tuple(
        replace(
            layer,
            name=named.get(layer.name, layer.name),
            inputs=tuple(named.get(i, i) for i in layer.inputs),
        )
        for layer in model.layers
    )
    metadata = {"float_accuracy": HOSTILE, "dataset": HOSTILE, "note": QUOTED}
    hostile = replace(model, name=HOSTILE, layers=layers, metadata=metadata)
    content = replace(
        gathered(hostile), data=HOSTILE, calibration=QUOTED, missing={QUOTED: HOSTILE}
    )
    text = render(content)
    page = check(text)
    assert "<script" not in text
    assert HOSTILE in "".join(page.words)
    assert QUOTED in "".join(page.words)
    plain = check(render(gathered(model)))
    assert {(t, k) for t, k, _ in page.attributes} == {(t, k) for t, k, _ in plain.attributes}


@pytest.mark.simulator
def test_simulators_take_part() -> None:
    for name in ("brian2", "nest"):
        try:
            whetsim.get_backend(name).versions()
        except BackendNotInstalledError as error:
            pytest.skip(str(error))
    content = gathered(dense())
    assert list(content.runs) == ["exact", "brian2", "nest"]
    assert content.missing == {}
    assert "between exact, brian2, nest" in words(check(render(content)))


def test_a_simulator_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from whetsim_hardware.report import content as module

    known = module.run

    def refuse(network: Any, samples: Any, *, backend: str, **options: Any) -> Any:
        if backend == "nest":
            raise UnsupportedError("nest: too wide a sum.")
        return known(network, samples, backend=backend, **options)

    monkeypatch.setattr(NestBackend, "versions", lambda self: {})
    monkeypatch.setattr(module, "run", refuse)
    found = gathered(dense(), 3)
    assert found.missing["nest"] == "nest: too wide a sum."
    assert "nest: too wide a sum." in words(check(render(found)))


def test_stages_are_told() -> None:
    model, told = dense(), []
    samples = random_samples(np.random.default_rng(5), model.input, 3)
    gather(model, samples, None, (samples, None), tell=told.append)
    assert told[0] == "running on exact"
    assert told[-1] == "estimating energies"
    assert len(told) == len(set(told))


def fills(html: str) -> Iterator[float]:
    for width in re.findall(r'class="fill \w+" style="width:([\d.]+)%', html):
        yield float(width)


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("a", 1.0, "1"), Bar("b", 4.0, "4"), Bar("none", 0.0, "0")]
    assert list(fills(bars(rows))) == [25.0, 100.0, 0.0]
    assert list(fills(bars(rows, most=8.0))) == [12.5, 50.0, 0.0]
    decades = [Bar("a", 1.0, "1"), Bar("b", 10.0, "10"), Bar("c", 100.0, "100"), rows[2]]
    short, middle, full, none = fills(bars(decades, logarithmic=True))
    assert (full, none) == (100.0, 0.0)
    assert middle - short == pytest.approx(full - middle, abs=0.02)
    assert short > 0
    ranged = bars([Bar("a", 2.0, "2", 1.0, 4.0)])
    assert 'style="left:25.00%;width:75.00%"' in ranged
    assert list(fills(bars([Bar("a", 0.0, "nothing")]))) == []


def test_drawings_of_nothing_and_of_much() -> None:
    assert "viewBox" in raster(np.zeros(0, dtype=bool), (0,))
    assert 'class="column"' not in histogram([], [])
    many = raster(np.ones(30 * 30 * 64, dtype=bool), (30, 30, 64))
    assert "the first 22 of 64 maps" in many
    assert many.count("<rect") == 22
    assert table(["a"], []).count("<tr>") == 1


def test_maps_stand_in_whole_rows() -> None:
    picture = raster(np.zeros(4 * 4 * 32, dtype=bool), (4, 4, 32))
    tops = re.findall(r'<rect x="\d+" y="(\d+)"', picture)
    assert len({tops.count(top) for top in tops}) == 1
