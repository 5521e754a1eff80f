"""Files that Keras writes: .h5 of Keras 2 and 3, .keras of Keras 3. Keras itself is not needed.

The configuration says which layers there are; whatever in it is code (Lambda layers) is refused and
never looked at. Optimizers, losses and metrics are not read.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from whetsim.errors import BackendNotInstalledError, FormatError, quote
from whetsim.formats.damage import HDF5_MAGIC, ZIP_MAGIC
from whetsim.formats.graph import Graph, Reading, Value
from whetsim.formats.keras.archive import (
    CONFIG,
    METADATA,
    WEIGHTS,
    Archive,
    is_keras_archive,
)
from whetsim.formats.keras.config import Network, parse_json, parse_model
from whetsim.formats.keras.context import Context
from whetsim.formats.keras.hdf5 import MAX_BYTES, Budget, Hdf5
from whetsim.formats.keras.network import NetworkReader, roles_of
from whetsim.formats.keras.weights import LayerWeights, PathWeights, Weights
from whetsim.model import Model

__all__ = ["read", "recognizes"]

MAX_CONFIG = 2**24
"""Longest configuration, in characters."""
_WEIGHTS_ALONE = ("layers", "_layer_checkpoint_dependencies", "model_weights")
_SAVE_ALL = (
    "it holds weights and no network. Save the whole model: model.save('network.keras') or "
    "model.save('network.h5')."
)


def recognizes(path: Path, head: bytes) -> bool:
    """Return whether a file is a whole Keras model or the weights of one.

    Parameters
    ----------
    path : Path
    head : bytes
        The first bytes of the file.
    """
    if head.startswith(ZIP_MAGIC):
        return is_keras_archive(path)
    if not head.startswith(HDF5_MAGIC):
        return False
    try:
        with Hdf5(path) as file:
            if file.has(file.root, "node"):
                return False
            names = ("model_config", "layer_names")
            return any(file.has(file.root, name) for name in _WEIGHTS_ALONE) or any(
                file.has_attribute(file.root, name) for name in names
            )
    except (FormatError, BackendNotInstalledError):
        # `read` says what is wrong. NIR has its own suffix, and asks for it then.
        return path.suffix.lower() != ".nir"


def read(path: Path, reading: Reading) -> Model:
    """Read a Keras model.

    Parameters
    ----------
    path : Path
    reading : Reading
        What the caller says about the input and about activations that are not sharp.

    Returns
    -------
    Model
        Layers are named as in the file, those of inner networks ``network/layer``.

    Raises
    ------
    FormatError
        If the file is damaged, or holds what cannot be expressed; the text names the layer.
    BackendNotInstalledError
        If h5py is missing.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == ZIP_MAGIC
        return _read_archive(path, reading) if zipped else _read_hdf5(path, reading)
    except FormatError as error:
        raise FormatError(f"{path.name}: {error}") from None
    except RecursionError:
        raise FormatError(f"{path.name}: the configuration is nested too deep.") from None
    except (ValueError, TypeError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(
            f"{path.name}: the file holds values that no network has ({reason})."
        ) from None


def _read_hdf5(path: Path, reading: Reading) -> Model:
    with Hdf5(path) as file:
        text = file.text(file.root, "model_config")
        group = file.group(file.root, "model_weights")
        if text is None or group is None:
            raise FormatError(_SAVE_ALL)
        network = parse_model(_config(text))
        version, backend = (file.text(file.root, k) for k in ("keras_version", "backend"))
        if (version or "2").startswith(("0.", "1.")):
            raise FormatError(
                f"it was written by Keras {quote(version)}, which stored weights in another way. "
                "Load it with Keras 2 and save it again."
            )
        metadata = {"format": "keras", "container": "hdf5", "version": version, "backend": backend}
        weights = LayerWeights(file, group, network, roles_of)
        return _to_model(
            path, reading, network, file, weights, {k: v for k, v in metadata.items() if v}
        )


def _read_archive(path: Path, reading: Reading) -> Model:
    with Archive(path) as archive:
        text = archive.read(CONFIG, MAX_CONFIG)
        about = archive.read(METADATA, MAX_CONFIG)
        stored = archive.read(WEIGHTS, MAX_BYTES)
    if text is None:
        raise FormatError(f"the archive has no {CONFIG}. The file is damaged.")
    if stored is None:
        raise FormatError(
            f"the archive has no {WEIGHTS}. Save the model with Keras' own defaults: "
            "model.save('network.keras')."
        )
    network = parse_model(_config(text))
    metadata = {"format": "keras", "container": "zip"}
    version = None if about is None else parse_json(about, METADATA).get("keras_version")
    if isinstance(version, str):
        metadata["version"] = version[:40]
    if not stored.startswith(HDF5_MAGIC):
        raise FormatError(f"{WEIGHTS} in the archive is no HDF5 file. The file is damaged.")
    with Hdf5(stored) as file:
        return _to_model(
            path, reading, network, file, PathWeights(file, network, roles_of), metadata
        )


def _config(text: str | bytes) -> dict[str, Any]:
    if len(text) > MAX_CONFIG:
        raise FormatError(f"the configuration has {len(text)} characters (need <= {MAX_CONFIG}).")
    return parse_json(text, "the configuration")


def _to_model(
    path: Path,
    reading: Reading,
    network: Network,
    file: Hdf5,
    weights: Weights,
    metadata: dict[str, Any],
) -> Model:
    for what, refs in (("inputs", network.inputs), ("outputs", network.outputs)):
        if len(refs) != 1:
            raise FormatError(
                f"the network has {len(refs)} {what} (need one). Save a model of one: "
                "keras.Model(model.inputs[0], model.outputs[0])."
            )
    graph = Graph(_input_shape(network))
    context = Context(graph, reading, file, weights, Budget(path.stat().st_size))
    context.backend = str(metadata.get("backend", ""))
    (result,) = NetworkReader(context).run(network, [graph.input])
    if isinstance(result, Value):
        output = result
    else:
        output = graph.decode(result.value, **result.decoder) if result.decoder else result.value
        if result.remark:
            graph.remarks.append(result.remark)
    return graph.to_model(path.stem, output, reading, metadata=metadata)


def _input_shape(network: Network) -> tuple[int, ...]:
    (shape,) = network.input_shapes
    if not isinstance(shape, list):
        raise FormatError(
            "the file does not say which shape the network reads. Begin the network with "
            "keras.Input(shape) and save it again."
        )
    if None in shape:
        raise FormatError(
            f"the network reads samples of any size (shape {tuple(shape)}; need whole numbers). "
            "Build it with a fixed keras.Input(shape), set its weights, and save it again."
        )
    return tuple(shape)
