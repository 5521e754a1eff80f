"""Moving cores on the mesh so that messages travel less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment, quadratic_assignment

from whetsim_hardware.placement.mesh import distances

__all__ = ["cost_of", "improve"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_QUADRATIC = 800
"""Cores up to which scipy's quadratic assignment is tried; it takes cubic time."""
MOST_EXCHANGED = 150
"""Cores up to which pairs of cores are exchanged one by one behind that."""
MOST_LINEAR = 1500
"""Cores up to which cores are pulled towards what they talk to; beyond, greedy stays."""
PULLS = 8


def cost_of(traffic: sparse.csr_array, positions: Integers) -> float:
    """Return messages times hops over all pairs; row and column 0 are the input's port."""
    pairs = traffic.tocoo()
    x, y = positions[:, 1], positions[:, 2]
    hops = np.abs(x[pairs.row] - x[pairs.col]) + np.abs(y[pairs.row] - y[pairs.col])
    return float((pairs.data * hops).sum())


def improve(traffic: sparse.csr_array, positions: Integers, slots: Integers) -> Integers:
    """Return places of the cores with the least messages times hops that was found.

    Parameters
    ----------
    traffic : sparse array (n + 1, n + 1)
        Messages from core to core; 0 is the input's port, core i is i + 1.
    positions : int64 array (n + 1, 3)
        Chip, x, y: where greedy puts them. It stays if nothing better is found.
    slots : int64 array (m, 3)
        Places there are, m >= n.
    """
    n = len(positions) - 1
    if n < 2 or n > MOST_LINEAR:
        return positions
    best, least = positions, cost_of(traffic, positions)
    both = sparse.csr_array(traffic + traffic.T)
    compact = slots[np.argsort(np.maximum(slots[:, 1], slots[:, 2]), kind="stable")[:n]]
    for places in (positions[1:], compact):
        start = np.concatenate([positions[:1], places])
        for guess in (start, _pulled(both, start, slots)):
            found = _assigned(both, guess) if n <= MOST_QUADRATIC else guess
            cost = cost_of(traffic, found)
            if cost < least:
                best, least = found, cost
    return best


def _pulled(both: sparse.csr_array, positions: Integers, slots: Integers) -> Integers:
    """Return places after pulling every core to the mean place of what it talks to."""
    weight = np.asarray(both.sum(axis=1)).ravel()
    weight[weight == 0] = 1
    best, least = positions, cost_of(both, positions)
    current = positions
    places = slots[:, 1:].astype(np.float64)
    for _ in range(PULLS):
        mean = (both @ current[:, 1:].astype(np.float64)) / weight[:, None]
        away = np.abs(mean[1:, None, :] - places[None, :, :]).sum(axis=2)
        _, chosen = linear_sum_assignment(away * weight[1:, None])
        current = np.concatenate([positions[:1], slots[chosen]])
        cost = cost_of(both, current)
        if cost >= least:
            break
        best, least = current, cost
    return best


def _assigned(both: sparse.csr_array, positions: Integers) -> Integers:
    """Return the places exchanged as scipy's quadratic assignment finds it best."""
    hops = distances(positions).astype(np.float64)
    dense = both.toarray().astype(np.float64)
    # The port stays where it is.
    options = {"partial_match": np.array([[0, 0]]), "rng": np.random.default_rng(0)}
    found = quadratic_assignment(dense, hops, method="faq", options=options).col_ind
    if len(found) > MOST_EXCHANGED:
        return np.asarray(positions[found])
    match = np.column_stack([np.arange(len(found)), found])
    options = {**options, "partial_guess": match[1:]}
    found = quadratic_assignment(dense, hops, method="2opt", options=options).col_ind
    return np.asarray(positions[found])
