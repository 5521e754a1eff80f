"""ONNX graphs made node by node, and what another runtime computes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from whetsim.errors import FormatError
from whetsim.reference import forward

onnx = pytest.importorskip("onnx", reason="reading ONNX needs the package onnx")

Array = NDArray[Any]
FLOAT = 1


class Draw:
    """Random weights and samples that float32 adds without rounding."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def weights(self, *shape: int) -> Array:
        return (self.rng.integers(-8, 9, shape) / 8).astype(np.float32)

    def samples(self, *shape: int, n: int = 4) -> Array:
        return self.rng.integers(-16, 17, (n, *shape))


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    """Return a node; `inputs` and `output` are names with blanks between, '-' for none."""
    names = [name if name != "-" else "" for name in inputs.split()]
    return onnx.helper.make_node(
        op, names, output.split(), name=output.split(maxsplit=1)[0], **attributes
    )


def network(
    nodes: Sequence[Any],
    shape: Sequence[int],
    constants: Mapping[str, Array] | None = None,
    *,
    batch: int | str | None = "n",
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    functions: Sequence[Any] = (),
    kind: int = FLOAT,
) -> Any:
    """Return a model that reads 'x' of a shape (without the samples) and gives 'y'."""
    helper = onnx.helper
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in (constants or {}).items()],
    )
    domains = sorted({f.domain for f in functions})
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=8, producer_name="tests", functions=functions
    )


def written(model: Any, path: Path) -> Path:
    """Write a model to a file."""
    path.write_bytes(model.SerializeToString())
    return path


def load(model: Any, folder: Path, **given: Any) -> whetsim.Model:
    """Load a model by way of a file."""
    given = {"input_scale": 0.25, "input_range": (-64, 64)} | given
    return whetsim.load(written(model, folder / "net.onnx"), **given)


def runtime(model: Any, x: Array, output: str = "y") -> Array:
    """Return what onnxruntime computes."""
    ort = pytest.importorskip("onnxruntime", reason="the check needs another ONNX runtime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([output], {"x": x})[0])


def with_a_layer_that_reads_all(model: Any, n_units: int) -> Any:
    """Return the model with a flatten and a dense layer behind it, so that every unit counts."""
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    w = np.random.default_rng(n_units).integers(-8, 9, (n_units, 16)).astype(np.float32)
    longer.graph.initializer.append(onnx.numpy_helper.from_array(w, "all/w"))
    longer.graph.node.extend([node("Flatten", "y", "all/f"), node("MatMul", "all/f all/w", "all")])
    longer.graph.output[0].name = "all"
    return longer


def computed(loaded: whetsim.Model, samples: Array) -> Array:
    """Return the output of the last layer."""
    return forward(loaded, samples)[loaded.output]


def same_values(model: Any, folder: Path, samples: Array, tolerance: float = 1e-4) -> whetsim.Model:
    """Check a network of real numbers against the other runtime, and return it."""
    x = samples.astype(np.float32) * np.float32(0.25)
    wanted = runtime(model, x)
    if wanted.ndim > 2:
        # Channels are last in whetsim: a layer that reads all units in the file's order.
        model = with_a_layer_that_reads_all(model, wanted[0].size)
        wanted = runtime(model, x, "all")
    loaded = load(model, folder)
    got = computed(loaded, samples).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
    assert np.ptp(wanted) > 0, "the check compares something"
    return loaded


def refused(model: Any, folder: Path, match: str) -> None:
    """Check that a graph is refused with a text that matches."""
    with pytest.raises(FormatError, match=match) as caught:
        load(model, folder)
    assert str(caught.value).startswith("net.onnx: ")
