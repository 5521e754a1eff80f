"""The examples of docs/bring-your-own.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import whetsim
from whetsim.testing.networks import dense_model

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python (\w+)\n(.*?)```", PAGE, re.DOTALL))


def run(name: str, folder: Path) -> str:
    """Run an example in a process of its own; return the last thing it printed."""
    (folder / "example.py").write_text(EXAMPLES[name], encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_there_is_one_example_for_each() -> None:
    assert set(EXAMPLES) == {"keras", "torch", "onnx", "nir"}


def test_keras(tmp_path: Path) -> None:
    pytest.importorskip(
        "whetsim.sharpen",
        reason="needs keras and torch: pip install 'whetsim[train]'",
        exc_type=ImportError,
    )
    assert run("keras", tmp_path) == "equal predictions: 1.0"


def test_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    pytest.importorskip("onnx", reason="needs onnx: pip install 'whetsim[formats]'")
    assert run("torch", tmp_path) == "equal predictions: 1.0"


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'whetsim[formats]'")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(0, 0.5, (64, 30)).astype("f4"),
        "b": np.full(30, 0.3, "f4"),
        "half": np.array(0.5, "f4"),
        "v": rng.normal(0, 0.5, (30, 10)).astype("f4"),
        "c": rng.normal(0, 0.5, 10).astype("f4"),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["sum"], name="hidden"),
        helper.make_node("GreaterOrEqual", ["sum", "half"], ["fires"]),
        helper.make_node("Cast", ["fires"], ["spikes"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gemm", ["spikes", "v", "c"], ["scores"], name="out"),
    ]
    sizes = {"x": 64, "scores": 10}
    x, scores = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in sizes.items()
    )
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "net", [x], [scores], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "net.onnx")
    assert run("onnx", tmp_path) == "equal predictions: 1.0"


def test_nir(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="needs h5py: pip install 'whetsim[formats]'")
    whetsim.save(dense_model(np.random.default_rng(0), high=16), tmp_path / "digits_mlp.nir")
    assert run("nir", tmp_path) == "differing spikes: 0"
