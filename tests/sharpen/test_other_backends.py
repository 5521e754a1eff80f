"""The same tests with the other Keras backends that are installed: one process for each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

keras = pytest.importorskip("keras", reason="needs keras: pip install 'whetsim[train]'")

HERE = Path(__file__).resolve().parent
# What can differ between backends: values, gradients, state inside of fit, saving, weights. The
# rest is arithmetic of ours, and compiling it again would take minutes.
CHOICE = {
    "test_layers.py": "",
    "test_export.py": "",
    "test_observe.py": "",
    "test_sharpeners.py": "one_after_another or ends_fully_sharp_and or outside_of_fit or deadline",
    "test_checkpoint.py": "as_if and adaptive",
    "test_diary.py": "does_not_notice or say_what",
}


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_with_another_backend(backend: str) -> None:
    if os.environ.get("KERAS_BACKEND") == backend or keras.backend.backend() == backend:
        pytest.skip(f"{backend} is the backend of this run")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    for name, wanted in CHOICE.items():
        done = subprocess.run(
            [*command, str(HERE / name), "-k", wanted],
            cwd=HERE.parents[1],
            env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        assert " passed" in done.stdout
