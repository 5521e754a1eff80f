"""Keras files without Keras: the layouts of model.save, written with h5py, json and zipfile."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

Weights = Mapping[str, Sequence[tuple[str, NDArray[Any]]]]
"""Layer to its weights in order, each with the name that the file gives it."""


def layer(kind: str, name: str, *sources: str, **config: Any) -> dict[str, Any]:
    """Return the entry of a layer as Keras 2.15 writes it; `sources` are for functional models."""
    entry: dict[str, Any] = {"class_name": kind, "config": {"name": name, "trainable": True}}
    entry["config"] |= {"dtype": "float32"} | config
    if sources or kind == "InputLayer":
        entry["name"] = name
        entry["inbound_nodes"] = [[[s, 0, 0, {}] for s in sources]] if sources else []
    return entry


def sequential(*layers: dict[str, Any], name: str = "sequential") -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(*layers: dict[str, Any], name: str = "model", **more: Any) -> dict[str, Any]:
    """Return a functional model that ends with its last layer and begins with its first."""
    ends = {
        "input_layers": [[layers[0]["name"], 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]],
    }
    config = {"name": name, "trainable": True, "layers": list(layers), **ends, **more}
    return {"class_name": "Functional", "config": config}


def dense(name: str, units: int, *sources: str, **config: Any) -> dict[str, Any]:
    settings = {"units": units, "activation": "linear", "use_bias": True} | config
    return layer("Dense", name, *sources, **settings)


def conv(
    name: str, filters: int, size: int, *sources: str, kind: str = "Conv2D", **config: Any
) -> dict[str, Any]:
    settings = {
        "filters": filters,
        "kernel_size": [size, size],
        "strides": [1, 1],
        "padding": "valid",
        "data_format": "channels_last",
        "dilation_rate": [1, 1],
        "activation": "linear",
        "use_bias": True,
    }
    return layer(kind, name, *sources, **settings | config)


def batch_norm(name: str, axis: int, *sources: str, **config: Any) -> dict[str, Any]:
    settings = {"axis": [axis], "epsilon": 1e-3, "center": True, "scale": True} | config
    return layer("BatchNormalization", name, *sources, **settings)


def step(name: str, *sources: str, kind: str = "Spiking_BRelu", **config: Any) -> dict[str, Any]:
    return layer(kind, name, *sources, **{"sharpness": 1.0} | config)


def image_input(name: str, *shape: int) -> dict[str, Any]:
    return layer("InputLayer", name, batch_input_shape=[None, *shape], sparse=False)


def write_legacy(
    path: Path, model: dict[str, Any], weights: Weights, *, version: str = "2.15.0"
) -> Path:
    """Write a whole model as Keras 2 does: one HDF5 file with text attributes and arrays."""
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = version.encode()
        file.attrs["model_config"] = json.dumps(model).encode()
        group = file.create_group("model_weights")
        entries = model["config"]["layers"]
        names = [entry["config"]["name"] for entry in entries]
        group.attrs["layer_names"] = [name.encode() for name in names]
        group.attrs["backend"] = b"tensorflow"
        for name in names:
            stored = weights.get(name, ())
            part = group.create_group(name)
            part.attrs["weight_names"] = [key.encode() for key, _ in stored]
            for key, array in stored:
                part.create_dataset(key, data=array)
    return path


def write_archive(
    path: Path,
    model: dict[str, Any],
    arrays: Mapping[str, Sequence[NDArray[Any]]],
    *,
    version: str = "3.9.0",
    names: Mapping[str, str] | None = None,
) -> Path:
    """Write a .keras file: `arrays` gives those of each group, such as ``layers/dense_1``."""
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        for group, values in arrays.items():
            part = file.create_group(f"{group}/vars")
            for i, array in enumerate(values):
                part.create_dataset(str(i), data=array)
            if names is not None and group in names:
                part.attrs["name"] = names[group]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", stored.getvalue())
    return path


def in_keras_3(model: dict[str, Any]) -> dict[str, Any]:
    """Return a functional model of Keras 2 in the notation of Keras 3."""

    def tensor(ref: list[Any]) -> dict[str, Any]:
        return {"class_name": "__keras_tensor__", "config": {"keras_history": ref[:3]}}

    def node(refs: list[list[Any]]) -> dict[str, Any]:
        tensors = [tensor(ref) for ref in refs]
        return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}

    entries = []
    for old in model["config"]["layers"]:
        entry = dict(old, module="keras.layers", registered_name=None)
        config = dict(old["config"])
        if "batch_input_shape" in config:
            config["batch_shape"] = config.pop("batch_input_shape")
        entry["config"] = config
        if "inbound_nodes" in old:
            entry["inbound_nodes"] = [node(refs) for refs in old["inbound_nodes"]]
        entries.append(entry)
    config = dict(model["config"], layers=entries)
    for key in ("input_layers", "output_layers"):
        (config[key],) = model["config"][key]
    return {"module": "keras", "class_name": "Functional", "config": config}
