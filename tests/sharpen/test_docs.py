"""The example of docs/training.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'whetsim[digits]'")

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_trains_a_spiking_network(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 45
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    # A process of its own, so that the example's imports are the first ones.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    text, _, accuracy = result.stdout.strip().splitlines()[-1].rpartition(" ")
    assert text == "accuracy of the spiking network:"
    assert float(accuracy) > 0.85
