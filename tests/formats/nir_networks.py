"""Networks that the tests of NIR write and read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.model import INPUT, InputSpec, Model, Readout
from whetsim.testing.networks import batch_norm, dense_model

Rng = np.random.Generator


def values(rng: Rng, *shape: int, spread: float = 0.7) -> NDArray[Any]:
    return rng.normal(0, spread, shape).astype(np.float32)


def dense_network(rng: Rng) -> Model:
    """Return three dense layers on a coarse grid, so that many sums tie with the threshold."""
    return dense_model(rng, high=1, skip=False)


def conv_network(rng: Rng) -> Model:
    """Return convolutions with batch norm, a max pool in front of its step, an average pool."""
    layers = (
        L.Conv2D(
            name="conv_a",
            inputs=(INPUT,),
            weight=values(rng, 3, 3, 2, 4, spread=0.4),
            bias=values(rng, 4),
            padding="same",
        ),
        L.MaxPool2D(name="pool_a", inputs=("conv_a",)),
        batch_norm(rng, "norm_a", "pool_a", 4, negative=True),
        L.Step(name="a", inputs=("norm_a",)),
        L.Conv2D(
            name="conv_b",
            inputs=("a",),
            weight=values(rng, 2, 2, 4, 6, spread=0.5),
            strides=(2, 2),
            padding="same",
        ),
        batch_norm(rng, "norm_b", "conv_b", 6, negative=False),
        L.Step(name="b", inputs=("norm_b",), threshold=0.25),
        L.MaxPool2D(name="pool_b", inputs=("b",), pool_size=(2, 2), strides=(1, 1)),
        L.Flatten(name="flat", inputs=("pool_b",)),
        L.Dense(name="dense", inputs=("flat",), weight=values(rng, 24, 8), bias=values(rng, 8)),
        L.Step(name="out", inputs=("dense",), strict=True),
    )
    key = (np.arange(8) % 4 == np.arange(4)[:, None]).astype(np.uint8)
    return Model("conv", InputSpec((10, 12, 2), 0, 15, 1 / 15), layers, readout=Readout(key=key))


def residual_network(rng: Rng) -> Model:
    """Return a network in which two paths meet in one layer."""
    layers = (
        L.Conv2D(name="conv_a", inputs=(INPUT,), weight=values(rng, 3, 3, 1, 4), padding="same"),
        L.Step(name="a", inputs=("conv_a",)),
        L.Conv2D(name="conv_b", inputs=("a",), weight=values(rng, 3, 3, 4, 4), padding="same"),
        batch_norm(rng, "norm_b", "conv_b", 4, negative=False),
        L.Add(name="sum", inputs=("norm_b", "a")),
        L.Step(name="b", inputs=("sum",)),
        L.Flatten(name="flat", inputs=("b",)),
        L.Dense(name="dense", inputs=("flat",), weight=values(rng, 100, 6)),
        L.Step(name="out", inputs=("dense",)),
    )
    return Model("residual", InputSpec((5, 5, 1), 0, 3, 0.25), layers)


def everything(rng: Rng) -> Model:
    """Return a network of every kind of layer that NIR can say, in odd shapes."""
    layers = (
        L.ZeroPad2D(name="border", inputs=(INPUT,), padding=((1, 0), (2, 1))),
        L.Conv2D(
            name="grouped",
            inputs=("border",),
            weight=values(rng, 3, 2, 1, 4),
            bias=values(rng, 4),
            groups=2,
            dilation=(1, 2),
            padding=((1, 0), (2, 1)),
        ),
        L.Step(name="s1", inputs=("grouped",)),
        L.DepthwiseConv2D(name="deep", inputs=("s1",), weight=values(rng, 1, 3, 4, 2)),
        L.Step(name="s2", inputs=("deep",), threshold=0.1, strict=True),
        L.Conv2D(name="shrink", inputs=("s1",), weight=values(rng, 1, 3, 4, 3)),
        batch_norm(rng, "norm", "shrink", 3, negative=True),
        L.Step(name="s3", inputs=("norm",), threshold=-0.25),
        L.Concat(name="both", inputs=("s2", "s3")),
        L.MaxPool2D(
            name="most", inputs=("both",), pool_size=(3, 2), strides=(2, 1), padding="same"
        ),
        L.AveragePool2D(
            name="mean", inputs=("both",), pool_size=(2, 3), strides=(2, 1), padding="same"
        ),
        batch_norm(rng, "mean_norm", "mean", 11, negative=False),
        L.Add(name="sum", inputs=("most", "mean_norm", "most")),
        L.Step(name="s4", inputs=("sum",)),
        L.AveragePool2D(
            name="counted",
            inputs=("s4",),
            padding=((1, 0), (0, 1)),
            count_padding=True,
        ),
        batch_norm(rng, "counted_norm", "counted", 11, negative=True),
        L.MaxPool2D(
            name="real", inputs=("counted_norm",), pool_size=(2, 2), strides=(1, 1), padding="same"
        ),
        batch_norm(rng, "real_norm", "real", 11, negative=True),
        L.GlobalMaxPool2D(name="top", inputs=("real_norm",)),
        L.Step(name="s5", inputs=("top",)),
        L.GlobalMaxPool2D(name="any", inputs=("s4",)),
        L.GlobalAveragePool2D(name="share", inputs=("s4",)),
        L.Concat(name="features", inputs=("any", "share", "s5")),
        L.Reshape(name="fold", inputs=("features",), shape=(3, 11)),
        L.Permute(name="turn", inputs=("fold",), axes=(1, 0)),
        L.Flatten(name="flat", inputs=("turn",)),
        batch_norm(rng, "flat_norm", "flat", 33, negative=True),
        L.Step(name="s6", inputs=("flat_norm",), threshold=0.3),
        L.Dense(name="dense", inputs=("s6",), weight=values(rng, 33, 6)),
        L.Step(name="out", inputs=("dense",)),
    )
    decoder = rng.normal(size=(6, 3))
    readout = Readout(decoder=decoder, bias=np.array([0.5, 0.0, -0.5]))
    return Model("every kind", InputSpec((7, 6, 2), -3, 4, 0.25), layers, readout=readout)
