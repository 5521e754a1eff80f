"""A simulator that is missing or broken gives one clear error with an install line."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

import pytest

import whetsim
from whetsim.backends import support
from whetsim.errors import BackendNotInstalledError, install_line
from whetsim.testing.cases import case

NEEDS = [
    ("brian2", "brian2", "brian2"),
    ("nest", "nest-simulator", "nest"),
    ("pynn.brian2", "PyNN", "brian2,pynn"),
    ("pynn.brian2", "brian2", "brian2,pynn"),
    ("pynn.nest", "PyNN", "nest,pynn"),
    ("pynn.nest", "nest-simulator", "nest,pynn"),
]
IMPORTS = [
    ("brian2", "brian2", "brian2", "brian2"),
    ("nest", "nest", "nest-simulator", "nest"),
    ("pynn.brian2", "pyNN.brian2", "pyNN", "brian2,pynn"),
    ("pynn.nest", "pyNN.nest", "pyNN", "nest,pynn"),
]


@pytest.mark.parametrize("backend, package, extra", NEEDS)
def test_a_missing_package(
    backend: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(support, "version", version)
    smallest = case("smallest")
    with pytest.raises(BackendNotInstalledError) as caught:
        whetsim.run(smallest.network, smallest.samples, backend=backend)
    text = str(caught.value)
    assert text.startswith(f"{backend}: {package} is not installed.")
    assert text.endswith(f"Install it: {install_line(extra)}")
    assert "\n" not in text


@pytest.mark.parametrize("backend, module, package, extra", IMPORTS)
@pytest.mark.parametrize(
    "error",
    [
        ImportError("libgsl.so.27: cannot open shared object file"),
        AttributeError("module 'numpy' has no attribute 'ptp'"),
        OSError("no such library"),
    ],
)
def test_a_package_that_does_not_start(
    backend: str,
    module: str,
    package: str,
    extra: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == module:
            raise error
        # What is imported on the way there is of no interest here.
        return sys.modules.get(name) or (real(name) if "." not in module else FakeModule())

    monkeypatch.setattr(support, "version", lambda name: "1.0")
    monkeypatch.setattr(support, "import_module", import_module)
    smallest = case("smallest")
    with pytest.raises(BackendNotInstalledError) as caught:
        whetsim.run(smallest.network, smallest.samples, backend=backend)
    text = str(caught.value)
    assert text.startswith(f"{backend}: ")
    assert str(error) in text
    assert f'pip install "whetsim[{extra}]"' in text
    assert caught.value.__cause__ is error


class FakeModule:
    """Stands for a simulator that is not installed where the tests run."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __rmul__(self, other: Any) -> Any:
        return self


def test_names_are_known_without_any_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(support, "version", version)
    names = whetsim.backend_names()
    assert {"exact", "brian2", "nest", "pynn.brian2", "pynn.nest"} <= set(names)
    for name in names:
        assert whetsim.get_backend(name).capabilities.encodings
