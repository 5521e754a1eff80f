"""Files that Keras 3 itself writes compute here what they compute there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim import reference
from whetsim.errors import FormatError
from whetsim.model import Model

pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras

from whetsim import sharpen

from . import keras_models as models
from .keras_models import SCALE

# Keras reads torch tensors in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TIE = 1e-5


def saved(model: keras.Model, path: Path) -> Path:
    with warnings.catch_warnings():
        # Keras calls its HDF5 files outdated.
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def load(path: Path, **options: Any) -> Model:
    return whetsim.load(path, input_scale=SCALE, **options)


def outputs_of_steps(model: keras.Model) -> dict[str, tuple[Any, Any]]:
    """Return what each step reads and makes, for steps that are used once."""
    kinds = (sharpen.SpikingBReLU, sharpen.SpikingSigmoid)
    return {
        layer.name: (layer.input, layer.output)
        for layer in model.layers
        if isinstance(layer, kinds)
    }


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", models.NETWORKS)
def test_network(name: str, suffix: str, tmp_path: Path) -> None:
    model = models.shaken(models.NETWORKS[name]())
    loaded = load(saved(model, tmp_path / f"net{suffix}"))
    x = models.samples(model)
    steps = outputs_of_steps(model)
    tensors = {step: models.values(model, x, output) for step, output in _flat(steps).items()}
    got = reference.forward(loaded, x, given={s: _stored(loaded, s, v) for s, v in tensors.items()})
    n_units = n_ties = 0
    for step, (before, _) in steps.items():
        x_there = _stored(loaded, step, models.values(model, x, before))
        x_here = got[loaded[step].inputs[0]]
        np.testing.assert_allclose(x_here, x_there, rtol=1e-5, atol=1e-5)
        layer = loaded[step]
        assert isinstance(layer, L.Step)
        close = np.abs(x_there - layer.threshold) < TIE
        spikes = _stored(loaded, step, tensors[step])
        np.testing.assert_array_equal(got[step][~close], spikes[~close])
        assert 0.05 < spikes.mean() < 0.95, step
        n_units, n_ties = n_units + close.size, n_ties + int(close.sum())
    assert n_ties <= 0.001 * n_units
    _compare_results(model, loaded, x)


def _flat(steps: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {name: output for name, (_, output) in steps.items()}


def _stored(loaded: Model, step: str, array: np.ndarray) -> np.ndarray:
    """Return a map as it is stored here, channels last."""
    shape = loaded.shapes[step]
    return array if array.shape[1:] == shape else np.moveaxis(array, 1, -1)


def _compare_results(model: keras.Model, loaded: Model, x: np.ndarray) -> None:
    there = models.values(model, x)
    if loaded.readout is not None:
        network = whetsim.map_to_spikes(loaded)
        recording = whetsim.run(network, x, backend="exact")
        assert recording.predictions is not None
        np.testing.assert_array_equal(recording.predictions, there.argmax(axis=1))
        return
    here = reference.forward(loaded, x)[loaded.output]
    np.testing.assert_array_equal(here, _stored(loaded, loaded.output, there))


@pytest.mark.parametrize("name", models.NETWORKS)
def test_runs_as_spikes(name: str, tmp_path: Path) -> None:
    model = models.shaken(models.NETWORKS[name]())
    loaded = load(saved(model, tmp_path / "net.keras"))
    network = whetsim.map_to_spikes(loaded)
    for x in (models.samples(model), models.samples(model, 1), models.samples(model, 0)):
        recording = whetsim.run(network, x, backend="exact", record="rasters")
        compared = whetsim.compare_with_model(loaded, recording, x)
        assert not compared.faults, str(compared)
        assert compared.n_differences <= 0.001 * max(1, len(x) * compared.n_units)


LAYERS = models.single_layers()


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, tmp_path: Path) -> None:
    """Behind each layer a flatten and a dense one, so that no order of units goes unseen."""
    shape, chain = LAYERS[name]
    model = keras.Sequential(
        [
            keras.Input(shape),
            *chain,
            keras.layers.Flatten(data_format="channels_last"),
            keras.layers.Dense(5),
        ]
    )
    models.shaken(model)
    x = models.samples(model, 4)
    there = models.values(model, x)
    for suffix in (".keras", ".h5"):
        loaded = load(saved(model, tmp_path / f"net{suffix}"))
        here = reference.forward(loaded, x)[loaded.output]
        np.testing.assert_allclose(here, there, rtol=2e-5, atol=2e-5 * np.abs(there).max())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_soft_layer_is_refused(suffix: str, tmp_path: Path) -> None:
    layer = sharpen.SpikingBReLU(1.0, name="soft")
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.sharpness = 0.75
    path = saved(model, tmp_path / f"net{suffix}")
    with pytest.raises(FormatError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path.name}: layer 'soft' has sharpness 0.75, so it is not a step function yet; finish "
        "sharpening, or load with assume_sharp=True."
    )
    loaded = load(path, assume_sharp=True)
    assert isinstance(loaded["soft"], L.Step)
    assert loaded.metadata["source"]["remarks"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", [sharpen.SpikingBReLU, sharpen.SpikingSigmoid])
def test_ties_fire_as_in_keras(kind: Any, suffix: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), kind(1.0, name="spikes")])
    path = saved(model, tmp_path / f"net{suffix}")
    loaded = load(path)
    x = np.array([[0, 8, 16], [7, 8, 9]], dtype=np.uint8)
    there = models.values(model, x)
    np.testing.assert_array_equal(reference.forward(loaded, x)["spikes"], there)
    recording = whetsim.run(whetsim.map_to_spikes(loaded), x, backend="exact", record="rasters")
    np.testing.assert_array_equal(recording.raster("spikes"), there.astype(bool))


def test_key_is_kept(tmp_path: Path) -> None:
    loaded = load(saved(models.shaken(models.dense()), tmp_path / "net.keras"))
    assert loaded.readout is not None
    np.testing.assert_array_equal(loaded.readout.key, models.KEY)


def test_export_and_file_are_the_same_network(tmp_path: Path) -> None:
    """The two ways from Keras to whetsim agree in names, weights and spikes."""
    model = models.shaken(models.convolutional("channels_last"))
    exported = sharpen.to_model(model, input_scale=SCALE, input_range=(0, 16))
    loaded = load(saved(model, tmp_path / "net.keras"))
    x = models.samples(model)
    here, there = reference.forward(loaded, x), reference.forward(exported, x)
    steps = [layer.name for layer in exported.layers if isinstance(layer, L.Step)]
    assert steps == [layer.name for layer in loaded.layers if isinstance(layer, L.Step)]
    for name in steps:
        np.testing.assert_array_equal(here[name], there[name])


def test_operator_between_layers(tmp_path: Path) -> None:
    """``a + b`` is an operator in Keras 3, which has no group of weights."""
    x = keras.Input((5,))
    a = models.spikes("a")(keras.layers.Dense(5)(x))
    b = keras.layers.Dense(5)(a)
    model = models.shaken(keras.Model(x, models.spikes("c")(keras.layers.Add()([a, b]) + a)))
    for suffix in (".keras", ".h5"):
        loaded = load(saved(model, tmp_path / f"net{suffix}"))
        samples = models.samples(model)
        here = reference.forward(loaded, samples)[loaded.output]
        np.testing.assert_array_equal(here, models.values(model, samples))


def test_step_as_the_activation_of_a_layer(tmp_path: Path) -> None:
    layer = keras.layers.Dense(3, activation=sharpen.SpikingBReLU(1.0), name="both")
    model = keras.Sequential([keras.Input((3,)), layer])
    with pytest.raises(FormatError, match=r"layer 'both': activation 'whetsim>SpikingBReLU' is"):
        load(saved(model, tmp_path / "net.keras"))
