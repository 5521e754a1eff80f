"""Keras models as `model.export(format="onnx")` writes them, against Keras itself."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.reference import forward

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("onnx", reason="reading ONNX needs the package onnx")
keras: Any = pytest.importorskip("keras", reason="these networks are Keras models")
sharpen: Any = pytest.importorskip("whetsim.sharpen", reason="needs a backend of Keras")

SoftmaxDecode = sharpen.SoftmaxDecode
SpikingBReLU, SpikingSigmoid = sharpen.SpikingBReLU, sharpen.SpikingSigmoid
K = keras.layers
SCALE = 1 / 255
SAMPLES = np.random.default_rng(4).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
CLOSE = 1e-5
# Keras reads torch tensors in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation", "ignore:The structure of `inputs` doesn't match"
)


def spike(name: str, sharpness: float = 1.0) -> Any:
    return SpikingBReLU(sharpness, name=name)


def dense() -> Any:
    key = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [1, 1, 0, 0, 1, 1]])
    return [
        K.Flatten(),
        K.Dense(20, name="d1"),
        SpikingSigmoid(1.0, name="s1"),
        K.Dense(6, name="d2"),
        SpikingBReLU(1.0, straight_through=True, name="s2"),
        SoftmaxDecode(key),
    ]


def convolutional() -> Any:
    return [
        K.Conv2D(4, 3, padding="same", name="c1"),
        K.BatchNormalization(name="n1"),
        spike("s1"),
        K.MaxPooling2D(2),
        K.DepthwiseConv2D(4, padding="same", name="c2"),
        spike("s2"),
        K.AveragePooling2D(2),
        K.Conv2D(5, 2, strides=2, padding="same", name="c3"),
        spike("s3"),
        K.GlobalAveragePooling2D(),
        K.Dense(3, name="d"),
    ]


def autoencoder() -> Any:
    return [
        K.Conv2D(4, 3, strides=2, padding="same", name="c1"),
        spike("s1"),
        K.UpSampling2D(2),
        K.Conv2D(3, 3, padding="same", name="c2"),
        spike("s2"),
        K.Conv2D(4, 3, strides=2, padding="same", name="c3"),
        spike("s3"),
        K.Conv2DTranspose(1, 3, strides=2, padding="same", name="t"),
        spike("s4"),
    ]


NETWORKS = {"dense": dense, "convolutional": convolutional, "autoencoder": autoencoder}


def built(name: str) -> Any:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((8, 8, 1)), *NETWORKS[name]()])
    rng = np.random.default_rng(6)
    for layer in model.layers:
        weights = [w + rng.normal(0, 0.2, w.shape).astype(w.dtype) for w in layer.get_weights()]
        if isinstance(layer, K.BatchNormalization):
            weights = [abs(w) + 0.1 for w in weights]
        if not isinstance(layer, SpikingBReLU | SpikingSigmoid):
            layer.set_weights(weights)
    # Thresholds in the middle of what arrives.
    probe = inputs()
    for layer in model.layers:
        if isinstance(layer, SpikingBReLU | SpikingSigmoid):
            before = keras.Model(model.inputs, layer.input)
            values = np.asarray(keras.ops.convert_to_numpy(before(probe)))
            earlier = reversed(model.layers[: model.layers.index(layer)])
            affine = next(a for a in earlier if a.weights)
            arrays = affine.get_weights()
            # The bias, and beta of a batch norm.
            arrays[1] += layer.threshold - np.median(values, axis=tuple(range(values.ndim - 1)))
            arrays[1] += rng.uniform(-0.01, 0.01, arrays[1].shape).astype(np.float32)
            affine.set_weights(arrays)
    model(probe)
    return model


def inputs() -> Any:
    return SAMPLES.astype(np.float32) * np.float32(SCALE)


def exported(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(path, format="onnx", verbose=False)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_models(name: str, tmp_path: Path) -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.importorskip("tf2onnx", reason="Keras exports with it")
    module = built(name)
    model = whetsim.load(exported(module, tmp_path / "net.onnx"), input_scale=SCALE)
    steps = [layer.name for layer in model.layers if isinstance(layer, L.Step)]
    spiking = [a for a in module.layers if isinstance(a, SpikingBReLU | SpikingSigmoid)]
    assert len(steps) == len(spiking)
    ours = forward(model, SAMPLES)
    recording = whetsim.run(
        whetsim.map_to_spikes(model), SAMPLES, backend="exact", record="rasters"
    )
    for step, layer in zip(steps, spiking, strict=True):
        both = keras.Model(module.inputs, [layer.input, layer.output])(inputs())
        before, wanted = (np.asarray(keras.ops.convert_to_numpy(v)) for v in both)
        assert 0.1 < wanted.mean() < 0.9
        near = np.abs(before - layer.threshold) < CLOSE
        assert near.mean() < 0.001
        for got in (ours[step], recording.raster(step)):
            different = got.reshape(wanted.shape) != wanted
            assert not (different & ~near).any(), step
    if model.readout is not None:
        final = np.asarray(keras.ops.convert_to_numpy(module(inputs())))
        assert np.array_equal(recording.predictions, final.argmax(1))


def test_an_unfinished_model_tells_its_sharpness(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), K.Dense(3), spike("s", 0.75)])
    model(np.zeros((1, 4), np.float32))
    path = exported(model, tmp_path / "net.onnx")
    with pytest.raises(FormatError, match=r"has sharpness 0.75 .* Finish sharpening, or load with"):
        whetsim.load(path, input_scale=SCALE)
    loaded = whetsim.load(path, input_scale=SCALE, assume_sharp=True)
    assert isinstance(loaded[loaded.output], L.Step)
