"""What commands read: networks, samples, options of backends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from whetsim.cli.app import Doing
from whetsim.errors import SampleError, UnsupportedError, did_you_mean

if TYPE_CHECKING:
    from whetsim.formats import Reading
    from whetsim.model import Model
    from whetsim.recording import Recording

__all__ = [
    "data_name",
    "load_network",
    "options_of",
    "prepare_all",
    "read_network",
    "reading_of",
    "run_one",
    "samples_of",
]


def load_network(
    net: str,
    input_scale: str | None = None,
    input_range: str | None = None,
    assume_sharp: bool = False,
    guess_input: bool = False,
) -> Model:
    return read_network(net, reading_of(input_scale, input_range, assume_sharp, guess_input))


def read_network(net: str, reading: Reading) -> Model:
    from whetsim.bundled import find_network
    from whetsim.formats import read

    return read(find_network(net), reading)


def reading_of(
    input_scale: str | None,
    input_range: str | None,
    assume_sharp: bool,
    guess_input: bool = False,
) -> Reading:
    from whetsim.formats import Reading

    return Reading(_scale(input_scale), _range(input_range), assume_sharp, guess_input)


def _scale(text: str | None) -> float | None:
    """Return the number that '1/255' or '0.5' means."""
    if text is None:
        return None
    over, _, under = text.partition("/")
    try:
        return float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        raise SampleError(
            f"input-scale: need a number or a fraction (got {text!r}; for example 1/255)."
        ) from None


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not re.fullmatch(r" *-?[0-9]{1,9} *, *-?[0-9]{1,9} *", text):
        raise SampleError(
            f"input-range: need two whole numbers with a comma between (got {text!r}; for example "
            "0,255)."
        )
    low, high = text.split(",")
    return int(low), int(high)


def samples_of(
    model: Model,
    data: str | None,
    data_dir: str | None,
    split: str,
    limit: int | None,
    levels: str | None = None,
) -> tuple[Any, Any]:
    from whetsim import datasets

    name = data_name(model, data)
    images, labels = datasets.load(name, split=split, data_dir=data_dir)  # type: ignore[arg-type]
    images, labels = images[:limit], labels[:limit]
    n_planes = model.input.shape[-1]
    return _cut(images, levels, model.metadata.get("input_levels"), n_planes), labels


def data_name(model: Model, data: str | None) -> str:
    from whetsim import datasets

    name = data or model.metadata.get("dataset")
    if not isinstance(name, str):
        raise SampleError(
            f"data: {model.name!r} names no data set. Give --data mnist, for example; there are: "
            f"{', '.join(datasets.NAMES)}, or an .npz file with x and y."
        )
    return name


def _cut(images: Any, levels: str | None, trained: Any, n_planes: int) -> Any:
    """Return the images as binary planes if asked for, or if the network was trained on them."""
    from whetsim import datasets

    if levels is not None:
        if not re.fullmatch(r" *-?[0-9]{1,9} *(, *-?[0-9]{1,9} *)*", levels):
            raise SampleError(
                f"levels: need whole numbers with commas between (got {levels!r}; for example "
                "64,128)."
            )
        return datasets.threshold_planes(images, [int(n) for n in levels.split(",")])
    # Otherwise they are planes already. The file is hostile: only as many levels as it has planes.
    if isinstance(trained, (list, tuple)) and images.ndim == 3 and len(trained) == n_planes:
        return datasets.threshold_planes(images, trained)
    return images


def options_of(given: list[str] | None, backend: str) -> dict[str, Any]:
    from whetsim.registry import get_backend

    result: dict[str, Any] = {}
    known = get_backend(backend).options
    for item in given or ():
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UnsupportedError(f"option {item!r}: need NAME=VALUE, for example threads=2.")
        if name not in known:
            raise UnsupportedError(
                f"{backend}: no option {name!r}; it has: {', '.join(known) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
        result[name] = int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else value
    return result


def prepare_all(names: list[str]) -> None:
    """Refuse an unknown or missing backend before the first one has run."""
    from whetsim.registry import get_backend

    for name in names:
        get_backend(name).versions()


def run_one(network: Any, images: Any, name: str, **options: Any) -> Recording:
    from whetsim.progress import progress_reporter
    from whetsim.runner import run as run_network

    total = len(images)
    with progress_reporter(True, total, name) as tell:

        def note(done: int, _: int) -> None:
            Doing.now = f" while {name} had done {done:,} of {total:,} samples; nothing was written"
            tell(done)

        note(0, total)
        return run_network(network, images, backend=name, progress=note, **options)
