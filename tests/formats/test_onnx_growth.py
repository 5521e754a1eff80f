"""ONNX files of a few bytes that ask for much memory or time: each is refused at once."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.onnx_graphs import Array, Draw, load, network, node, onnx, refused, written
from whetsim.errors import FormatError
from whetsim.formats.onnx import walk as onnx_walk

DRAW = Draw(3)
weights = DRAW.weights

REPEAT = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def test_a_tensor_that_claims_more_than_it_has(tmp_path: Path) -> None:
    model = network([node("Gemm", "x w")], (4,), {"w": weights(4, 3)})
    model.graph.initializer[0].dims[:] = [2**20, 2**20]
    refused(model, tmp_path, r"shape \(1048576, 1048576\) needs 4398046511104 bytes; it has 48")
    model.graph.initializer[0].dims[:] = [-4, -3]
    refused(model, tmp_path, r"cannot have shape \(-4, -3\)")
    model.graph.initializer[0].dims[:] = [1] * 40
    refused(model, tmp_path, "cannot have shape")
    model.graph.initializer[0].dims[:] = [2**62, 2**62, 0]
    refused(model, tmp_path, "needs 0 bytes; it has 48")


def test_an_input_without_end(tmp_path: Path) -> None:
    model = network([node("Neg", "x")], (2**40,))
    refused(model, tmp_path, r"input: shape .* larger than")
    refused(network([node("Neg", "x")], (3,), batch=2**40), tmp_path, "samples at once")
    refused(network([node("Neg", "x")], (1,) * 30), tmp_path, "1 to 16 axes")


GROWING: dict[str, tuple[list[Any], dict[str, Array]]] = {
    "constant of shape": ([node("ConstantOfShape", "n", "c")], {"n": np.array([2**40])}),
    "huge axes": ([node("ConstantOfShape", "n", "c")], {"n": np.array([2**40, 2**40, 2**40])}),
    "expand": (
        [node("Expand", "one n", "c")],
        {"one": np.float32(1), "n": np.array([2**20, 2**20])},
    ),
    "range": (
        [node("Range", "a b d", "c")],
        {"a": np.array(0), "b": np.array(2**50), "d": np.array(1)},
    ),
    "tile": (
        [node("Tile", "one n", "c")],
        {"one": np.ones(2, np.float32), "n": np.array([2**40])},
    ),
    "broadcast": (
        [node("Add", "a b", "c")],
        {"a": np.zeros((2**13, 1), np.float32), "b": np.zeros((1, 2**13), np.float32)},
    ),
    "product": (
        [node("MatMul", "a b", "c")],
        {"a": np.zeros((2**13, 1), np.float32), "b": np.zeros((1, 2**13), np.float32)},
    ),
    "gather": (
        [node("Gather", "a i", "c")],
        {"a": np.zeros((2, 2**12), np.float32), "i": np.zeros(2**13, np.int64)},
    ),
}


@pytest.mark.parametrize("case", GROWING)
def test_constants_do_not_grow_without_end(case: str, tmp_path: Path) -> None:
    nodes, constants = GROWING[case]
    model = network([*nodes, node("Add", "x c")], (4,), constants)
    refused(model, tmp_path, "its result would have|do not fit|meets a tensor")


def test_constants_that_double_again_and_again(tmp_path: Path) -> None:
    nodes = [node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(40)]
    model = network([*nodes, node("Add", "x c40")], (4,), {"c0": np.zeros(1, np.float32)})
    refused(model, tmp_path, "constants of the file grow|its result would have")


def test_views_of_one_number_do_not_add_up(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", "n", "c0")]
    nodes += [node("Add", f"c{i} c0", f"c{i + 1}") for i in range(300)]
    model = network([*nodes, node("Add", "x c300")], (4,), {"n": np.array([2**22])})
    refused(model, tmp_path, "constants of the file grow to more than")


@pytest.mark.parametrize("as_node", [True, False])
def test_constants_of_the_file_may_be_used_several_times(
    as_node: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_walk, "MAX_ELEMENTS", 100)
    w = weights(60, 60)
    nodes = [
        node("Identity", "w", "w1"),
        node("Transpose", "w1", "w2", perm=[1, 0]),
        node("Neg", "w2", "w3"),
        node("MatMul", "x w3", "h"),
        node("MatMul", "h w"),
    ]
    if as_node:
        value = onnx.numpy_helper.from_array(w)
        nodes.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=value))
    model = network(nodes, (60,), {} if as_node else {"w": w})
    assert load(model, tmp_path).n_parameters == 2 * w.size


def test_many_cuts_do_not_grow_without_end(tmp_path: Path) -> None:
    nodes = [node("Slice", "x a b c", f"c{i}") for i in range(100)]
    nodes.append(node("Sum", " ".join(f"c{i}" for i in range(100))))
    constants = {"a": np.array([1, 1]), "b": np.array([2, 2]), "c": np.array([1, 2])}
    refused(network(nodes, (4000, 4000, 1), constants), tmp_path, "weights of 0 and 1, all in all")
    nodes = [node("Slice", "x a b")]
    constants = {"a": np.array([0, 2]), "b": np.array([1, 2**24])}
    refused(network(nodes, (2**24,), constants), tmp_path, "weights of 0 and 1, all in all")


def test_one_constant_for_many_layers_does_not_grow_without_end(tmp_path: Path) -> None:
    names = ["x", *(f"h{i}" for i in range(3000))]
    nodes = [node("Gemm", f"{a} w", b) for a, b in itertools.pairwise(names)]
    nodes.append(node("Neg", names[-1]))
    model = network(nodes, (300,), {"w": np.zeros((300, 300), np.float32)})
    refused(model, tmp_path, "constants of the file grow")


def test_the_network_does_not_grow_without_end(tmp_path: Path) -> None:
    names = ["x", *(f"r{i}" for i in range(8))]
    nodes = [node("Resize", f"{a} - s", b, **REPEAT) for a, b in itertools.pairwise(names)]
    nodes.append(node("Neg", names[-1]))
    scales = np.array([1, 1, 64, 64], np.float32)
    refused(network(nodes, (1, 4, 4), {"s": scales}), tmp_path, r"need 1 to \d+ units")
    pads = {"p": np.array([0, 0, 0, 0, 0, 0, 2**40, 2**40])}
    refused(network([node("Pad", "x p")], (1, 4, 4), pads), tmp_path, "out of range|units")
    factor = {"s": np.array([1, 1, 2**30], np.float32)}
    model = network([node("Resize", "x - s", **REPEAT)], (1, 1), factor)
    refused(model, tmp_path, "need <= 4096")


def test_a_long_chain_is_no_deep_one(tmp_path: Path) -> None:
    nodes = [node("Add", f"{'x' if not i else f'a{i}'} c", f"a{i + 1}") for i in range(20_000)]
    model = network([*nodes, node("Identity", "a20000")], (2,), {"c": np.float32(2.0**-10)})
    loaded = load(model, tmp_path)
    assert len(loaded.layers) == 1


def test_numbers_do_not_grow_without_end(tmp_path: Path) -> None:
    nodes = [node("Mul", f"{'x' if not i else f'a{i}'} c", f"a{i + 1}") for i in range(5000)]
    model = network([*nodes, node("Identity", "a5000")], (2,), {"c": np.float32(1.1)})
    refused(model, tmp_path, "multiply to numbers that no network has")


def test_corners_do_not_grow_without_end(tmp_path: Path) -> None:
    nodes = []
    for i in range(200):
        source = "x" if not i else f"a{i}"
        nodes += [node("Abs", source, f"b{i}"), node("Sub", f"b{i} c{i}", f"a{i + 1}")]
    constants = {f"c{i}": np.float32(2.0 ** (5 - i / 2)) for i in range(200)}
    model = network([*nodes, node("Sign", "a200")], (2,), constants)
    refused(model, tmp_path, "more than 64 corners")


def _function(name: str, nodes: list[Any], inputs: str = "a", output: str = "r") -> Any:
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    return onnx.helper.make_function("local", name, inputs.split(), [output], nodes, imports)


def _call(op: str, inputs: str, output: str = "y") -> Any:
    made = node(op, inputs, output)
    made.domain = "local"
    return made


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    functions = [_function("f", [_call("f", "a", "r")])]
    refused(network([_call("f", "x")], (3,), functions=functions), tmp_path, "nested deeper than")


def test_functions_that_double_again_and_again(tmp_path: Path) -> None:
    functions = [
        _function(f"f{i}", [_call(f"f{i + 1}", "a", "b"), _call(f"f{i + 1}", "b", "r")])
        for i in range(22)
    ]
    functions.append(_function("f22", [node("Neg", "a", "r")]))
    model = network([_call("f0", "x")], (3,), functions=functions)
    begin = time.monotonic()
    with pytest.raises(FormatError, match="takes more than 50000 nodes"):
        load(model, tmp_path)
    assert time.monotonic() - begin < 30


def test_branches_in_branches(tmp_path: Path) -> None:
    def only_then(depth: int) -> Any:
        inner = node("Neg", "x", "o")
        for _ in range(depth):
            value = onnx.helper.make_tensor_value_info("o", 1, None)
            branch = onnx.helper.make_graph([inner], "b", [], [value])
            inner = node("If", "true", "o", then_branch=branch)
        return network([inner, node("Relu", "o")], (3,), {"true": np.array(True)})

    assert load(only_then(10), tmp_path).layers
    refused(only_then(30), tmp_path, "nested deeper than|cut off or damaged")


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """Reads each hostile file of a few kilobytes in a process that may use 1 GB."""
    cases: list[Any] = [
        network([*nodes, node("Add", "x c")], (4,), constants)
        for nodes, constants in GROWING.values()
        if sum(a.size for a in constants.values()) < 10_000
    ]
    huge = network([node("Gemm", "x w")], (4,), {"w": weights(4, 3)})
    huge.graph.initializer[0].dims[:] = [2**15, 2**15]
    cases += [huge, network([node("Mul", "x c")], (2**24,), {"c": weights(4096)})]
    for i, case in enumerate(cases):
        written(case, tmp_path / f"{i}.onnx")
    code = (
        "import resource, sys, whetsim, pathlib\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.onnx')):\n"
        "    try:\n"
        "        whetsim.load(path, input_scale=1)\n"
        "    except whetsim.formats.FormatError as error:\n"
        "        print(path.name, error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert len(result.stdout.splitlines()) == len(cases)
    assert "MemoryError" not in result.stdout
