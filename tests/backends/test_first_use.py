"""The first run of a process, imports and all, prints nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.simulator

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
import numpy as np
import whetsim
from whetsim.errors import BackendNotInstalledError
from whetsim.testing.cases import case
from whetsim.testing.checks import check_recording

busy = case("every_delay")
try:
    for schedule in ("pipelined", "sequential"):
        recording = whetsim.run(
            busy.network, busy.samples, backend=sys.argv[1], schedule=schedule, record="rasters"
        )
        check_recording(busy.expected("graded"), recording, sys.argv[1])
except BackendNotInstalledError as error:
    raise SystemExit(3)
"""


@pytest.mark.parametrize("backend", ["exact", "brian2", "nest", "pynn.brian2", "pynn.nest"])
def test_nothing_is_printed(backend: str, tmp_path: Path) -> None:
    paths = [str(ROOT), str(ROOT / "hardware"), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, backend],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 3:
        pytest.skip(f"{backend} is not installed")
    assert result.returncode == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "")
    assert not list(tmp_path.iterdir()), "files were left in the working folder"
