"""The trained networks give equal spikes on exact, Brian2 and NEST; no data set is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import whetsim
from whetsim.errors import BackendNotInstalledError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "benchmarks" / "networks").glob("*.safetensors"))
N_SAMPLES = 6
assert FILES


def blobs(shape: tuple[int, ...], high: int) -> np.ndarray:
    """Return smooth bright spots on black, as unlike noise as images are; whole numbers."""
    rng = np.random.default_rng(1)
    if len(shape) == 1:
        return rng.integers(0, high + 1, (N_SAMPLES, *shape))
    noise = rng.normal(size=(N_SAMPLES, *shape))
    smooth = ndimage.gaussian_filter(noise, sigma=(0, 2, 2, 0))
    return np.rint(np.clip(smooth / smooth.max(), 0, 1) * high).astype(np.int64)


@pytest.mark.simulator
@pytest.mark.parametrize("backend", ["brian2", "nest"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_not_one_spike_differs(path: Path, backend: str) -> None:
    model = whetsim.load(path)
    samples = blobs(model.input.shape, model.input.high)
    network = whetsim.map_to_spikes(model)
    truth = whetsim.run(network, samples, record="rasters")
    # The last may be silent: where nothing is to be seen, a mask is empty.
    assert all(truth.raster(p.name).any() for p in network.populations[:-1])
    try:
        recording = whetsim.run(network, samples, backend=backend, record="rasters")
    except BackendNotInstalledError as error:
        pytest.skip(str(error))
    result = whetsim.compare(truth, recording)
    assert result.n_differences == 0, str(result)
    against_model = whetsim.compare_with_model(model, truth)
    assert not against_model.faults, str(against_model)
