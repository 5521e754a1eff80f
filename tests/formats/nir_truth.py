"""NIR graphs computed by the definition of each node, one timestep from rest, in plain numpy."""

from __future__ import annotations

import graphlib
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def run(graph: Any, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return what every node of a `nir.NIRGraph` makes of samples ``(n, *shape)``.

    Nodes of graphs within the graph are named ``graph/node``.
    """
    results: dict[str, NDArray[Any]] = {}
    _run(graph, "", {"input": x.astype(np.float32)}, results)
    return results


def _run(graph: Any, prefix: str, given: Any, results: dict[str, NDArray[Any]]) -> NDArray[Any]:
    feeds: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        feeds[target].append(source)
    values: dict[str, NDArray[Any]] = {}
    last = None
    for name in graphlib.TopologicalSorter(feeds).static_order():
        node = graph.nodes[name]
        kind = type(node).__name__
        reaching = given["input"] if kind == "Input" else sum(values[s] for s in feeds[name])
        if kind == "NIRGraph":
            values[name] = _run(node, f"{prefix}{name}/", {"input": reaching}, results)
        else:
            values[name] = compute(node, kind, reaching)
        results[prefix + name] = values[name]
        if kind == "Output":
            last = values[name]
    assert last is not None
    return last


def compute(node: Any, kind: str, x: Any) -> Any:
    match kind:
        case "Input" | "Output":
            return x
        case "Affine":
            return x @ node.weight.T + node.bias
        case "Linear":
            return x @ node.weight.T
        case "Scale":
            return x * node.scale
        case "Threshold":
            return (x > node.threshold).astype(np.float32)
        case "IF":
            return (node.r * x > node.v_threshold).astype(np.float32)
        case "Conv1d":
            line = _convolved(x[:, :, None], node.weight[:, :, None], node, 1)
            return line[:, :, 0] + node.bias[:, None]
        case "Conv2d":
            return _convolved(x, node.weight, node, 2) + node.bias[:, None, None]
        case "SumPool2d" | "AvgPool2d":
            return _pooled(x, node, mean=kind == "AvgPool2d")
        case "Flatten":
            first, last = node.start_dim + 1, node.end_dim % (x.ndim - 1) + 1
            return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    raise NotImplementedError(kind)


def _convolved(x: Any, weight: Any, node: Any, n_axes: int) -> Any:
    """Convolve a map, or a line of height 1."""

    def pair(value: Any, for_height: int) -> tuple[int, ...]:
        numbers = tuple(int(v) for v in np.ravel(value))
        return (for_height, numbers[0]) if n_axes == 1 else (numbers * 2)[:2]

    stride, dilation = pair(node.stride, 1), pair(node.dilation, 1)
    kernel = weight.shape[2:]
    if str(node.padding) == "same":
        totals = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        around = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = (0, 0) if str(node.padding) == "valid" else pair(node.padding, 0)
        around = [(p, p) for p in pads]
    padded = np.pad(x, ((0, 0), (0, 0), *around))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    seen = sliding_window_view(padded, span, axis=(2, 3))
    seen = seen[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    groups = int(node.groups)
    n_in, n_out = weight.shape[1], weight.shape[0] // groups
    return np.concatenate(
        [
            np.einsum(
                "ncyxij,ocij->noyx",
                seen[:, g * n_in : (g + 1) * n_in],
                weight[g * n_out : (g + 1) * n_out],
            )
            for g in range(groups)
        ],
        axis=1,
    )


def _pooled(x: Any, node: Any, mean: bool) -> Any:
    size, stride, pads = (
        [int(v) for v in np.broadcast_to(np.ravel(value), 2)]
        for value in (node.kernel_size, node.stride, node.padding)
    )
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pads)))
    seen = sliding_window_view(padded, size, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    total = seen.sum(axis=(4, 5))
    return total / np.float32(size[0] * size[1]) if mean else total
