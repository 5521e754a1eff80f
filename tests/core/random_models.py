"""Random models whose arithmetic is exact in float32, with weights coarse enough to tie often."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from whetsim import layers as L
from whetsim.model import INPUT, InputSpec, Model, Readout

LARGEST_MAP = 150
"""Units in a map at most, so that the slow oracle stays bearable."""


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a random model; it shrinks to few layers with small shapes."""
    return random_model(draw(st.randoms(use_true_random=False)))


def random_samples(random: Random, spec: InputSpec, n_samples: int) -> np.ndarray:
    """Return integer samples, about half of the values zero (or the lowest)."""
    rng = _numpy(random)
    values = rng.integers(spec.low, spec.high + 1, size=(n_samples, *spec.shape))
    empty = 0 if spec.low <= 0 <= spec.high else spec.low
    return np.where(rng.random(values.shape) < 0.5, values, empty)


def random_model(random: Random) -> Model:
    """Return a random network of one to four steps with skip connections."""
    low, high, scale = random.choice([(0, 1, 1.0), (0, 7, 0.25), (-3, 4, 0.5), (0, 1, 0.5)])
    shape = (random.randint(1, 5), random.randint(1, 5), random.randint(1, 3))
    builder = _Builder(random, shape, input_spikes=(low, high, scale) == (0, 1, 1.0))
    for i in range(random.randint(1, 4)):
        builder.block(i)
    layers = _leading_to(builder.layers, builder.layers[-1].name)
    n_outputs = math.prod(builder.shapes[layers[-1].name])
    readout = None
    if random.random() < 0.5:
        key = _numpy(random).integers(0, 2, size=(random.randint(1, 3), n_outputs))
        readout = Readout(key=key.astype(np.uint8))
    elif random.random() < 0.5:
        rng = _numpy(random)
        bias = rng.normal(size=2) if random.random() < 0.5 else None
        readout = Readout(decoder=rng.normal(size=(n_outputs, 2)), bias=bias)
    return Model("random", InputSpec(shape, low, high, scale), tuple(layers), readout=readout)


def _numpy(random: Random) -> np.random.Generator:
    return np.random.default_rng(random.randint(0, 2**32 - 1))


def _leading_to(layers: list[L.Layer], output: str) -> list[L.Layer]:
    needed = {output}
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.inputs)
    return [layer for layer in layers if layer.name in needed]


class _Builder:
    def __init__(self, random: Random, shape: L.Shape, input_spikes: bool) -> None:
        self.random = random
        self.input_spikes = input_spikes
        self.layers: list[L.Layer] = []
        self.shapes: dict[str, L.Shape] = {INPUT: shape}
        self.spikes = [INPUT]

    def block(self, number: int) -> None:
        """Add affine layers and a step behind a random earlier step."""
        random = self.random
        name = random.choice(self.spikes[-2:])
        if random.random() < 0.3 and self.is_map(name) and self.is_spikes(name):
            if random.random() < 0.8:
                name = self.max_pool(name)
            else:
                name = self.add(L.GlobalMaxPool2D, name)
        for _ in range(random.randint(1, 2)):
            name = self.affine(name)
        if random.random() < 0.5:
            name = self.joined(name)
        if random.random() < 0.3 and self.is_map(name):
            name = self.norm(name) if random.random() < 0.5 else name
            name = self.max_pool(name)
            name = self.norm(name) if random.random() < 0.7 else name
        elif random.random() < 0.4:
            name = self.norm(name)
        threshold = random.choice([0.5, 0.5, 0.0, 0.25, -0.5, 1.0])
        strict = random.random() < 0.3
        step = self.add(L.Step, name, threshold=threshold, strict=strict, as_name=f"step_{number}")
        self.spikes.append(step)

    def add(self, cls: type[L.Layer], *inputs: str, as_name: str = "", **values: Any) -> str:
        name = as_name or f"{cls.kind}_{len(self.layers)}"
        layer = cls(name=name, inputs=inputs, **values)
        self.shapes[name] = layer.output_shape(*(self.shapes[i] for i in inputs))
        self.layers.append(layer)
        return name

    def is_map(self, name: str) -> bool:
        return len(self.shapes[name]) == 3

    def weights(self, *shape: int) -> np.ndarray:
        return (_numpy(self.random).integers(-4, 5, size=shape) / 4).astype(np.float32)

    def bias(self, n: int) -> np.ndarray | None:
        return self.weights(n) if self.random.random() < 0.6 else None

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.random.randint(low, high), self.random.randint(low, high)

    def window(self, name: str) -> dict[str, Any]:
        """Return the parameters of a pool that fits."""
        *axes, _ = self.shapes[name]
        size = tuple(min(n, self.random.choice([1, 2, 2, 3])) for n in axes)
        padding = self.random.choice(["same", "valid"])
        strides = tuple(self.random.randint(1, 2) for _ in axes)
        return {"pool_size": size, "strides": strides, "padding": padding}

    def max_pool(self, name: str) -> str:
        """Add a max pool of a map, or of the volume that it is folded into."""
        if self.random.random() < 0.7:
            return self.add(L.MaxPool2D, name, **self.window(name))
        volume = self.volume(name)
        return self.map_of(self.add(L.MaxPool3D, volume, **self.window(volume)))

    def volume(self, name: str) -> str:
        """Fold a map into a volume of as many channels."""
        h, w, channels = self.shapes[name]
        parts = [n for n in (1, 2, h) if h % n == 0]
        depth = self.random.choice(parts)
        return self.add(L.Reshape, name, shape=(depth, h // depth, w, channels))

    def map_of(self, name: str) -> str:
        """Fold a volume into a map of as many channels."""
        d, h, w, channels = self.shapes[name]
        return self.add(L.Reshape, name, shape=(d * h, w, channels))

    def affine(self, name: str) -> str:
        random = self.random
        shape = self.shapes[name]
        if not self.is_map(name):
            if random.random() < 0.2 and len(shape) == 1:
                folded = self.add(L.Reshape, name, shape=(1, *shape))
                return self.add(L.Permute, folded, axes=(1, 0))
            if len(shape) != 1:
                name = self.add(L.Flatten, name)
            return self.dense(name)
        kinds = ["conv", "conv", "depthwise", "transposed", "mean", "volume", "move", "dense"]
        kind = random.choice(kinds)
        h, w, channels = shape
        if kind == "dense":
            return self.dense(self.add(L.Flatten, name))
        if kind == "move":
            return self.moved(name)
        if kind == "volume":
            return self.map_of(self.affine_volume(self.volume(name)))
        if kind == "mean":
            # Windows of 1, 2 or 4 cells alone: their means are exact.
            size = min(h, random.choice([1, 2])), min(w, random.choice([1, 2]))
            counted = random.random() < 0.3
            return self.add(
                L.AveragePool2D,
                name,
                pool_size=size,
                strides=self.pair(1, 2),
                padding=random.choice(["same", "valid"]),
                count_padding=counted,
            )
        kernel = self.pair(1, 4)
        if kind == "transposed":
            if h * w > 12:
                return name
            n_out = random.randint(1, 2)
            padding = random.choice(["same", "valid"])
            strides = self.pair(1, 2)
            return self.add(
                L.Conv2DTranspose,
                name,
                weight=self.weights(*kernel, n_out, channels),
                bias=self.bias(n_out),
                strides=strides,
                padding=padding,
            )
        common = {"strides": self.pair(1, 2), "padding": random.choice(["same", "same", "valid"])}
        if common["padding"] == "valid":
            kernel = min(kernel[0], h), min(kernel[1], w)
        elif random.random() < 0.3:
            common["dilation"] = self.pair(1, 2)
        if kind == "depthwise":
            times = random.randint(1, 2) if channels < 4 else 1
            weight = self.weights(*kernel, channels, times)
            bias = self.bias(channels * times)
            return self.add(L.DepthwiseConv2D, name, weight=weight, bias=bias, **common)
        groups = random.choice([g for g in (1, 2, 3) if channels % g == 0])
        n_out = groups * random.randint(1, 2)
        weight = self.weights(*kernel, channels // groups, n_out)
        return self.add(
            L.Conv2D, name, weight=weight, bias=self.bias(n_out), groups=groups, **common
        )

    def affine_volume(self, name: str) -> str:
        random = self.random
        *size, channels = self.shapes[name]
        strides = tuple(random.randint(1, 2) for _ in size)
        common = {"strides": strides, "padding": random.choice(["same", "valid"])}
        kernel = tuple(random.randint(1, min(2, n)) for n in size)
        if random.random() < 0.4:
            counted = random.random() < 0.3
            return self.add(
                L.AveragePool3D, name, pool_size=kernel, count_padding=counted, **common
            )
        groups = random.choice([g for g in (1, 2, 3) if channels % g == 0])
        n_out = groups * random.randint(1, 2)
        weight = self.weights(*kernel, channels // groups, n_out)
        return self.add(
            L.Conv3D, name, weight=weight, bias=self.bias(n_out), groups=groups, **common
        )

    def dense(self, name: str) -> str:
        (n_in,) = self.shapes[name]
        n_out = self.random.randint(1, 6)
        weight = self.weights(n_in, n_out)
        return self.add(L.Dense, name, weight=weight, bias=self.bias(n_out))

    def moved(self, name: str) -> str:
        h, w, channels = self.shapes[name]
        choice = self.random.choice(["permute", "reshape", "upsample", "pad", "mean"])
        if choice == "permute":
            axes = tuple(self.random.sample([0, 1, 2], 3))
            return self.add(L.Permute, name, axes=axes)
        if choice == "reshape":
            shapes = [(w, h, channels), (1, h * w, channels), (h, w * channels, 1)]
            return self.add(L.Reshape, name, shape=self.random.choice(shapes))
        if choice == "upsample" and h * w * channels * 4 <= LARGEST_MAP:
            return self.add(L.Upsample2D, name, size=self.pair(1, 2))
        if choice == "pad" and (h + 3) * (w + 3) * channels <= LARGEST_MAP:
            return self.add(L.ZeroPad2D, name, padding=(self.pair(0, 2), self.pair(0, 1)))
        if h * w in (1, 2, 4, 8, 16):
            return self.add(L.GlobalAveragePool2D, name)
        return name

    def joined(self, name: str) -> str:
        """Add or concatenate a second value of a fitting shape, if there is one."""
        shape = self.shapes[name]
        others = [n for n in self.shapes if n != name and self.is_affine(n)]
        same = [n for n in others if self.shapes[n] == shape]
        if same and self.random.random() < 0.5:
            return self.add(L.Add, name, self.random.choice(same))
        near = [n for n in others if self.shapes[n][:-1] == shape[:-1]]
        if near and math.prod(shape) < LARGEST_MAP // 2:
            return self.add(L.Concat, name, self.random.choice(near))
        return name

    def is_spikes(self, name: str) -> bool:
        return name in self.spikes and (name != INPUT or self.input_spikes)

    def is_affine(self, name: str) -> bool:
        """Whether no max pool on a value that is no spike stands in front of `name`."""
        if name in self.spikes:
            return True
        layer = next(layer for layer in self.layers if layer.name == name)
        if isinstance(layer, (L.MaxPool, L.GlobalMaxPool2D)):
            return self.is_spikes(layer.inputs[0])
        return all(self.is_affine(i) for i in layer.inputs)

    def norm(self, name: str) -> str:
        """Add a batch norm whose scales are powers of two, some negative or zero."""
        rng = _numpy(self.random)
        n = self.shapes[name][-1]

        def some(values: list[float]) -> np.ndarray:
            return rng.choice(values, n).astype(np.float32)

        return self.add(
            L.BatchNorm,
            name,
            mean=some([-0.5, 0, 0.25, 1]),
            variance=some([0.25, 1, 4]),
            gamma=some([-1, -0.5, 0, 0.5, 1]) if self.random.random() < 0.8 else None,
            beta=some([-0.25, 0, 0.5]) if self.random.random() < 0.8 else None,
            epsilon=0.0,
        )
