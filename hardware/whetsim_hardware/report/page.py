"""The report as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources

import numpy as np

from whetsim.margin import EDGES
from whetsim.report import facts
from whetsim_hardware.chip import EVIDENCE, load_chip
from whetsim_hardware.energy import joules
from whetsim_hardware.report.content import ReportContent
from whetsim_hardware.report.drawing import Bar, bars, histogram, raster, table

__all__ = ["render"]

DASH = "\u2013"


def render(content: ReportContent) -> str:
    """Return the page as text."""
    style = (resources.files("whetsim_hardware.report") / "page.css").read_text(encoding="utf-8")
    sections = "".join(
        f'<section id="{key}"><h2>{escape(title)}</h2>{"".join(body)}</section>'
        for key, title, body in _sections(content)
    )
    links = "".join(
        f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in _sections(content, titles=True)
    )
    name = escape(content.model.name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}: whetsim report</title><style>{style}</style></head><body>"
        f'<header><p class="kicker">whetsim report</p><h1>{name}</h1>{_tiles(content)}'
        f"<nav>{links}</nav></header><main>{sections}</main></body></html>\n"
    )


def _sections(
    content: ReportContent, titles: bool = False
) -> Iterator[tuple[str, str, Sequence[str]]]:
    for key, title, make in (
        ("answers", "Does everything compute the same?", _answers),
        ("travel", "One sample travels through the layers", _travel),
        ("network", "The network", _network),
        ("margins", "How close are the decisions?", _margins),
        ("fits", "Which chips does it fit?", _fits),
        ("widths", "How many bits do the weights need?", _widths),
        ("energy", "What does one inference cost?", _energy),
        ("provenance", "Where the numbers come from", _provenance),
    ):
        yield key, title, () if titles else tuple(make(content))


def _percent(value: float | None) -> str:
    return DASH if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def _named(name: str) -> str:
    """Return a name as HTML that may break where a reader would break it."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def _tag(kind: str) -> str:
    return f'<span class="tag {kind.split(maxsplit=1)[0]}">{escape(kind)}</span>'


def _tiles(content: ReportContent) -> str:
    truth, spikes = content.truth, content.truth.spikes_per_sample
    inner = sum(v for name, v in spikes.items() if name != content.network.input.name)
    accuracy = None if content.labels is None else truth.accuracy(content.labels)
    differ = int(content.agreement.matrix[0].sum())
    shown = [
        ("accuracy", _percent(accuracy), f"{truth.n_samples:,} samples, exact integers"),
        ("spikes", f"{inner:,.0f}", f"a sample, of {content.network.n_neurons:,} neurons"),
        ("synops", f"{truth.synops_per_sample:,.0f}", "a sample"),
        ("differing spikes", f"{differ:,}", f"between {', '.join(content.runs)}"),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span>'
            f"<small>{escape(note)}</small></div>"
            for label, value, note in shown
        )
        + "</div>"
    )


def _answers(content: ReportContent) -> Iterator[str]:
    rows = []
    trained = content.model.metadata.get("float_accuracy")
    if isinstance(trained, float):
        rows.append(["real-valued activations", _percent(trained), "", "as the file records"])
    with_model = content.with_model
    if with_model.accuracy is not None:
        ties = f"{with_model.n_differences:,} units ({len(with_model.ties)} ties)"
        rows.append(
            ["float32, sharp", _percent(with_model.accuracy[0]), ties, "computed from the file"]
        )
    for i, (name, run) in enumerate(content.runs.items()):
        accuracy = None if content.labels is None else run.accuracy(content.labels)
        differ = "the measure" if i == 0 else f"{int(content.agreement.matrix[0, i]):,}"
        rows.append([escape(name), _percent(accuracy), differ, _tag("measured in simulation")])
    for name, on_chip in content.chips.items():
        rows.append(
            [
                f"{escape(name)}, {on_chip.quantization.bits} bits",
                _percent(on_chip.flips.accuracy_after),
                f"{on_chip.flips.total:,} flips",
                _tag("emulated"),
            ]
        )
    rows += [[escape(name), DASH, DASH, _tag("not possible")] for name in content.not_on_chips]
    yield table(["", "accuracy", "spikes that differ", "what it is"], rows, numbers=(1, 2))
    yield _flips(content)
    for comparison in content.agreement.comparisons:
        if comparison.first is not None:
            yield f'<p class="warning">First difference of {escape(comparison.names[1])}: '
            yield f"{escape(str(comparison.first))}</p>"
    if content.agreement.agrees and content.truth.n_samples:
        total = content.truth.n_samples * content.network.n_neurons
        yield f'<p class="good">Not one of {total:,} decisions differs between simulators.</p>'
    firsts = {name: str(first) for name, first in content.first_flips.items()}
    yield _list("First flipped spike", firsts)
    yield _list("Did not run", content.missing)
    yield _list("Not possible", content.not_on_chips)
    yield _list("What overflowed on chips", {n: c.effects for n, c in content.chips.items()})


def _flips(content: ReportContent) -> str:
    """Return flips of each population on each chip, and which share of its decisions that is."""
    if not content.chips or not content.truth.n_samples:
        return ""
    rows = []
    for p in content.network.populations:
        counts = [c.flips.by_population[p.name] for c in content.chips.values()]
        shares = (f"{100 * n / (p.size * content.truth.n_samples):.2g}&nbsp;%" for n in counts)
        cells = (f"{n:,} ({share})" for n, share in zip(counts, shares, strict=True))
        rows.append([_named(p.name), *cells])
    header = ["", *(escape(name) for name in content.chips)]
    told = table(header, rows, numbers=range(1, len(header)))
    return f"<h3>Flipped spikes by population</h3>{told}"


def _travel(content: ReportContent) -> Iterator[str]:
    truth = content.truth
    if not truth.n_samples:
        yield "<p>There were no samples.</p>"
        return
    if truth.scores is not None:
        told = f"Sample 0 is taken for class {int(truth.predictions[0])}"
        if content.labels is not None:
            told += f"; its label is {int(content.labels[0])}"
        yield f"<p>{told}. Each square is a neuron; filled ones spike, each in its own step.</p>"
    source = content.network.input
    assert truth.samples is not None
    sample = truth.samples[0].reshape(source.samples.shape)
    yield '<div class="travel">'
    yield _figure(source.name, "step 0", raster(sample != 0, _as_maps(sample.shape)))
    for population in content.network.populations:
        spikes = truth.raster(population.name)[0]
        note = f"step {population.depth}, {int(spikes.sum()):,} of {spikes.size:,} spike"
        yield _figure(population.name, note, raster(spikes, population.shape))
    yield "</div>"


def _as_maps(shape: Sequence[int]) -> Sequence[int]:
    return (*shape, 1) if len(shape) == 2 else shape


def _figure(name: str, note: str, picture: str) -> str:
    return (
        f"<figure>{picture}<figcaption><b>{_named(name)}</b> {escape(note)}</figcaption></figure>"
    )


def _network(content: ReportContent) -> Iterator[str]:
    told = facts.network_facts(content.network)
    means = content.truth.spikes_per_sample
    rows = [
        [
            f"{_named(p['name'])} <small>{'&times;'.join(map(str, p['shape']))}</small>",
            f"{p['neurons']:,}",
            f"{p['synapses']:,}",
            f"{means[p['name']]:,.1f}",
        ]
        for p in told["populations"]
    ]
    yield table(["population", "neurons", "synapses", "spikes a sample"], rows, numbers=(1, 2, 3))
    yield "<h3>Share of neurons that spike</h3>"
    yield bars(
        [
            Bar(
                p["name"],
                means[p["name"]] / max(1, p["neurons"]),
                _percent(means[p["name"]] / max(1, p["neurons"])),
            )
            for p in told["populations"]
        ],
        most=1.0,
    )


def _margins(content: ReportContent) -> Iterator[str]:
    close = content.margins
    yield (
        f"<p>Distance |v &minus; 0.5| of every decision on {close.n_samples:,} samples, in "
        "decades. The further right, the more error a chip may make. Heights are square roots of "
        "counts.</p>"
    )
    labels = [
        "0",
        *(f"1e{round(np.log10(low)):d}" if low > 0 else "<1e-9" for low in EDGES[1:-1]),
    ]
    counted = {name: [int(n) for n in counts] for name, counts in close.histogram.items()}
    used = [i for i in range(len(EDGES) - 1) if any(c[i] for c in counted.values())]
    if not used:
        return
    span = range(min(used), max(used) + 1)
    yield '<div class="grid">'
    for name, counts in counted.items():
        smallest = close.smallest[name]
        picture = histogram([counts[i] for i in span], [labels[i] for i in span])
        yield _figure(name, f"smallest {smallest:.3g}", picture)
    yield "</div>"


def _fits(content: ReportContent) -> Iterator[str]:
    for found in content.fit.chips:
        full = ", ".join(
            f"{key.replace('_', ' ')} {used:,} of {most:,}" for key, used, most in found.tightest
        )
        cores = f"{found.n_cores:,} core{'s' * (found.n_cores != 1)}"
        chips = f"{found.n_chips:,} chip{'s' * (found.n_chips != 1)}"
        verdict = '<span class="yes">fits</span>' if found.fits else '<span class="no">no</span>'
        told = f"{cores} on {chips}; fullest core: {full}" if found.fits else found.reason
        title = escape(load_chip(found.chip).title)
        yield (
            f'<div class="fit"><b title="{title}">{escape(found.chip)}</b>{verdict}'
            f"<span>{escape(told)}</span></div>"
        )
    notes = {c.chip: "; ".join(c.notes) for c in content.fit.chips if c.notes}
    yield _list("Taken for granted", notes)


def _widths(content: ReportContent) -> Iterator[str]:
    found = content.sweep
    if found is None:
        yield f"<p>Not possible. {escape(content.no_sweep)}</p>"
        return
    yield (
        f"<p>All weights rounded to so many bits, scales and thresholds chosen for the fewest "
        f"flipped spikes, on {found.n_samples:,} samples out of {escape(content.calibration)}. "
        "A chip's other rules are left out.</p>"
    )
    accuracy = "" if found.accuracy is None else f"; accuracy ({_percent(found.accuracy)} before)"
    yield f"<h3>Flipped spikes, a neuron and sample{accuracy}</h3>"
    yield bars(
        [
            Bar(f"{w.bits} bit{'s' * (w.bits > 1)}", w.flip_rate, _rate(w.flip_rate, w.accuracy))
            for w in found.widths
        ],
        logarithmic=True,
    )
    safe = [
        [_named(name), "more than any tried" if bits is None else str(bits)]
        for name, bits in found.safe_bits.items()
    ]
    yield f"<h3>Smallest width with at most {found.share:g} flips a neuron and sample</h3>"
    yield table(["only this population rounded", "bits"], safe, numbers=(1,))


def _rate(rate: float, accuracy: float | None) -> str:
    told = "none" if rate == 0 else f"{rate:.1e}"
    return told if accuracy is None else f"{told}, {_percent(accuracy)}"


def _energy(content: ReportContent) -> Iterator[str]:
    if not content.energies and not content.references:
        yield "<p>There is no estimate: no samples, or no chip with published energies.</p>"
        yield _list("No estimate", content.no_energy)
        return
    rows = []
    for name, found in content.energies.items():
        total, active = found.across_sets_pj, found.dynamic_pj
        rows.append(Bar(name, total.typical, joules(total.typical), total.low, total.high))
        if active == total:
            continue  # nothing is known of its static power
        rows.append(
            Bar(
                f"{name}, without static",
                active.typical,
                joules(active.typical),
                active.low,
                active.high,
                "second",
            )
        )
    for other in content.references:
        dense = other.dense_pj
        rows.append(
            Bar(
                f"{other.chip.name}, artificial, dense",
                dense.typical,
                joules(dense.typical),
                dense.low,
                dense.high,
                "other",
            )
        )
    yield (
        "<p>Energy of one inference, logarithmic; thin lines are the range over published sets. "
        f"{_tag('estimated')} from operations counted in the run and energies from papers. "
        "References are the same network with multiply-adds on ordinary processors, arithmetic "
        "alone where nothing else is published.</p>"
    )
    yield bars(rows, logarithmic=True)
    yield '<div class="sources">'
    for name, found in content.energies.items():
        yield f"<details><summary>{escape(name)}: parts and sources</summary>"
        yield f"<pre>{escape(str(found))}\n\n{escape(found.sources())}</pre></details>"
    for other in content.references:
        yield f"<details><summary>{escape(other.chip.name)}: parts and sources</summary>"
        yield f"<pre>{escape(str(other))}\n\n{escape(other.sources())}</pre></details>"
    yield "</div>"
    yield _list("No estimate", content.no_energy)


def _provenance(content: ReportContent) -> Iterator[str]:
    truth = content.truth
    versions: dict[str, str] = {}
    for run in content.runs.values():
        versions |= run.versions
    about = {
        "network": content.network.graded_fingerprint,
        "samples": f"{content.data}, {truth.n_samples:,}, hash {truth.samples_digest}",
        "input": truth.encoding,
        "weights quantized with": content.calibration,
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
    }
    rows = [[escape(k), f"<code>{escape(v)}</code>"] for k, v in about.items()]
    yield table(["what", ""], rows)
    yield (
        "<p><b>Measured in simulation</b>: spikes that a simulator counted. <b>Emulated</b>: "
        "computed in a chip's integer arithmetic, on this machine; no chip was used. "
        "<b>Estimated</b>: operations times published energies.</p>"
    )
    kept = {key: meaning for key, meaning in EVIDENCE.items()}
    told = ", ".join(f"{key}: {meaning}" for key, meaning in kept.items())
    titles = "; ".join(load_chip(c.chip).title for c in content.fit.chips)
    yield f"<p>Evidence of chip figures: {escape(told)}. Chips: {escape(titles)}.</p>"


def _list(title: str, items: Mapping[str, str]) -> str:
    if not items:
        return ""
    lines = "".join(f"<li><b>{escape(k)}</b> {escape(v)}</li>" for k, v in items.items())
    return f"<details><summary>{escape(title)} ({len(items)})</summary><ul>{lines}</ul></details>"
