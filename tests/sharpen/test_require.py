"""Without Keras or a backend for it, the error says what to install."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

IMPORT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
from whetsim.errors import BackendNotInstalledError
try:
    import whetsim.sharpen
except BackendNotInstalledError as error:
    print(error)
"""


def message(missing: list[str], **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    command = [sys.executable, "-c", IMPORT.format(missing=missing)]
    result = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_without_keras_the_install_line_is_given() -> None:
    assert message(["keras"]) == (
        "whetsim.sharpen: keras is not installed (need keras >= 3). "
        'Run: pip install "whetsim[train]"'
    )


def test_without_any_backend_the_install_line_is_given() -> None:
    if not _is_installed("keras"):
        pytest.skip("needs keras: pip install 'whetsim[train]'")
    assert message(["torch", "jax", "tensorflow"]) == (
        "whetsim.sharpen: keras has no backend (need torch, jax or tensorflow). "
        'Run: pip install "whetsim[train]"'
    )


def test_a_backend_asked_for_by_name_is_not_replaced() -> None:
    if not _is_installed("keras"):
        pytest.skip("needs keras: pip install 'whetsim[train]'")
    text = message(["jax"], KERAS_BACKEND="jax")
    assert "the Keras backend that KERAS_BACKEND names is not installed (got 'jax')" in text


def _is_installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None
