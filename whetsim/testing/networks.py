"""Small networks for tests: with ties, large biases, every kind of layer, and random ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.model import INPUT, InputSpec, Model, Readout

__all__ = ["all_kinds", "conv_model", "dense_model", "random_samples", "ties_and_biases"]

Rng = np.random.Generator


def coarse(rng: Rng, shape: Sequence[int], step: float = 0.25, spread: int = 4) -> L.FloatArray:
    """Return weights on a grid so coarse that sums often tie with the threshold."""
    return (rng.integers(-spread, spread + 1, size=tuple(shape)) * step).astype(np.float32)


def dense_model(
    rng: Rng,
    sizes: Sequence[int] = (12, 10, 8, 6),
    *,
    high: int = 1,
    n_classes: int = 3,
    skip: bool = True,
) -> Model:
    """Return a dense network; with `skip`, the first step layer also feeds the last one."""
    layers: list[L.Layer] = []
    source = INPUT
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        weight = coarse(rng, (n_in, n_out))
        bias = coarse(rng, (n_out,))
        layers.append(L.Dense(name=f"dense_{i}", inputs=(source,), weight=weight, bias=bias))
        source = f"dense_{i}"
        if skip and i == len(sizes) - 2 and i >= 2:
            extra = coarse(rng, (sizes[1], n_out))
            layers.append(L.Dense(name="skip", inputs=("step_0",), weight=extra))
            layers.append(L.Add(name="sum", inputs=(source, "skip")))
            source = "sum"
        layers.append(L.Step(name=f"step_{i}", inputs=(source,)))
        source = f"step_{i}"
    key = (np.arange(sizes[-1]) % n_classes == np.arange(n_classes)[:, None]).astype(np.uint8)
    spec = InputSpec((sizes[0],), 0, high, 1.0 if high == 1 else 1 / high)
    return Model("dense", spec, tuple(layers), readout=Readout(key=key))


def ties_and_biases() -> Model:
    """Return a network whose neurons tie exactly, fire without input, or never fire.

    Its input is four binary values. Neuron by neuron the first population has: a tie with one
    spike; bias exactly 0.5 (fires always); bias above it; a tie that a negative weight breaks;
    bias just below 0.5 by one part in 2^20; no synapse and no bias.
    """
    weight = np.array(
        [
            [0.5, 0.0, 0.25, 1.0, 0.0, 0.0],
            [0.5, 0.0, -0.5, -0.5, 0.0, 0.0],
            [0.0, 0.0, -0.5, 0.0, 2.0**-20, 0.0],
            [0.0, -0.25, 0.0, 0.25, 0.0, 0.0],
        ],
        dtype=np.float32,
    )
    bias = np.array([0.0, 0.5, 0.75, 0.0, 0.5 - 2.0**-20, 0.0], dtype=np.float32)
    mix = np.array(
        [[0.25, 1], [0.25, -1], [0.0, 0.5], [-0.25, 0], [0.25, 0.5], [1, 1]], dtype=np.float32
    )
    return Model(
        "ties and biases",
        InputSpec((4,), 0, 1),
        (
            L.Dense(name="first", inputs=(INPUT,), weight=weight, bias=bias),
            L.Step(name="a", inputs=("first",)),
            L.Dense(name="second", inputs=("a",), weight=mix, bias=np.zeros(2, np.float32)),
            L.Step(name="b", inputs=("second",)),
        ),
        readout=Readout(key=np.eye(2, dtype=np.uint8)),
    )


def batch_norm(rng: Rng, name: str, source: str, channels: int, *, negative: bool) -> L.BatchNorm:
    """Return a batch norm with random statistics; scales may be negative."""
    signs = rng.choice([-1.0, 1.0], channels) if negative else np.ones(channels)
    return L.BatchNorm(
        name=name,
        inputs=(source,),
        mean=rng.normal(0, 0.3, channels).astype(np.float32),
        variance=rng.uniform(0.05, 2, channels).astype(np.float32),
        gamma=(signs * rng.uniform(0.5, 1.5, channels)).astype(np.float32),
        beta=rng.normal(0.4, 0.3, channels).astype(np.float32),
    )


def conv_model(rng: Rng, *, size: int = 10, high: int = 16, width: int = 4) -> Model:
    """Return a convolutional network with batch norm, both pools, stride 2, an even kernel, a skip.

    The first max pool stands before its step, with negative scales behind it.
    """

    def kernel(kh: int, kw: int, n_in: int, n_out: int) -> NDArray[Any]:
        return rng.normal(0, 2 / np.sqrt(kh * kw * n_in), (kh, kw, n_in, n_out)).astype(np.float32)

    def bias(n: int) -> NDArray[Any]:
        return rng.normal(0.3, 0.2, n).astype(np.float32)

    w = width
    layers: list[L.Layer] = [
        L.Conv2D(
            name="conv_a", inputs=(INPUT,), weight=kernel(3, 3, 1, w), bias=bias(w), padding="same"
        ),
        L.MaxPool2D(name="pool_a", inputs=("conv_a",), pool_size=(2, 2)),
        batch_norm(rng, "norm_a", "pool_a", w, negative=True),
        L.Step(name="a", inputs=("norm_a",)),
        L.Conv2D(
            name="conv_b",
            inputs=("a",),
            weight=kernel(2, 2, w, 2 * w),
            padding="same",
            strides=(1, 1),
        ),
        batch_norm(rng, "norm_b", "conv_b", 2 * w, negative=False),
        L.Step(name="b", inputs=("norm_b",), threshold=0.25),
        L.Conv2D(
            name="conv_c",
            inputs=("b",),
            weight=kernel(3, 3, 2 * w, w),
            bias=bias(w),
            padding="same",
        ),
        L.Add(name="residual", inputs=("conv_c", "a")),
        L.Step(name="c", inputs=("residual",)),
        L.MaxPool2D(name="pool_c", inputs=("c",), pool_size=(3, 3), strides=(1, 1), padding="same"),
        L.Conv2D(
            name="conv_d",
            inputs=("pool_c",),
            weight=kernel(4, 4, w, w),
            bias=bias(w),
            strides=(2, 2),
            padding="same",
        ),
        L.Step(name="d", inputs=("conv_d",)),
        L.AveragePool2D(name="pool_d", inputs=("d",), pool_size=(2, 2), padding="same"),
        L.Flatten(name="flat", inputs=("pool_d",)),
    ]
    half = -(-(size // 2) // 2)
    n_flat = (-(-half // 2)) ** 2 * w
    weight = rng.normal(0, 1, (n_flat, 12)).astype(np.float32)
    layers += [
        L.Dense(name="dense", inputs=("flat",), weight=weight, bias=bias(12)),
        L.Step(name="out", inputs=("dense",)),
    ]
    key = (np.arange(12) % 4 == np.arange(4)[:, None]).astype(np.uint8)
    spec = InputSpec((size, size, 1), 0, high, 1 / high)
    return Model("conv", spec, tuple(layers), readout=Readout(key=key))


def all_kinds(rng: Rng) -> Model:
    """Return a network in which every kind of layer that can be mapped appears."""

    def values(*shape: int) -> NDArray[Any]:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    layers: list[L.Layer] = [
        L.Permute(name="turn", inputs=(INPUT,), axes=(1, 0, 2)),
        L.Conv2D(
            name="grouped",
            inputs=("turn",),
            weight=values(3, 2, 1, 4),
            bias=values(4),
            groups=2,
            dilation=(1, 2),
            padding=((1, 0), (2, 1)),
        ),
        L.Step(name="s1", inputs=("grouped",)),
        L.DepthwiseConv2D(
            name="depthwise", inputs=("s1",), weight=values(2, 3, 4, 2), padding="same"
        ),
        L.Step(name="s2", inputs=("depthwise",), threshold=0.1),
        L.Conv2DTranspose(
            name="transposed",
            inputs=("s2",),
            weight=values(3, 3, 3, 8),
            bias=values(3),
            strides=(2, 2),
            padding="same",
        ),
        L.Step(name="s3", inputs=("transposed",)),
        L.Upsample2D(name="up", inputs=("s1",), size=(2, 2)),
        L.Concat(name="both", inputs=("s3", "up"), axis=-1),
        L.AveragePool2D(
            name="mean", inputs=("both",), pool_size=(3, 3), strides=(2, 2), padding="same"
        ),
        L.BatchNorm(
            name="norm",
            inputs=("mean",),
            mean=values(7),
            variance=np.abs(values(7)) + np.float32(0.1),
            gamma=None,
            beta=values(7),
        ),
        L.Step(name="s4", inputs=("norm",)),
        L.GlobalMaxPool2D(name="any", inputs=("s4",)),
        L.GlobalAveragePool2D(name="share", inputs=("s4",)),
        L.Concat(name="features", inputs=("any", "share")),
        L.Reshape(name="fold", inputs=("features",), shape=(2, 7)),
        L.Flatten(name="flat", inputs=("fold",)),
        L.Dense(name="dense", inputs=("flat",), weight=values(14, 6)),
        L.Step(name="s5", inputs=("dense",)),
    ]
    return Model("all kinds", InputSpec((6, 5, 2), -3, 4, 0.25), tuple(layers))


def random_samples(rng: Rng, spec: InputSpec, n_samples: int, density: float = 0.4) -> Any:
    """Return integer samples in the input range, about `density` of the values not zero."""
    shape = (n_samples, *spec.shape)
    values = rng.integers(spec.low, spec.high + 1, size=shape)
    return np.where(rng.random(shape) < density, values, 0)
