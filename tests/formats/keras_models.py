"""Networks built with Keras, shaken so that nothing in them is a default, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from whetsim import sharpen

SCALE = 1 / 16
KEY = sharpen.generate_key(6, 24, seed=2)


def spikes(name: str | None = None) -> Any:
    return sharpen.SpikingBReLU(1.0, name=name)


def centred(name: str | None = None) -> Any:
    return sharpen.SpikingSigmoid(1.0, name=name)


def shaken(model: keras.Model, seed: int = 3) -> keras.Model:
    """Give every weight a random value, so that units fire in part of the samples."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, (keras.Model, sharpen.SpikingBReLU, sharpen.SpikingSigmoid)):
            continue
        for variable in layer.weights:
            shape, name = tuple(variable.shape), variable.name
            if name == "count":
                continue
            if "variance" in name:
                value = rng.uniform(0.3, 1.5, shape)
            elif name == "gamma":
                value = rng.choice([-1.2, 0.8, 1.3], shape)
            elif name in ("bias", "beta"):
                value = rng.normal(0.3, 0.2, shape)
            elif name in ("moving_mean", "mean"):
                value = rng.normal(0.0, 0.2, shape)
            else:
                value = rng.normal(0.0, 1.5 / np.sqrt(np.prod(shape[:-1])), shape)
            variable.assign(value.astype(np.float32))
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return model


def samples(model: keras.Model, n: int = 50) -> NDArray[np.uint8]:
    shape = tuple(model.inputs[0].shape[1:])
    return np.random.default_rng(4).integers(0, 17, (n, *shape), dtype=np.uint8)


def values(model: keras.Model, x: NDArray[np.uint8], output: Any = None) -> NDArray[np.float32]:
    """Return what Keras computes for integer samples, or what comes out of one of its layers."""
    if output is not None:
        model = keras.Model(model.inputs[0], output)
    result = model(x.astype(np.float32) * np.float32(SCALE))
    return np.asarray(keras.ops.convert_to_numpy(result))


def dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(30, name="one"),
            spikes("a"),
            layers.Dropout(0.3),
            layers.Dense(24),
            layers.BatchNormalization(scale=False),
            centred("b"),
            layers.Dense(24),
            spikes("c"),
            sharpen.SoftmaxDecode(KEY),
        ]
    )


def convolutional(order: str) -> keras.Model:
    first = order == "channels_first"
    options: dict[str, Any] = {"data_format": order}
    return keras.Sequential(
        [
            keras.Input((2, 11, 11) if first else (11, 11, 2)),
            layers.Conv2D(6, 3, padding="same", **options),
            layers.BatchNormalization(axis=1 if first else -1),
            spikes(),
            layers.MaxPooling2D(2, **options),
            layers.Conv2D(5, 4, strides=2, padding="same", use_bias=False, **options),
            layers.BatchNormalization(axis=1 if first else -1, center=False),
            centred(),
            layers.AveragePooling2D(2, 1, **options),
            layers.Conv2D(6, 2, **options),
            spikes(),
            layers.Flatten(**options),
            layers.Dense(24),
            spikes(),
            sharpen.SoftmaxDecode(KEY),
        ]
    )


def residual() -> keras.Model:
    x = keras.Input((8, 8, 2))
    a = spikes("a")(layers.Conv2D(6, 3, padding="same")(x))
    y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(a))
    b = spikes("b")(layers.Add()([y, a]))
    c = centred("c")(layers.Conv2D(4, 1)(layers.Concatenate()([b, a])))
    other = spikes("other")(layers.Conv2D(4, 1)(a))
    d = spikes("d")(layers.Conv2D(4, 3)(layers.Subtract()([c, other])))
    e = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(d))
    return keras.Model(x, e)


def autoencoder(order: str) -> keras.Model:
    first = order == "channels_first"
    options: dict[str, Any] = {"data_format": order}
    encoder = keras.Sequential(
        [
            keras.Input((1, 8, 8) if first else (8, 8, 1)),
            layers.Conv2D(6, 3, strides=2, padding="same", **options),
            layers.BatchNormalization(axis=1 if first else 3),
            spikes("code"),
        ],
        name="encoder",
    )
    z = keras.Input((6, 4, 4) if first else (4, 4, 6))
    y = layers.Conv2DTranspose(5, 4, strides=2, padding="same", **options)(z)
    y = spikes("wide")(layers.BatchNormalization(axis=1 if first else 3)(y))
    y = layers.Conv2D(3, 3, **options)(layers.UpSampling2D((2, 1), **options)(y))
    decoder = keras.Model(z, centred("mask")(y), name="decoder")
    x = keras.Input((1, 8, 8) if first else (8, 8, 1))
    return keras.Model(x, decoder(encoder(x)))


def shared() -> keras.Model:
    """One layer and two inner networks that are used more than once."""
    block = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6), layers.BatchNormalization(), spikes("s")], name="block"
    )
    z = keras.Input((6,))
    graph = keras.Model(z, centred("g")(layers.Dense(6)(z)), name="graph")
    x = keras.Input((6,))
    a = graph(block(x))
    b = graph(block(a))
    twice = layers.Dense(6, name="twice")
    return keras.Model(x, block(spikes("last")(layers.Average()([twice(a), twice(b)]))))


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "dense": dense,
    "convolutional": lambda: convolutional("channels_last"),
    "convolutional, channels first": lambda: convolutional("channels_first"),
    "residual": residual,
    "autoencoder": lambda: autoencoder("channels_last"),
    "autoencoder, channels first": lambda: autoencoder("channels_first"),
    "shared": shared,
}


def _orders(make: Callable[..., Any], *arguments: Any, **options: Any) -> list[list[Any]]:
    return [
        [make(*arguments, data_format=order, **options)]
        for order in ("channels_last", "channels_first")
    ]


def single_layers() -> dict[str, tuple[tuple[int, ...], list[Any]]]:
    """Return layers to be tried by themselves, each with the shape that it reads."""
    tried: dict[str, tuple[tuple[int, ...], list[Any]]] = {}

    def add(shape: tuple[int, ...], *chains: list[Any]) -> None:
        for chain in chains:
            first = getattr(chain[0], "data_format", None) == "channels_first"
            own = (shape[-1], *shape[:-1]) if first else shape
            tried[f"{len(tried)} {type(chain[0]).__name__}"] = (own, chain)

    for kernel, stride, padding in (
        (3, 1, "same"),
        (4, 2, "same"),
        (2, 3, "valid"),
        (5, 1, "valid"),
    ):
        window = {"strides": stride, "padding": padding}
        add((7, 6, 4), *_orders(layers.Conv2D, 6, kernel, activation="tanh", **window))
        add((7, 6, 4), *_orders(layers.DepthwiseConv2D, kernel, depth_multiplier=2, **window))
        add((7, 6, 4), *_orders(layers.Conv2DTranspose, 5, kernel, **window))
        add((7, 6, 4), *_orders(layers.MaxPooling2D, min(kernel, 4), **window))
    add((7, 6, 4), *_orders(layers.Conv2D, 6, 3, groups=2, dilation_rate=2))
    add((7, 6, 4), *_orders(layers.SeparableConv2D, 6, 3, depth_multiplier=2, strides=2))
    add((7, 6, 4), *_orders(layers.Conv2DTranspose, 5, 3, strides=2, output_padding=1))
    add((7, 6, 4), *_orders(layers.Conv2DTranspose, 5, 3, 2, padding="same", output_padding=1))
    add((7, 6, 4), *_orders(layers.AveragePooling2D, 3, 1, padding="same"))
    add((7, 6, 4), *_orders(layers.AveragePooling2D, 2))
    add((7, 6, 4), *_orders(layers.GlobalMaxPooling2D))
    add((7, 6, 4), *_orders(layers.GlobalAveragePooling2D, keepdims=True))
    add((7, 6, 4), *_orders(layers.UpSampling2D, (2, 3)))
    add((7, 6, 4), *_orders(layers.ZeroPadding2D, ((1, 2), (3, 0))))
    add((7, 6, 4), *_orders(layers.Flatten))
    add((7, 6, 4), [layers.BatchNormalization(axis=2, epsilon=0.01)])
    add((9, 4), *_orders(layers.Conv1D, 5, 3, strides=2, padding="same"))
    add((9, 4), *_orders(layers.Conv1DTranspose, 5, 4, strides=2))
    add((9, 4), *_orders(layers.SeparableConv1D, 5, 3))
    add((9, 4), *_orders(layers.DepthwiseConv1D, 3, padding="same"))
    add((9, 4), *_orders(layers.MaxPooling1D, 2, padding="same"))
    add((9, 4), *_orders(layers.AveragePooling1D, 3, 2))
    add((9, 4), *_orders(layers.GlobalAveragePooling1D))
    add((9, 4), [layers.Conv1D(5, 3, padding="causal", dilation_rate=2)])
    add((9, 4), [layers.UpSampling1D(2)], [layers.ZeroPadding1D((1, 2))], [layers.Dense(3)])
    add((5, 6, 7, 2), *_orders(layers.Conv3D, 3, 3, strides=2, padding="same"))
    add((5, 6, 7, 2), *_orders(layers.MaxPooling3D, 2), *_orders(layers.AveragePooling3D, 2))
    add((5, 6, 7, 2), *_orders(layers.GlobalAveragePooling3D))
    add((5, 6, 4), [layers.Dense(3, activation="sigmoid")])
    add((6, 4, 2), [layers.Reshape((4, -1)), layers.Permute((2, 1)), layers.Dense(2)])
    add((6, 4, 2), [layers.Permute((3, 1, 2)), layers.Reshape((8, 6)), layers.Dense(3)])
    add((6, 4, 2), [layers.Rescaling(0.5, offset=-0.5), layers.GaussianNoise(0.1)])
    add((6, 4, 2), [layers.Rescaling([0.5, 2.0], offset=[1.0, 2.0])])
    add((6, 4, 2), [layers.Normalization(mean=[2.0, 3.0], variance=[4.0, 0.0])])
    for axis in (-1, None, 1, (1, 2)):
        add((6, 4, 2), [layers.Normalization(axis=axis)])
    add((6,), [layers.Dense(8), layers.ReLU(), layers.Dense(8), layers.ReLU(max_value=1.0)])
    add((6,), [layers.Activation("linear"), layers.Dense(5, use_bias=False)])
    return tried
