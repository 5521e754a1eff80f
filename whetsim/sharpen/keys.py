"""Keys: the pattern of output spikes that stands for each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.sharpen.checks import TrainingError, check_count, check_key

_CANDIDATES = 16
"""Random columns that each new column of a key is chosen from."""

_ATTEMPTS = 50
"""Keys tried before giving up on distinct rows; matters only for the narrowest keys."""


def generate_key(n_classes: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Make a key with distinct, well separated rows.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    width : int
        Number of outputs per pattern, at least log2(n_classes). Ten outputs per class make a
        readout that survives several wrong spikes.
    seed : int
        Seed of the key's own random generator; equal arguments give equal keys.

    Returns
    -------
    ndarray of uint8, shape (n_classes, width)
        Zeros and ones, one row per class.

    Raises
    ------
    TrainingError
        If a number is out of range or the width is too small for distinct rows.

    Notes
    -----
    Each column is 1 for half of the classes: no output is constant, and the mean distance between
    rows is the largest possible (the Plotkin bound). Columns are chosen one by one among random
    ones, so that the distances stay as equal as possible.

    Examples
    --------
    >>> key = generate_key(10, 100, seed=1)
    >>> key.shape, smallest_distance(key) > 50
    ((10, 100), True)
    """
    check_count("generate_key", "n_classes", n_classes, smallest=2)
    check_count("generate_key", "seed", seed, smallest=0)
    check_count("generate_key", "width", width, smallest=int(n_classes - 1).bit_length())
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        key = _columns_with_equal_distances(n_classes, width, rng)
        if smallest_distance(key) > 0:
            return key
    raise TrainingError(
        f"generate_key: no key with distinct rows found for {n_classes} classes "
        f"(got width={width}; need more). Take twice the width."
    )


def smallest_distance(key: ArrayLike) -> int:
    """Return the smallest Hamming distance between two rows of a key.

    Parameters
    ----------
    key : array_like of int, shape (n_classes, width)
        Zeros and ones.

    Returns
    -------
    int
        Number of outputs in which the two most similar classes differ; fewer wrong spikes than
        half of it never change a prediction.

    Raises
    ------
    TrainingError
        If the key is not a matrix of zeros and ones with at least two rows.
    """
    rows = check_key("smallest_distance", key, distinct=False)
    first, second = np.triu_indices(len(rows), k=1)
    return int(min((rows[i] != rows[j]).sum() for i, j in zip(first, second, strict=True)))


def _columns_with_equal_distances(
    n_classes: int, width: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    pattern = (np.arange(n_classes) < n_classes // 2).astype(np.uint8)
    key = np.empty((n_classes, width), dtype=np.uint8)
    distances = np.zeros((n_classes, n_classes), dtype=np.int64)
    for column in range(width):
        choices = np.stack([rng.permutation(pattern) for _ in range(_CANDIDATES)])
        if n_classes % 2:  # as many columns with one 1 more as with one 1 fewer than half
            choices ^= rng.integers(0, 2, size=(_CANDIDATES, 1), dtype=np.uint8)
        # A column adds 1 to the distance of the pairs that it separates. The sum over pairs is
        # the same for all, so the best is the one that separates the closest pairs.
        separates = choices[:, :, None] != choices[:, None, :]
        cost = [np.square(distances + s).sum() for s in separates]
        best = int(np.argmin(cost))
        key[:, column] = choices[best]
        distances += separates[best]
    return key
