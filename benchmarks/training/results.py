"""Print what the trained networks were measured to do, from the metadata of their files.

    python benchmarks/training/results.py [FILE ...]

All of benchmarks/networks by default. The table is the one of docs/training.md; a test compares
them. Needs neither Keras nor data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import whetsim
from whetsim.model import Model

ROOT = Path(__file__).resolve().parents[2]
HEAD = (
    "| network | input | score | before sharpening | just sharp | fine-tuned, spiking "
    "| spikes per sample | training | bytes |",
    "|---|---|---|---|---|---|---|---|---|",
)


def networks() -> list[Path]:
    """Return the files of all networks that come with the project."""
    bundled = sorted((ROOT / "whetsim" / "networks").glob("*.safetensors"))
    return bundled + sorted((ROOT / "benchmarks" / "networks").glob("*.safetensors"))


def row(path: Path) -> str:
    """Return one line of the table."""
    model = whetsim.load(path)
    told: Any = model.metadata
    score, numbers, counts = _measured(told)
    spikes = sum(count for name, count in counts.items() if name != "input")
    cells = [
        f"`{path.stem}`",
        _input(model),
        score,
        *(_written(score, number) for number in numbers),
        f"{spikes:,.0f}",
        _duration(told["training"]["seconds"]),
        f"{path.stat().st_size:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _measured(told: Any) -> tuple[str, list[float], dict[str, float]]:
    """Return the name of the score, its values along the training, and spikes per population."""
    if "length_spiking" in told:  # an agent: steps before it fails
        moments = ("before_sharpening", "just_sharp", "spiking")
        lengths = [told[f"length_{moment}"]["mean"] for moment in moments]
        return "steps of 500", lengths, told["spikes_per_step"]
    ending = "_after_sharpening"
    (score,) = (key.removesuffix(ending) for key in told if key.endswith(ending))
    moments = (f"{score}_before_sharpening", f"{score}_after_sharpening", score)
    return score, [told[moment] for moment in moments], told["spikes_per_sample"]


def _input(model: Model) -> str:
    levels: Any = model.metadata.get("input_levels")
    if levels:
        return f"{len(levels)} binary plane{'s' if len(levels) > 1 else ''}"
    return f"0 to {model.input.high}"


def _written(score: str, number: float) -> str:
    if score.startswith("steps"):
        return f"{number:.1f}"
    return f"{100 * number:.2f} %" if "accuracy" in score else f"{number:.3f}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def table(paths: Iterable[Path]) -> str:
    """Return the whole table, Markdown."""
    return "\n".join([*HEAD, *(row(path) for path in paths)])


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]] or networks()))
