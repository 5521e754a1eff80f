"""Synapses, counts and sums of every kind of connectivity against a matrix made by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed

seeds = st.integers(0, 2**32 - 1)


def matrix_of(connectivity: Connectivity, block: int = 4_000_000) -> np.ndarray:
    """Return the weights as a matrix; no synapse may come twice or with weight 0."""
    shape = (connectivity.n_sources, connectivity.n_targets)
    matrix, seen = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for synapses in connectivity.synapses(block):
        assert len(synapses.source) == len(synapses.target) == len(synapses.weight) > 0
        assert synapses.weight.dtype == np.int64
        np.add.at(matrix, (synapses.source, synapses.target), synapses.weight)
        np.add.at(seen, (synapses.source, synapses.target), 1)
    assert (seen == (matrix != 0)).all()
    return matrix


def convolution_matrix(convolution: Convolution) -> np.ndarray:
    """Return the weights of a convolution by the definition of its geometry."""
    g = convolution.geometry
    (h, w, c_in), (out_h, out_w, c_out) = g.source, g.target
    matrix = np.zeros((h, w, c_in, out_h, out_w, c_out), np.int64)
    cells = itertools.product(range(out_h), range(out_w), range(g.kernel[0]), range(g.kernel[1]))
    for y, x, i, j in cells:
        place_y = y * g.strides[0] + i * g.dilation[0] - g.before[0]
        place_x = x * g.strides[1] + j * g.dilation[1] - g.before[1]
        if place_y % g.input_dilation[0] or place_x % g.input_dilation[1]:
            continue
        iy, ix = place_y // g.input_dilation[0], place_x // g.input_dilation[1]
        if 0 <= iy < h and 0 <= ix < w:
            for a, o in itertools.product(range(c_in), range(c_out)):
                if a // (c_in // g.groups) == o // (c_out // g.groups):
                    value = convolution.weight[i, j, a % (c_in // g.groups), o]
                    matrix[iy, ix, a, y, x, o] += int(value)
    return matrix.reshape(h * w * c_in, out_h * out_w * c_out)


def check(connectivity: Connectivity, expected: np.ndarray, factors: np.ndarray) -> None:
    """Check everything a connectivity says about itself."""
    assert np.array_equal(matrix_of(connectivity), expected)
    assert np.array_equal(matrix_of(connectivity, block=5), expected)
    assert np.array_equal(connectivity.fan_out, (expected != 0).sum(axis=1))
    assert np.array_equal(connectivity.fan_in, (expected != 0).sum(axis=0))
    assert connectivity.n_synapses == np.count_nonzero(expected)
    assert np.array_equal(connectivity.absolute_sums(), np.abs(expected).sum(axis=0))
    wide = connectivity.spread(factors)
    spread = (expected[:, None, :] * factors[None, :, None]).reshape(-1, expected.shape[1])
    assert type(wide) is type(connectivity)
    assert np.array_equal(matrix_of(wide), spread)
    assert np.array_equal(wide.fan_out, (spread != 0).sum(axis=1))
    assert np.array_equal(wide.fan_in, (spread != 0).sum(axis=0))
    assert np.array_equal(wide.absolute_sums(), np.abs(spread).sum(axis=0))


def sparse_weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return whole numbers of which about a third are zero."""
    return rng.integers(-3, 4, shape) * (rng.random(shape) < 0.8)


def factors_of(rng: np.random.Generator) -> np.ndarray:
    return np.array([[1], [1, 2, 4, -8], [255], [0, 1]][int(rng.integers(4))], np.int64)


maps = st.tuples(st.integers(1, 5), st.integers(1, 5))
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    source=maps,
    target=maps,
    kernel=maps,
    strides=pairs,
    dilation=pairs,
    input_dilation=pairs,
    before=st.tuples(st.integers(-2, 4), st.integers(-2, 4)),
    channels=st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2)]),
)
def test_convolution(
    *,
    seed: int,
    source: tuple[int, int],
    target: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    input_dilation: tuple[int, int],
    before: tuple[int, int],
    channels: tuple[int, int, int],
) -> None:
    rng = np.random.default_rng(seed)
    groups, per_in, per_out = channels
    geometry = Geometry(
        source=(*source, groups * per_in),
        target=(*target, groups * per_out),
        kernel=kernel,
        strides=strides,
        dilation=dilation,
        input_dilation=input_dilation,
        before=before,
        groups=groups,
    )
    convolution = Convolution(sparse_weights(rng, *geometry.weight_shape), geometry)
    check(convolution, convolution_matrix(convolution), factors_of(rng))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_dense(seed: int, n_sources: int, n_targets: int) -> None:
    rng = np.random.default_rng(seed)
    weight = sparse_weights(rng, n_sources, n_targets)
    check(Dense(weight), weight, factors_of(rng))


def listed(weight: np.ndarray, rng: np.random.Generator) -> Listed:
    """Return `weight` as lists, with a few stored zeros."""
    kept = (weight != 0) | (rng.random(weight.shape) < 0.2)
    source, target = np.nonzero(kept)
    start = np.searchsorted(source, np.arange(len(weight) + 1))
    return Listed(start, target, weight[source, target], weight.shape[1])


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_listed(seed: int, n_sources: int, n_targets: int) -> None:
    rng = np.random.default_rng(seed)
    weight = sparse_weights(rng, n_sources, n_targets) * (rng.random((n_sources, 1)) < 0.7)
    check(listed(weight, rng), weight, factors_of(rng))


@pytest.mark.parametrize("kind", ["dense", "listed", "convolution"])
def test_no_synapses_at_all(kind: str) -> None:
    zeros = np.zeros((4, 3), np.int64)
    connectivity: Connectivity = Dense(zeros)
    if kind == "listed":
        empty = np.zeros(0, np.int64)
        connectivity = Listed(np.zeros(5, np.int64), empty, empty, 3)
    elif kind == "convolution":
        geometry = Geometry((2, 2, 1), (1, 1, 3), (2, 2))
        connectivity = Convolution(np.zeros(geometry.weight_shape, np.int64), geometry)
    check(connectivity, zeros, np.array([1, 2], np.int64))
    assert list(connectivity.synapses()) == []


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_are_bounded_and_in_order(block: int) -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry((8, 8, 3), (8, 8, 4), (3, 3), before=(1, 1))
    convolution = Convolution(rng.integers(1, 5, geometry.weight_shape), geometry)
    dense = Dense(rng.integers(1, 5, (40, 7)))
    lists = listed(np.asarray(dense.weight), rng)
    for connectivity, unit in ((convolution, 3 * 4), (dense, 7), (lists, 1)):
        whole = [np.concatenate(part) for part in zip(*connectivity.synapses(), strict=True)]
        parts = list(connectivity.synapses(block))
        assert all(len(part.source) <= max(block, unit) for part in parts)
        for a, b in zip(whole, (np.concatenate(p) for p in zip(*parts, strict=True)), strict=True):
            assert np.array_equal(a, b)


def test_large_weights_survive_spreading() -> None:
    weight = np.array([[2**31 - 1, -(2**31) + 1]], np.int32)
    wide = Dense(weight).spread(np.array([1, 128, -256], np.int64))
    assert wide.weight.tolist() == [[f * (2**31 - 1), -f * (2**31 - 1)] for f in (1, 128, -256)]
    assert Dense(weight).absolute_sums().tolist() == [2**31 - 1, 2**31 - 1]


def test_weights_are_read_only() -> None:
    for connectivity in (
        Dense(np.ones((2, 2), np.int32)),
        Listed(np.array([0, 1]), np.array([0]), np.array([5]), 1),
        Convolution(np.ones((1, 1, 1, 1), np.int32), Geometry((1, 1, 1), (1, 1, 1), (1, 1))),
    ):
        with pytest.raises(ValueError, match="read-only"):
            connectivity.weight[0] = 1


def test_geometry_counts_match_the_weight_shape() -> None:
    geometry = Geometry((4, 5, 6), (2, 3, 8), (3, 2), groups=2)
    assert geometry.weight_shape == (3, 2, 3, 8)
    convolution = Convolution(np.ones(geometry.weight_shape, np.int32), geometry)
    assert (convolution.n_sources, convolution.n_targets) == (120, 48)
