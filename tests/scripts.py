"""The training scripts, for tests: they are in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "training"


def load_script(name: str) -> ModuleType:
    """Return a script of benchmarks/training that imports no other, by its name without ending."""
    path = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"whetsim_benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
