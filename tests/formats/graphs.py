"""What tests of the graph builder share: running part of a graph, seen as the file has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from whetsim import layers as L
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model
from whetsim.reference import forward
from whetsim.runner import run

FILE = "the file's word"
READING = Reading(input_scale=1.0, input_range=(-8, 8))


def as_in_the_file(values: np.ndarray, value: Value) -> np.ndarray:
    """Return what a layer makes ``(n_samples, ...)`` with its axes as in the file."""
    seen = values.transpose(0, *(1 + value.order.index(a) for a in range(value.rank)))
    assert seen.shape[1:] == value.shape
    return seen


def made(graph: Graph, value: Value, samples: np.ndarray) -> np.ndarray:
    """Return a value of the graph in the file's layout, computed by the float32 reference."""
    if value.name == INPUT:
        return as_in_the_file(samples.astype(np.float32), value)
    needed = {value.name}
    for layer in reversed(graph.layers.values()):
        if layer.name in needed:
            needed.update(layer.inputs)
    layers = tuple(layer for layer in graph.layers.values() if layer.name in needed)
    spec = InputSpec(graph.input_shape, -(2**20), 2**20)
    model = Model("part", spec, layers, output=value.name)
    return as_in_the_file(forward(model, samples)[value.name], value)


def exact_spikes(model: Model, value: Value, samples: np.ndarray) -> np.ndarray:
    """Return the output spikes of the exact backend in the layout of `value`, a step's."""
    recording = run(map_to_spikes(model), samples, record="rasters")
    assert recording.network.output == value.name
    raster = recording.raster(value.name)
    return as_in_the_file(raster.reshape(len(samples), *value.stored_shape), value)


def turned(graph: Graph, x: Value, channel_axis: int = 0) -> Value:
    """Return x unchanged, but stored with one axis of the file last."""
    order = (*(a for a in range(x.rank) if a != channel_axis), channel_axis)
    n = x.shape[channel_axis]
    one = np.ones(n, np.float32)
    values = {"mean": 0 * one, "variance": one, "epsilon": 0.0, "axis": channel_axis}
    result = graph.batch_norm("turned", x, **values)
    assert result.order == order
    return result


def kinds(graph: Graph) -> list[str]:
    """Return the kinds of all layers, in the order in which they were added."""
    return [layer.kind for layer in graph.layers.values()]


def whole(*shape: int, seed: int = 0, low: int = -4, high: int = 4) -> np.ndarray:
    """Return small whole numbers: sums are exact, so results are equal to the last bit."""
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def floats(*shape: int, seed: int = 1) -> Any:
    """Return small multiples of a quarter as float32."""
    return (whole(*shape, seed=seed) / 4).astype(np.float32)


def layer_of(graph: Graph, value: Value) -> L.Layer:
    """Return the layer that makes a value."""
    return graph.layers[value.name]


def by_layer(kind: type[L.Layer], x: np.ndarray, channel_axis: int, **values: Any) -> np.ndarray:
    """Return what a layer makes of maps whose channels stand elsewhere."""
    last = np.moveaxis(x, channel_axis + 1, -1)
    layer = kind(name="one", inputs=INPUT, **values)
    model = Model("one", InputSpec(last.shape[1:], -(2**20), 2**20), (layer,))
    result = forward(model, last)["one"]
    return np.moveaxis(result, -1, channel_axis + 1)
