"""Keys: the pattern of output spikes that stands for each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.sharpen.checks import TrainingError, check_count, check_flag, check_key, check_part

_CANDIDATES = 16
"""Random columns or rows that each new one of a key is chosen from."""

_ATTEMPTS = 50
"""Keys tried before giving up on distinct rows; matters only for the narrowest keys."""


def generate_key(
    n_classes: int,
    width: int,
    seed: int,
    *,
    overlapping: bool = True,
    sparsity: float | None = None,
) -> NDArray[np.uint8]:
    """Make a key with distinct, well separated rows.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 2.
    width : int
        Number of outputs per pattern, at least log2(n_classes), better several times that. Ten
        outputs per class make a readout that survives several wrong spikes.
    seed : int
        Seed of the key's own random generator; equal arguments give equal keys.
    overlapping : bool
        Whether an output may stand for several classes. Without it each class has outputs of its
        own, width / n_classes of them.
    sparsity : float, optional
        Part of the outputs that fire for each class, between 0 and 1; every row has exactly
        `round(sparsity * width)` ones. Fewer spikes, but closer rows. By default each output fires
        for half of the classes.

    Returns
    -------
    ndarray of uint8, shape (n_classes, width)
        Zeros and ones, one row per class. `smallest_distance` tells how far apart they are.

    Raises
    ------
    TrainingError
        If a number is out of range or there are no distinct rows of that kind.

    Notes
    -----
    By default each column is 1 for half of the classes: no output is constant, and the mean
    distance between rows is the largest possible (the Plotkin bound). Columns are chosen one by one
    among random ones, so that the distances stay as equal as possible. With a sparsity rows are
    chosen so, and outputs are used equally often.

    Examples
    --------
    >>> key = generate_key(10, 100, seed=1)
    >>> key.shape, smallest_distance(key) > 50
    ((10, 100), True)
    >>> sparse = generate_key(10, 100, seed=1, sparsity=0.1, overlapping=False)
    >>> sparse.sum(axis=1).tolist(), smallest_distance(sparse)
    ([10, 10, 10, 10, 10, 10, 10, 10, 10, 10], 20)
    """
    where = "generate_key"
    check_count(where, "n_classes", n_classes, smallest=2)
    check_count(where, "seed", seed, smallest=0)
    fewest = int(n_classes - 1).bit_length() if overlapping else n_classes
    check_count(where, "width", width, smallest=fewest)
    rng = np.random.default_rng(seed)
    if not check_flag(where, "overlapping", overlapping):
        return _separate_rows(n_classes, width, _ones_per_row(width, sparsity), rng)
    ones = _ones_per_row(width, sparsity)
    for _ in range(_ATTEMPTS):
        if ones is None:
            key = _columns_with_equal_distances(n_classes, width, rng)
        else:
            key = _rows_with_equal_distances(n_classes, width, ones, rng)
        if smallest_distance(key) > 0:
            return key
    raise TrainingError(
        f"{where}: no key with distinct rows found for {n_classes} classes "
        f"(got width={width}{'' if ones is None else f' with {ones} ones per row'}; need more). "
        "Take twice the width."
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


def _ones_per_row(width: int, sparsity: float | None) -> int | None:
    if sparsity is None:
        return None
    part = check_part("generate_key", "sparsity", sparsity, "the part of the outputs that fire")
    ones = round(part * width)
    if not 0 < ones < width:
        raise TrainingError(
            f"generate_key: sparsity {part:g} leaves {ones} of {width} outputs firing for a class "
            f"(need 1 to {width - 1}). Take a wider key or another sparsity."
        )
    return ones


def _separate_rows(
    n_classes: int, width: int, ones: int | None, rng: np.random.Generator
) -> NDArray[np.uint8]:
    if ones is not None and ones * n_classes > width:
        raise TrainingError(
            f"generate_key: {n_classes} classes with {ones} outputs of their own do not fit "
            f"(got width={width}; need >= {ones * n_classes}). Take a smaller sparsity, a wider "
            "key, or overlapping=True."
        )
    key = np.zeros((n_classes, width), dtype=np.uint8)
    outputs = rng.permutation(width)
    if ones is None:  # all outputs are used, as equally as possible
        for row, chosen in zip(key, np.array_split(outputs, n_classes), strict=True):
            row[chosen] = 1
    else:
        chosen = outputs[: ones * n_classes].reshape(n_classes, ones)
        np.put_along_axis(key, chosen, 1, axis=1)
    return key


def _rows_with_equal_distances(
    n_classes: int, width: int, ones: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    key = np.zeros((n_classes, width), dtype=np.uint8)
    used = np.zeros(width)
    for index in range(n_classes):
        choices = np.zeros((_CANDIDATES, width), dtype=np.uint8)
        for choice in choices:  # the least used outputs, at random among equals
            choice[np.argsort(used + rng.random(width))[:ones]] = 1
        overlap = choices.astype(np.int64) @ key[:index].T.astype(np.int64)
        best = int(np.argmin(np.square(overlap).sum(axis=1)))
        key[index] = choices[best]
        used += choices[best]
    return key
