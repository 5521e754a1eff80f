"""Files with Whetstone's layers: sharpness, ties, and who decodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim import reference
from whetsim.errors import FormatError
from whetsim.model import Model

from . import keras_files as files

SAMPLE = "whetstone_digits_mlp.h5"
GOLDEN = "whetstone_digits_mlp_golden.npz"
SPIKING = ("spiking_b_relu", "spiking_b_relu_1", "spiking_b_relu_2")


@pytest.fixture(scope="module")
def folder() -> Path:
    default = Path(__file__).parents[3] / "shared" / "samples"
    found = Path(os.environ.get("WHETSIM_SAMPLES", default))
    if not (found / SAMPLE).is_file():
        pytest.skip(f"needs {SAMPLE} in the folder that WHETSIM_SAMPLES names (no {found})")
    return found


@pytest.fixture(scope="module")
def golden(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / GOLDEN) as file:
        return dict(file)


def test_original_network_agrees_spike_for_spike(
    folder: Path, golden: dict[str, np.ndarray]
) -> None:
    model = whetsim.load(folder / SAMPLE, input_scale=1 / 16)
    values = reference.forward(model, golden["x"])
    network = whetsim.map_to_spikes(model)
    recording = whetsim.run(network, golden["x"], backend="exact", record="rasters")
    for name in SPIKING:
        np.testing.assert_array_equal(values[name], golden[name])
        np.testing.assert_array_equal(recording.raster(name), golden[name].astype(bool))
    assert recording.predictions is not None
    np.testing.assert_array_equal(recording.predictions, golden["scores"].argmax(axis=1))


def test_the_matrix_that_was_trained_along_decodes(
    folder: Path, golden: dict[str, np.ndarray]
) -> None:
    model = whetsim.load(folder / SAMPLE, input_scale=1 / 16)
    assert model.readout is not None
    assert model.readout.decoder is not None
    scores = model.readout.scores(golden[SPIKING[-1]])
    scores -= scores.max(axis=1, keepdims=True)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(golden["scores"], expected, atol=1e-5)
    (remark,) = model.metadata["source"]["remarks"]
    assert remark == (
        "the matrix of layer 'softmax__decode' was trained along: it decodes, not the key that it "
        "began with"
    )


def identity(tmp_path: Path, step: dict[str, Any], saved: float | None = None) -> Path:
    """Write a network of one step that reads its input unchanged."""
    model = files.sequential(files.image_input("input_1", 3), step)
    name = step["config"]["name"]
    weights = {} if saved is None else {name: [("Variable:0", np.float32(saved))]}
    return files.write_legacy(tmp_path / "net.h5", model, weights)


@pytest.mark.parametrize(
    ("kind", "fires"), [("Spiking_BRelu", [0, 1, 1]), ("Spiking_Sigmoid", [1, 1, 1])]
)
def test_ties_fire(kind: str, fires: list[int], tmp_path: Path) -> None:
    path = identity(tmp_path, files.step("spikes", kind=kind), saved=1.0)
    model = whetsim.load(path, input_scale=0.5)
    samples = np.array([[0, 1, 2]])
    np.testing.assert_array_equal(reference.forward(model, samples)["spikes"], [fires])
    recording = whetsim.run(
        whetsim.map_to_spikes(model), samples, backend="exact", record="rasters"
    )
    np.testing.assert_array_equal(recording.raster("spikes"), np.array([fires], bool))


@pytest.mark.parametrize("kind", ["Spiking_BRelu", "mypackage>Spiking_BRelu"])
def test_registered_under_any_package(kind: str, tmp_path: Path) -> None:
    model = whetsim.load(identity(tmp_path, files.step("spikes", kind=kind)), input_scale=0.5)
    assert [type(layer) for layer in model.layers] == [L.Step]


@pytest.mark.parametrize(
    ("configured", "saved", "sharpness"),
    [(0.75, None, "0.75"), (1.0, 0.75, "0.75"), (1.0, 0.99999994, "0.99999994"), (0.0, 0.0, "0.0")],
)
def test_soft_layer_is_refused(
    configured: float, saved: float | None, sharpness: str, tmp_path: Path
) -> None:
    step = files.step("spiking_b_relu_2", sharpness=configured)
    path = identity(tmp_path, step, saved=saved)
    with pytest.raises(FormatError) as caught:
        whetsim.load(path, input_scale=0.5)
    assert str(caught.value) == (
        f"net.h5: layer 'spiking_b_relu_2' has sharpness {sharpness}, so it is not a step function "
        "yet; finish sharpening, or load with assume_sharp=True."
    )


@pytest.mark.parametrize(("kind", "threshold"), [("Spiking_BRelu", 0.5), ("Spiking_Sigmoid", 0.0)])
def test_assume_sharp_takes_it_for_a_step(kind: str, threshold: float, tmp_path: Path) -> None:
    path = identity(tmp_path, files.step("soft", kind=kind), saved=0.875)
    model = whetsim.load(path, input_scale=0.5, assume_sharp=True)
    step = model["soft"]
    assert isinstance(step, L.Step)
    assert (step.threshold, step.strict) == (threshold, False)
    (remark,) = model.metadata["source"]["remarks"]
    assert remark == "layer 'soft' has sharpness 0.875 and was taken for a step"


@pytest.mark.parametrize("saved", [np.nan, np.inf])
def test_sharpness_that_is_no_number(saved: float, tmp_path: Path) -> None:
    path = identity(tmp_path, files.step("spikes"), saved=saved)
    with pytest.raises(FormatError, match="layer 'spikes' has sharpness"):
        whetsim.load(path, input_scale=0.5, assume_sharp=True)


def test_saved_sharpness_wins_over_the_configuration(tmp_path: Path) -> None:
    path = identity(tmp_path, files.step("spikes", sharpness=0.25), saved=1.0)
    assert isinstance(whetsim.load(path, input_scale=0.5)["spikes"], L.Step)


KEY = [[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def decoded(
    tmp_path: Path, key: Any, matrix: np.ndarray | None = None, kind: str = "Softmax_Decode"
) -> Model:
    model = files.sequential(
        files.image_input("input_1", 4), files.step("spikes"), files.layer(kind, "out", key=key)
    )
    weights = {} if matrix is None else {"out": [("Variable:0", matrix.astype(np.float32))]}
    return whetsim.load(files.write_legacy(tmp_path / "net.h5", model, weights), input_scale=1)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        {"type": "ndarray", "value": KEY},
        {"class_name": "__numpy__", "config": {"value": KEY, "dtype": "float32"}},
    ],
)
@pytest.mark.parametrize("kind", ["Softmax_Decode", "whetsim>SoftmaxDecode"])
def test_key_of_the_configuration(key: Any, kind: str, tmp_path: Path) -> None:
    model = decoded(tmp_path, key, kind=kind)
    assert model.readout is not None
    np.testing.assert_array_equal(model.readout.key, KEY)
    samples = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]])
    recording = whetsim.run(whetsim.map_to_spikes(model), samples, backend="exact")
    np.testing.assert_array_equal(recording.predictions, [0, 2, 1])


def test_matrix_of_a_key_that_was_not_trained_is_the_key(tmp_path: Path) -> None:
    model = decoded(tmp_path, [[0] * 4] * 3, 2.0 * np.array(KEY).T - 1)
    assert model.readout is not None
    np.testing.assert_array_equal(model.readout.key, KEY)
    assert "remarks" not in model.metadata["source"]


def test_trained_matrix_wins_over_the_key(tmp_path: Path) -> None:
    matrix = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    model = decoded(tmp_path, KEY, matrix)
    assert model.readout is not None
    assert model.readout.key is None
    np.testing.assert_array_equal(model.readout.decoder, matrix)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ([[1, 0, 1]], r"its key has shape \(1, 3\); expected \(classes, 4\)"),
        ("none", "key must be a number or an array"),
        ([[0.5] * 4] * 2, "readout: key must hold 0 and 1 alone"),
    ],
)
def test_key_that_is_none(key: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=text):
        decoded(tmp_path, key)


def test_matrix_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"its matrix has shape \(5, 3\) \(need \(4, classes\)"):
        decoded(tmp_path, KEY, np.zeros((5, 3)))
