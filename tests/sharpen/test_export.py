"""Exported networks compute what Keras computes; what cannot be exported is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import reference
from whetsim.layers import Step
from whetsim.model import Model

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402
from keras import layers  # noqa: E402

# Keras reads torch tensors in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SCALE = 1 / 15
KEY = sharpen.generate_key(4, 16, seed=1)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 16, (40, *shape), dtype=np.uint8)


def spikes(name: str) -> Any:
    return sharpen.SpikingBReLU(1.0, name=name)


def shaken(model: keras.Model) -> keras.Model:
    """Give every weight, bias and batch norm statistic a random value that is not its default."""
    rng = np.random.default_rng(3)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            n = layer.moving_mean.shape[0]
            layer.moving_mean.assign(rng.normal(0, 0.2, n))
            layer.moving_variance.assign(rng.uniform(0.2, 2.0, n))
            if layer.scale:
                layer.gamma.assign(rng.choice([-1.5, 0.7, 1.5], n))
        if getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0.3, 0.3, layer.bias.shape))
        if isinstance(layer, layers.BatchNormalization) and layer.center:
            layer.beta.assign(rng.normal(0.5, 0.3, n))
    return model


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """With other random weights a layer may happen to be nearly silent."""
    keras.utils.set_random_seed(1)


def assert_same_spikes(model: keras.Model, exported: Model, x: np.ndarray) -> None:
    """Compare every step with Keras on the same inputs of that step; only ties may differ."""
    values = reference.forward(exported, x)
    inputs = x.astype(np.float32) * np.float32(SCALE)
    steps = [layer for layer in exported.layers if isinstance(layer, Step)]
    assert steps
    for step in steps:
        keras_layer = model.get_layer(step.name)
        probe = keras.Model(model.inputs, [keras_layer.input, keras_layer.output])
        before, after = (np.asarray(v) for v in probe.predict(inputs, verbose=0))
        differ = after != values[step.name]
        assert (np.abs(before[differ] - step.threshold) < 1e-5).all()
        assert differ.sum() <= 1
        assert 0.02 < after.mean() < 0.98


def test_a_dense_network(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(20, name="dense_1"),
            layers.BatchNormalization(epsilon=0.01, name="norm_1"),
            spikes("spikes_1"),
            layers.Dropout(0.5),
            layers.Dense(16, use_bias=False, name="dense_2"),
            layers.BatchNormalization(scale=False, name="norm_2"),
            spikes("spikes_2"),
            sharpen.SoftmaxDecode(KEY),
        ]
    )
    path = tmp_path / "dense.safetensors"
    shaken(model)
    written = sharpen.export(
        model, path, input_scale=SCALE, input_range=(0, 15), name="dense", metadata={"seed": 1}
    )
    read = whetsim.load(path)
    assert read.name == written.name == "dense"
    assert dict(read.metadata) == {"seed": 1}
    assert (read.input.low, read.input.high, read.input.scale) == (0, 15, SCALE)
    assert [layer.name for layer in read.layers] == [
        "dense_1",
        "norm_1",
        "spikes_1",
        "dense_2",
        "norm_2",
        "spikes_2",
    ]
    assert_same_spikes(model, read, samples(12))
    assert read.readout is not None
    np.testing.assert_array_equal(read.readout.key, KEY)
    inputs = samples(12).astype(np.float32) * np.float32(SCALE)
    outputs = reference.forward(read, samples(12))["spikes_2"]
    expected = model.predict(inputs, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(read.readout.scores(outputs).argmax(axis=1), expected)


def test_convolutions_pools_and_skips() -> None:
    entry = keras.Input((8, 10, 2))
    x = layers.Conv2D(6, 3, strides=2, padding="same", groups=2, name="conv")(entry)
    x = layers.BatchNormalization(name="norm")(x)
    early = spikes("spikes_1")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same", name="depthwise")(early)
    x = spikes("spikes_2")(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="transposed")(x)
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.Add(name="add")([x, early])
    x = spikes("spikes_3")(x)
    x = layers.Concatenate(name="concat")([x, early])
    x = layers.UpSampling2D(2, name="upsample")(x)
    x = layers.Permute((2, 1, 3), name="permute")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(x)
    x = layers.Conv2D(5, 2, dilation_rate=2, name="dilated")(x)
    x = spikes("spikes_4")(x)
    x = layers.Reshape((-1,), name="reshape")(x)
    x = layers.Dense(16, name="dense")(x)
    x = spikes("spikes_5")(x)
    model = shaken(keras.Model(entry, sharpen.SoftmaxDecode(KEY)(x)))
    exported = sharpen.to_model(model, input_scale=SCALE, input_range=(0, 15))
    assert exported.output == "spikes_5"
    assert_same_spikes(model, exported, samples(8, 10, 2))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_transposed_convolutions_have_keras_geometry(
    padding: str, kernel: int, strides: int
) -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 5, 2)),
            layers.Conv2DTranspose(3, kernel, strides=strides, padding=padding, name="transposed"),
            spikes("mask"),
        ]
    )
    exported = sharpen.to_model(shaken(model), input_scale=SCALE)
    assert exported.readout is None
    assert exported.shapes["mask"] == tuple(model.output_shape[1:])
    assert_same_spikes(model, exported, samples(4, 5, 2))


def test_inner_models_and_layers_used_twice() -> None:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="d"), spikes("s")], name="in")
    entry = keras.Input((6,))
    model = shaken(keras.Model(entry, inner(inner(entry))))
    exported = sharpen.to_model(model, input_scale=SCALE)
    assert [layer.name for layer in exported.layers] == ["in/d", "in/s", "in/d_use2", "in/s_use2"]
    values = reference.forward(exported, samples(6))
    inputs = samples(6).astype(np.float32) * np.float32(SCALE)
    np.testing.assert_array_equal(values["in/s_use2"], model.predict(inputs, verbose=0))


def test_a_loaded_model_is_exported_the_same(tmp_path: Path) -> None:
    model = shaken(keras.Sequential([keras.Input((6,)), layers.Dense(16), spikes("s")]))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for source, file in zip((model, again), files, strict=True):
        sharpen.export(source, file, input_scale=SCALE)
    assert files[0].read_bytes() == files[1].read_bytes()


def chain(*parts: Any) -> keras.Model:
    return keras.Sequential([keras.Input((6,)), *parts], name="net")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            [lambda: sharpen.SpikingBReLU(0.75, name="spikes_1"), lambda: spikes("spikes_2")],
            r"^layer 'spikes_1': it has sharpness 0.75, so it is not a step function yet",
        ),
        (
            [lambda: layers.Dense(4, activation="relu", name="dense"), lambda: spikes("s")],
            r"^layer 'dense': it has an activation of its own \(got relu; need none\)",
        ),
        (
            [lambda: layers.LayerNormalization(name="norm"), lambda: spikes("s")],
            r"^layer 'norm': no export for this kind of layer \(got LayerNormalization; need Spik",
        ),
        (
            [lambda: spikes("s"), lambda: layers.Dense(4, name="dense")],
            r"^model 'net': its output comes from 'dense', which has no spikes.",
        ),
        (
            [lambda: sharpen.SoftmaxDecode(np.eye(6), name="decode"), lambda: spikes("s")],
            r"^layer 'decode': SoftmaxDecode can only be the last layer.",
        ),
    ],
)
def test_refusals(parts: list[Any], text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(sharpen.TrainingError, match=text):
        sharpen.export(chain(*(part() for part in parts)), path, input_scale=SCALE)
    assert not path.exists()


def test_sharpness_just_below_one_is_refused() -> None:
    with pytest.raises(sharpen.TrainingError, match=r"it has sharpness 0\.999999, so it is not"):
        sharpen.to_model(chain(sharpen.SpikingBReLU(0.999999)), input_scale=SCALE)


def test_operations_and_open_shapes_are_refused() -> None:
    entry = keras.Input((6,))
    model = keras.Model(entry, spikes("s")(entry + entry))
    with pytest.raises(sharpen.TrainingError, match=r"it is no layer \(got .*; need layers alone"):
        sharpen.to_model(model, input_scale=SCALE)
    entry = keras.Input((None, 6))
    with pytest.raises(sharpen.TrainingError, match="its shape is not fixed"):
        sharpen.to_model(keras.Model(entry, spikes("s")(entry)), input_scale=SCALE)


def test_two_outputs_and_models_without_a_graph_are_refused() -> None:
    entry = keras.Input((6,))
    model = keras.Model(entry, [spikes("a")(entry), spikes("b")(entry)], name="net")
    with pytest.raises(sharpen.TrainingError, match=r"net.* has 1 inputs and 2 outputs"):
        sharpen.to_model(model, input_scale=SCALE)
    with pytest.raises(sharpen.TrainingError, match="it has no graph to export"):
        sharpen.to_model(keras.Sequential([spikes("s")]), input_scale=SCALE)


def test_channels_first_is_refused() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 4, 4)),
            layers.MaxPooling2D(2, data_format="channels_first", name="pool"),
            spikes("s"),
        ]
    )
    with pytest.raises(sharpen.TrainingError, match="'pool': data_format is 'channels_first'"):
        sharpen.to_model(model, input_scale=SCALE)
