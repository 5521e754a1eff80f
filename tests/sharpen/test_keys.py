"""Keys: distinct, well separated, reproducible rows."""

from __future__ import annotations

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)


@pytest.mark.parametrize(
    ("n_classes", "width"), [(2, 1), (3, 2), (10, 4), (10, 40), (10, 100), (26, 64)]
)
def test_rows_are_distinct_and_no_output_is_constant(n_classes: int, width: int) -> None:
    for seed in range(5):
        key = sharpen.generate_key(n_classes, width, seed)
        assert key.shape == (n_classes, width)
        assert key.dtype == np.uint8
        assert len(np.unique(key, axis=0)) == n_classes
        ones = key.sum(axis=0)
        assert set(ones.tolist()) <= {n_classes // 2, n_classes - n_classes // 2}


def test_distance_is_close_to_the_plotkin_bound() -> None:
    # No key of 10 rows and 100 columns has a smallest distance above 100 * 5 / 9 = 55.6.
    for seed in range(5):
        assert sharpen.smallest_distance(sharpen.generate_key(10, 100, seed)) >= 50


def test_equal_seeds_give_equal_keys_and_leave_global_randomness_alone() -> None:
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first = sharpen.generate_key(10, 40, seed=1)
    assert np.random.rand() == expected  # noqa: NPY002
    np.testing.assert_array_equal(first, sharpen.generate_key(10, 40, seed=1))
    assert (first != sharpen.generate_key(10, 40, seed=2)).any()


def test_smallest_distance_counts_differing_outputs() -> None:
    assert sharpen.smallest_distance([[0, 0, 0], [1, 1, 1], [0, 1, 1]]) == 1
    assert sharpen.smallest_distance([[0, 1], [0, 1]]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, 10, 0), r"generate_key: n_classes is too small \(got 1; need >= 2\)"),
        ((10, 3, 0), r"generate_key: width is too small \(got 3; need >= 4\)"),
        ((10, 40, -1), r"generate_key: seed is too small \(got -1; need >= 0\)"),
        ((10, 4.5, 0), r"generate_key: width is not an integer \(got 4.5; need one >= 4\)"),
    ],
)
def test_impossible_keys_are_refused(arguments: tuple[int, int, int], text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        sharpen.generate_key(*arguments)


@pytest.mark.parametrize(
    ("n_classes", "width", "sparsity"), [(10, 100, 0.1), (10, 100, 0.3), (5, 12, 0.25), (2, 3, 0.4)]
)
def test_sparsity_is_the_part_of_outputs_that_fire(
    n_classes: int, width: int, sparsity: float
) -> None:
    for seed in range(5):
        key = sharpen.generate_key(n_classes, width, seed, sparsity=sparsity)
        assert (key.sum(axis=1) == round(sparsity * width)).all()
        assert sharpen.smallest_distance(key) > 0
        used = key.sum(axis=0)  # outputs are used equally often
        assert used.max() - used.min() <= 1


def test_sparse_rows_are_far_apart() -> None:
    # Ten rows with ten ones of a hundred need not touch, and then differ in twenty outputs.
    assert sharpen.smallest_distance(sharpen.generate_key(10, 100, 1, sparsity=0.1)) == 20
    assert sharpen.smallest_distance(sharpen.generate_key(10, 100, 1, sparsity=0.3)) >= 36


@pytest.mark.parametrize(("width", "sparsity", "ones"), [(103, None, 10), (100, 0.07, 7)])
def test_classes_can_have_outputs_of_their_own(
    width: int, sparsity: float | None, ones: int
) -> None:
    key = sharpen.generate_key(10, width, seed=1, overlapping=False, sparsity=sparsity)
    assert key.sum(axis=0).max() == 1
    assert set(key.sum(axis=1).tolist()) <= {ones, ones + (sparsity is None)}
    assert key.sum() == (width if sparsity is None else 70)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sparsity": 0.001}, r"sparsity 0.001 leaves 0 of 40 outputs firing .*need 1 to 39"),
        ({"sparsity": 1.0}, "sparsity 1 leaves 40 of 40"),
        ({"sparsity": 1.5}, r"sparsity is out of range \(got 1.5; need 0 to 1\)"),
        ({"sparsity": 0.2, "overlapping": False}, r"do not fit \(got width=40; need >= 80\)"),
    ],
)
def test_impossible_patterns_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        sharpen.generate_key(10, 40, 1, **options)
