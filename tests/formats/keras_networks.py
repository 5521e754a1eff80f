"""Small networks twice: as Keras would have saved them, and as whetsim layers made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.model import InputSpec, Model, Readout

from .keras_files import (
    Weights,
    batch_norm,
    conv,
    dense,
    functional,
    image_input,
    layer,
    sequential,
    step,
)

SCALE = 1 / 16
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A network in a file's own notation, its weights, and the same network made by hand."""

    config: dict[str, Any]
    weights: Weights
    model: Model
    channels_first: bool = False

    def samples(self, n: int = 60) -> Array:
        """Return samples as the model made by hand reads them."""
        rng = np.random.default_rng(7)
        return rng.integers(0, 17, (n, *self.model.input.shape), dtype=np.uint8)

    def as_in_the_file(self, samples: Array) -> Array:
        """Return samples with the axes in the file's order."""
        return np.moveaxis(samples, -1, 1) if self.channels_first else samples


class Drawn:
    """Random weights under the names that Keras gives them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.weights: dict[str, list[tuple[str, Array]]] = {}

    def _add(self, name: str, key: str, array: Array) -> Array:
        values = array.astype(np.float32)
        self.weights.setdefault(name, []).append((f"{name}/{key}:0", values))
        return values

    def kernel(self, name: str, *shape: int, fan_in: int, bias: int) -> dict[str, Array]:
        weight = self._rng.normal(0, 1.5 / np.sqrt(fan_in), shape)
        return {
            "weight": self._add(name, "kernel", weight),
            "bias": self._add(name, "bias", self._rng.normal(0.2, 0.2, bias)),
        }

    def norm(self, name: str, n: int) -> dict[str, Array]:
        return {
            "gamma": self._add(name, "gamma", self._rng.choice([-1.2, 0.8, 1.3], n)),
            "beta": self._add(name, "beta", self._rng.normal(0.5, 0.2, n)),
            "mean": self._add(name, "moving_mean", self._rng.normal(0, 0.2, n)),
            "variance": self._add(name, "moving_variance", self._rng.uniform(0.3, 1.5, n)),
        }

    def sharp(self, name: str) -> None:
        self.weights[name] = [("Variable:0", np.float32(1.0))]


def _model(layers: Sequence[L.Layer], shape: tuple[int, ...], readout: Readout | None) -> Model:
    spec = InputSpec(shape, 0, 16, SCALE)
    return Model("by hand", spec, tuple(layers), layers[-1].name, readout)


def dense_case() -> Case:
    """Dense layers, both of Whetstone's activations, a key that no file has a weight for."""
    drawn = Drawn(1)
    one = drawn.kernel("dense", 20, 30, fan_in=20, bias=30)
    two = drawn.kernel("dense_1", 30, 24, fan_in=30, bias=24)
    drawn.sharp("spiking_b_relu")
    key = np.random.default_rng(2).integers(0, 2, (6, 24))
    config = sequential(
        image_input("dense_input", 20),
        dense("dense", 30),
        step("spiking_b_relu"),
        layer("Dropout", "dropout", rate=0.5),
        dense("dense_1", 24),
        step("spiking_sigmoid", kind="Spiking_Sigmoid"),
        layer("Softmax_Decode", "softmax_decode", key=key.tolist()),
    )
    layers = [
        L.Dense(name="dense", inputs=("input",), **one),
        L.Step(name="spiking_b_relu", inputs=("dense",)),
        L.Dense(name="dense_1", inputs=("spiking_b_relu",), **two),
        L.Step(name="spiking_sigmoid", inputs=("dense_1",), threshold=0.0),
    ]
    return Case(config, drawn.weights, _model(layers, (20,), Readout(key=key)))


def conv_case(channels_first: bool = False) -> Case:
    """Convolution, batch norm, odd and even kernels, strides, pools, flatten, real decoder."""
    drawn = Drawn(3)
    one = drawn.kernel("conv2d", 3, 3, 2, 6, fan_in=18, bias=6)
    norm = drawn.norm("batch_normalization", 6)
    two = drawn.kernel("conv2d_1", 4, 4, 6, 5, fan_in=96, bias=5)
    three = drawn.kernel("dense", 45, 20, fan_in=45, bias=20)
    for name in ("spiking_b_relu", "spiking_b_relu_1", "spiking_b_relu_2"):
        drawn.sharp(name)
    matrix = np.random.default_rng(4).normal(0, 1, (20, 4)).astype(np.float32)
    drawn.weights["softmax__decode"] = [("Variable:0", matrix)]
    order = {"data_format": "channels_first" if channels_first else "channels_last"}
    shape = (2, 11, 11) if channels_first else (11, 11, 2)
    pool = {"pool_size": [2, 2], "strides": [2, 2], "padding": "same"} | order
    config = sequential(
        image_input("conv2d_input", *shape),
        conv("conv2d", 6, 3, padding="same", **order),
        batch_norm("batch_normalization", 1 if channels_first else 3),
        step("spiking_b_relu"),
        layer("MaxPooling2D", "max_pooling2d", **pool),
        conv("conv2d_1", 5, 4, padding="same", strides=[2, 2], **order),
        step("spiking_b_relu_1"),
        layer("Flatten", "flatten", **order),
        dense("dense", 20),
        step("spiking_b_relu_2"),
        layer(
            "Softmax_Decode", "softmax__decode", key={"type": "ndarray", "value": [[0] * 20] * 4}
        ),
    )
    layers = [
        L.Conv2D(name="conv2d", inputs=("input",), padding="same", **one),
        L.BatchNorm(name="bn", inputs=("conv2d",), epsilon=1e-3, **norm),
        L.Step(name="spiking_b_relu", inputs=("bn",)),
        L.MaxPool2D(name="pool", inputs=("spiking_b_relu",), padding="same"),
        L.Conv2D(name="conv2d_1", inputs=("pool",), strides=(2, 2), padding="same", **two),
        L.Step(name="spiking_b_relu_1", inputs=("conv2d_1",)),
        L.Flatten(name="flatten", inputs=("spiking_b_relu_1",)),
        L.Dense(name="dense", inputs=("flatten",), **three),
        L.Step(name="spiking_b_relu_2", inputs=("dense",)),
    ]
    model = _model(layers, (11, 11, 2), Readout(decoder=matrix))
    return Case(config, drawn.weights, model, channels_first)


def residual_case() -> Case:
    """A sum of a skip path and a main path, and two maps side by side; real scores at the end."""
    drawn = Drawn(35)
    one = drawn.kernel("conv2d", 3, 3, 1, 4, fan_in=9, bias=4)
    two = drawn.kernel("conv2d_1", 3, 3, 4, 4, fan_in=36, bias=4)
    three = drawn.kernel("conv2d_2", 1, 1, 8, 5, fan_in=8, bias=5)
    last = drawn.kernel("dense", 5, 3, fan_in=5, bias=3)
    for name in ("a", "b", "c"):
        drawn.sharp(name)
    config = functional(
        image_input("input_1", 6, 6, 1),
        conv("conv2d", 4, 3, "input_1", padding="same"),
        step("a", "conv2d"),
        conv("conv2d_1", 4, 3, "a", padding="same"),
        layer("Add", "add", "conv2d_1", "a"),
        step("b", "add"),
        layer("Concatenate", "concatenate", "a", "b", axis=-1),
        conv("conv2d_2", 5, 1, "concatenate"),
        step("c", "conv2d_2"),
        layer("GlobalAveragePooling2D", "mean", "c", data_format="channels_last"),
        dense("dense", 3, "mean", activation="softmax"),
    )
    layers = [
        L.Conv2D(name="conv2d", inputs=("input",), padding="same", **one),
        L.Step(name="a", inputs=("conv2d",)),
        L.Conv2D(name="conv2d_1", inputs=("a",), padding="same", **two),
        L.Add(name="add", inputs=("conv2d_1", "a")),
        L.Step(name="b", inputs=("add",)),
        L.Concat(name="concatenate", inputs=("a", "b")),
        L.Conv2D(name="conv2d_2", inputs=("concatenate",), **three),
        L.Step(name="c", inputs=("conv2d_2",)),
    ]
    # scores = mean(s) @ W + c over 36 places, written with 2 s - 1.
    mean = np.tile(last["weight"].astype(np.float64), (36, 1)) / 36
    readout = Readout(decoder=mean / 2, bias=last["bias"] + mean.sum(axis=0) / 2)
    return Case(config, drawn.weights, _model(layers, (6, 6, 1), readout))


def autoencoder_case(channels_first: bool = False) -> Case:
    """Strided convolution, transposed convolution, enlargement; the output is spikes."""
    drawn = Drawn(6)
    one = drawn.kernel("conv2d", 3, 3, 1, 6, fan_in=9, bias=6)
    two = drawn.kernel("conv2d_transpose", 4, 4, 5, 6, fan_in=24, bias=5)
    three = drawn.kernel("conv2d_1", 3, 3, 5, 1, fan_in=45, bias=1)
    for name in ("code", "wide", "mask"):
        drawn.sharp(name)
    order = {"data_format": "channels_first" if channels_first else "channels_last"}
    shape = (1, 8, 8) if channels_first else (8, 8, 1)
    config = functional(
        image_input("input_1", *shape),
        conv("conv2d", 6, 3, "input_1", padding="same", strides=[2, 2], **order),
        step("code", "conv2d"),
        conv(
            "conv2d_transpose", 5, 4, "code", kind="Conv2DTranspose", padding="same",
            strides=[2, 2], output_padding=None, **order,
        ),
        step("wide", "conv2d_transpose"),
        layer("UpSampling2D", "up", "wide", size=[2, 1], interpolation="nearest", **order),
        conv("conv2d_1", 1, 3, "up", **order),
        step("mask", "conv2d_1"),
    )  # fmt: skip
    layers = [
        L.Conv2D(name="conv2d", inputs=("input",), padding="same", strides=(2, 2), **one),
        L.Step(name="code", inputs=("conv2d",)),
        L.Conv2DTranspose(name="up_conv", inputs=("code",), padding="same", strides=(2, 2), **two),
        L.Step(name="wide", inputs=("up_conv",)),
        L.Upsample2D(name="up", inputs=("wide",), size=(2, 1)),
        L.Conv2D(name="conv2d_1", inputs=("up",), **three),
        L.Step(name="mask", inputs=("conv2d_1",)),
    ]
    return Case(config, drawn.weights, _model(layers, (8, 8, 1), None), channels_first)


CASES = {
    "dense": dense_case(),
    "conv": conv_case(),
    "conv, channels first": conv_case(channels_first=True),
    "residual": residual_case(),
    "autoencoder": autoencoder_case(),
    "autoencoder, channels first": autoencoder_case(channels_first=True),
}
