"""Networks written as NIR and computed by frameworks that know nothing of whetsim.

Each framework reads the file through the packages nir and nirtorch and runs one timestep from rest,
on samples times the input scale. What it takes beyond its own import function is said where it is
done, and in docs/nir.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.formats.near_ties import near_ties
from tests.formats.nir_networks import conv_network, dense_network, residual_network
from whetsim import layers as L
from whetsim.model import INPUT, InputSpec, Model
from whetsim.reference import forward
from whetsim.testing.networks import dense_model, random_samples

torch = pytest.importorskip("torch", reason="the frameworks that read NIR need torch")
nir = pytest.importorskip("nir", reason="the frameworks read files through the package nir")

Run = Callable[[Path, Any], Any]


def norse(path: Path, x: Any) -> Any:
    """Run sample by sample: norse flattens the axis of the samples too."""
    package = pytest.importorskip("norse.torch", reason="norse is not installed")
    network = package.from_nir(nir.read(path))
    return torch.stack([network(sample)[0] for sample in x])


def spikingjelly(path: Path, x: Any) -> Any:
    """Run with a timestep of 1, as an IF node has r = 1 / dt there."""
    exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange",
        reason="spikingjelly is not installed with its extra 'nir'",
    )
    network = exchange.import_from_nir(str(path), dt=1.0)
    return network(x)[0]


def snntorch(path: Path, x: Any) -> Any:
    """Run sample by sample, with neurons that return spikes alone.

    snnTorch imports an IF node as a neuron that returns spikes and membrane, and nirtorch hands
    both on to the next layer.
    """
    package = pytest.importorskip("snntorch", reason="snnTorch is not installed")
    importer = pytest.importorskip("snntorch.import_nir", reason="snnTorch lacks nirtorch")
    if nirtorch_version() < (2, 6):
        pytest.skip("nirtorch before 2.6 hands the state of snnTorch's neurons on to them twice")
    network = importer.import_from_nir(nir.read(path))
    neurons = [m for m in network.modules() if isinstance(m, package.Leaky)]
    for neuron in neurons:
        neuron.init_hidden = True
    results = []
    for sample in x:
        results.append(network(sample)[0])
        for neuron in neurons:
            neuron.reset_mem()
    return torch.stack(results)


def nirtorch_version() -> tuple[int, ...]:
    return tuple(int(part) for part in metadata.version("nirtorch").split(".")[:2])


def sinabs(path: Path, x: Any) -> Any:
    """Run with at most one spike a timestep, as NIR defines it; by default sinabs fires several."""
    package = pytest.importorskip("sinabs.nir", reason="sinabs is not installed")
    from sinabs.activation import SingleSpike
    from sinabs.layers import IAFSqueeze

    network = package.from_nir(nir.read(path), batch_size=len(x))
    for neuron in network.modules():
        if isinstance(neuron, IAFSqueeze):
            neuron.spike_fn = SingleSpike
    return network(x)[0]


FRAMEWORKS: dict[str, Run] = {
    "norse": norse,
    "spikingjelly": spikingjelly,
    "snntorch": snntorch,
    "sinabs": sinabs,
}
FOLLOW_EVERY_PATH = ("spikingjelly", "snntorch")
"""The others use nirtorch's older executor, which computes a sum before a second path is ready."""


KEEP_STRICT_TIES = ("norse", "snntorch")
"""The others fire at v >= v_threshold, where NIR says v > v_threshold."""


def as_samples(model: Model, samples: NDArray[Any]) -> Any:
    """Return samples as NIR has them: times the scale, channels first."""
    x = samples.astype(np.float32) * np.float32(model.input.scale)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1) if x.ndim == 4 else x))


def assert_same_spikes(model: Model, samples: NDArray[Any], found: Any) -> None:
    """Compare with the reference, except samples in which some unit is within rounding."""
    near = near_ties(model, samples, bounds=3)
    assert near.mean() < 0.02
    expected = forward(model, samples)[model.output].reshape(len(samples), -1)
    spikes = found.detach().numpy().reshape(expected.shape)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(spikes[~near], expected[~near])


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("network", [dense_network, conv_network, residual_network])
def test_other_frameworks_compute_the_same_spikes(
    name: str, network: Callable[..., Model], tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    model = network(rng)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    samples = random_samples(rng, model.input, 60)
    found = FRAMEWORKS[name](path, as_samples(model, samples))
    assert_same_spikes(model, samples, found)


@pytest.mark.parametrize("name", FOLLOW_EVERY_PATH)
def test_other_frameworks_follow_a_skip_connection_with_a_layer_of_its_own(
    name: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(12)
    model = dense_model(rng, skip=True)
    path = tmp_path / "network.nir"
    whetsim.save(model, path)
    samples = random_samples(rng, model.input, 60)
    found = FRAMEWORKS[name](path, as_samples(model, samples))
    assert_same_spikes(model, samples, found)


@pytest.mark.parametrize(
    ("name", "strict"),
    [*((name, False) for name in FRAMEWORKS), *((name, True) for name in KEEP_STRICT_TIES)],
)
@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_exact_ties_fire_as_in_the_network(
    name: str, threshold: float, strict: bool, tmp_path: Path
) -> None:
    layers = (
        L.Dense(name="sum", inputs=(INPUT,), weight=np.eye(5, dtype=np.float32) / 4),
        L.Step(name="fires", inputs=("sum",), threshold=threshold, strict=strict),
    )
    model = Model("ties", InputSpec((5,), -4, 4), layers)
    path = tmp_path / "ties.nir"
    whetsim.save(model, path)
    samples = np.array([[1, 2, 3, 0, -1]])
    found = FRAMEWORKS[name](path, as_samples(model, samples)).detach().numpy()
    np.testing.assert_array_equal(found, forward(model, samples)["fires"])
