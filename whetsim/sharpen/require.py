"""Finding Keras and a backend for it, before anything here imports it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from whetsim.errors import BackendNotInstalledError

INSTALL = 'pip install "whetsim[train]"'


def require_keras() -> None:
    """Make `import keras` work, or say how to.

    Keras reads its backend from KERAS_BACKEND, else from its settings file, else it takes
    TensorFlow. Where that one is not installed and torch is, torch is taken.

    Raises
    ------
    BackendNotInstalledError
        If Keras 3 or every backend for it is missing.
    """
    if sys.modules.get("keras") is not None:
        return
    if importlib.util.find_spec("keras") is None:
        raise BackendNotInstalledError(
            f"whetsim.sharpen: keras is not installed (need keras >= 3). Run: {INSTALL}"
        )
    backend = _configured_backend()
    if importlib.util.find_spec(backend) is not None:
        return
    if "KERAS_BACKEND" in os.environ:
        raise BackendNotInstalledError(
            f"whetsim.sharpen: the Keras backend that KERAS_BACKEND names is not installed "
            f"(got {backend!r}). Install it, or unset KERAS_BACKEND and run: {INSTALL}"
        )
    if importlib.util.find_spec("torch") is None:
        raise BackendNotInstalledError(
            f"whetsim.sharpen: keras has no backend (need torch, jax or tensorflow). Run: {INSTALL}"
        )
    os.environ["KERAS_BACKEND"] = "torch"


def _configured_backend() -> str:
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    folder = os.environ.get("KERAS_HOME") or str(Path.home() / ".keras")
    try:
        settings = json.loads((Path(folder) / "keras.json").read_text(encoding="utf-8"))
        return str(settings["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"
