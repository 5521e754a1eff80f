"""Set up for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("whetsim.testing")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder with the original MNIST and Fashion-MNIST files, or skip."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("WHETSIM_DATA", default))
    if not (folder / "mnist" / "t10k-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"needs the MNIST files in the folder that WHETSIM_DATA names (no {folder})")
    return folder
