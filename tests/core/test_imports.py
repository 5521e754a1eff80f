"""Imports point one way, and ``import whetsim`` needs numpy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import whetsim

PACKAGE = Path(whetsim.__file__).parent

ORDER = (
    {"errors", "progress", "rows"},
    {"layer", "windows", "layers", "model"},
    {"connectivity", "network", "formats", "reference"},
    {"grid", "affine", "mapping", "coding", "recording", "sums", "arithmetic"},
    {"backend"},
    {"registry", "runner"},
    {"backends", "comparison", "margin", "model_comparison", "diagnosis"},
    {"bundled", "datasets", "report"},
    {"shards"},
    {"cli"},
)
"""Parts of the package; a part may import what stands in its own row or above."""
ASIDE = {"sharpen", "testing"}
"""Parts that nothing else may import."""
HEAVY = {"keras", "torch", "tensorflow", "jax"}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def part_of(path: Path) -> str:
    """Return the part of the package that a file belongs to; '' is the package itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the full name of everything a file imports, and whether for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node in for_types


def parts_imported(path: Path) -> set[str]:
    """Return the parts of whetsim that a file imports."""
    names = (name.split(".") for name, _ in imported(path))
    return {name[1] for name in names if name[0] == "whetsim" and len(name) > 1} - {"__version__"}


def row(part: str) -> int:
    """Return where `part` stands in the order."""
    for i, parts in enumerate(ORDER):
        if part in parts:
            return i
    raise AssertionError(f"whetsim.{part} has no place in the order of imports; give it one")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    for other in parts_imported(path) - {part}:
        if part in ASIDE:
            assert other not in ASIDE, f"{part} imports {other}"
        elif part:
            assert other not in ASIDE, f"{part} imports {other}"
            assert row(other) <= row(part), f"{part} imports {other}"


def test_every_part_has_a_place() -> None:
    parts = {part_of(path) for path in modules()} - {""} - ASIDE
    assert parts == set().union(*ORDER) & parts
    for part in parts:
        assert row(part) >= 0


def test_there_is_no_circle() -> None:
    import graphlib

    graph: dict[str, set[str]] = {}
    for path in modules():
        part = part_of(path)
        if part:
            graph.setdefault(part, set()).update(parts_imported(path) - {part})
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_frameworks_are_imported_by_sharpen_alone(path: Path) -> None:
    roots = {name.split(".")[0] for name, _ in imported(path)}
    if part_of(path) != "sharpen":
        assert not roots & HEAVY
    if part_of(path) != "cli":
        assert "whetsim_hardware" not in roots


def test_the_package_itself_imports_the_file_format_and_the_model_alone() -> None:
    names = {n for n, for_types in imported(PACKAGE / "__init__.py") if not for_types}
    parts = {n.split(".")[1] for n in names if n.startswith("whetsim.")}
    assert parts <= {"formats", "model"}


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.strip()


def test_import_needs_numpy_alone() -> None:
    absent = ["scipy", "safetensors", "rich", "typer", "click", "brian2", "nest", "pyNN"]
    absent += ["keras", "torch", "sklearn", "pooch", "matplotlib", "h5py"]
    code = f"import sys, whetsim; print([m for m in {absent} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_import_asks_for_no_entry_points() -> None:
    code = "import sys, whetsim; print('importlib.metadata' in sys.modules)"
    assert run_python(code) == "False"


def test_the_exact_backend_needs_no_simulator() -> None:
    code = (
        "import sys, numpy, whetsim\n"
        "from whetsim.testing.networks import conv_model\n"
        "network = whetsim.map_to_spikes(conv_model(numpy.random.default_rng(0)))\n"
        "whetsim.run(network, numpy.zeros((1, 10, 10, 1), int))\n"
        "print([m for m in ('brian2', 'nest', 'pyNN', 'rich') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


@pytest.mark.parametrize("name", whetsim.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(whetsim, name) is not None


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'whetsim' has no attribute 'lod'"):
        whetsim.lod  # noqa: B018
