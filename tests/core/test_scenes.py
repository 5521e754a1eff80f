"""The scenes that the segmentation network learns from: repeatable, and masks that are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.scripts import load_script

scenes = load_script("scenes")


def plain(grey: int, height: int = 20, width: int = 28) -> np.ndarray:
    """Return three objects of one grey without any margin."""
    return np.full((3, height, width), grey, np.uint8)


def ring() -> np.ndarray:
    """Return a bright frame around black."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[:, 4:24, 4:24] = 200
    image[:, 10:18, 10:18] = 0
    return image


def test_shapes_and_types() -> None:
    made = scenes.make_scenes(plain(200), n=12, seed=1)
    assert made.images.shape == made.masks.shape == (12, 32, 32, 1)
    assert made.images.dtype == made.masks.dtype == np.uint8
    assert set(np.unique(made.masks)) == {0, 1}
    assert made.objects.shape == (12, 2)
    assert (made.objects[:, 0] >= 0).all()
    assert made.objects.max() < 3
    assert (made.objects[:, 1] == -1).any() and (made.objects[:, 1] >= 0).any()


def test_the_seed_decides() -> None:
    first, again = (scenes.make_scenes(plain(200), n=5, seed=3) for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.masks, again.masks)
    assert np.array_equal(first.objects, again.objects)
    other = scenes.make_scenes(plain(200), n=5, seed=4)
    assert not np.array_equal(first.images, other.images)


def test_more_scenes_begin_with_the_same_ones() -> None:
    few, many = (scenes.make_scenes(plain(200), n=n, seed=3) for n in (2, 5))
    assert np.array_equal(few.images, many.images[:2])


def test_a_mask_covers_exactly_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "NOISE", 0.0)
    made = scenes.make_scenes(plain(200), n=30, seed=5)
    for image, mask, objects in zip(made.images, made.masks, made.objects, strict=True):
        greys = np.unique(image[mask == 1])
        assert len(greys) <= (objects >= 0).sum()  # one grey an object, and nothing besides
        low, high = (200 * gain for gain in scenes.OBJECT_GAIN)
        assert low - 0.5 <= greys.min() and greys.max() <= high + 0.5
        if objects[1] < 0:
            rows, columns = np.nonzero(mask[..., 0])
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert mask.sum() == height * width  # a whole rectangle, nothing cut off
            small, large = scenes.OBJECT_SCALE
            assert 20 * small - 1 <= height <= 20 * large + 1
            assert 28 * small - 1 <= width <= 28 * large + 1


def test_holes_belong_to_the_object() -> None:
    mask = scenes.find_mask(ring()[0])
    assert mask[4:24, 4:24].all()
    assert mask.sum() == 400


def test_the_background_does_not_depend_on_the_objects() -> None:
    dark, bright = (scenes.make_scenes(plain(grey), n=8, seed=2) for grey in (100, 250))
    assert np.array_equal(dark.masks, bright.masks)
    outside = dark.masks == 0
    assert np.array_equal(dark.images[outside], bright.images[outside])
    assert (dark.images[~outside] < bright.images[~outside]).mean() > 0.95


def test_training_and_test_scenes_show_different_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": plain(250), "test": ring()}

    def load(name: str, *, split: str) -> tuple[np.ndarray, np.ndarray]:
        assert name == "fashion-mnist"
        return splits[split], np.zeros(len(splits[split]), np.int64)

    monkeypatch.setattr(scenes.datasets, "load", load)
    train, test = scenes.load_scenes(6, 4, seed=7)
    assert np.array_equal(train.images, scenes.make_scenes(splits["train"], 6, 7).images)
    assert np.array_equal(test.images, scenes.make_scenes(splits["test"], 4, 8).images)


def test_objects_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"objects: too large \(got \(60, 60\); need at most 42"):
        scenes.make_scenes(plain(200, 60, 60), n=1, seed=1)
    with pytest.raises(ValueError, match="one has no pixel above 24"):
        scenes.make_scenes(plain(20), n=1, seed=1)


def test_intersection_over_union() -> None:
    masks = np.zeros((2, 4, 4, 1), np.uint8)
    masks[0, :2] = 1  # 8 pixels
    masks[1, 0, 0] = 1  # 1 pixel
    found = np.zeros_like(masks)
    found[0, 1:3] = 1  # 4 of them, and 4 more
    found[1, 0, 0] = 1
    assert scenes.pooled_iou(masks, found) == pytest.approx(5 / 13)
    assert scenes.mean_iou(masks, found) == pytest.approx((4 / 12 + 1) / 2)
    assert scenes.mean_iou(np.zeros_like(masks), np.zeros_like(masks)) == 1


def test_the_best_threshold_is_found() -> None:
    images = np.zeros((1, 32, 32, 1), np.uint8)
    images[0, 4:9, 3:7] = 90
    masks = (images > 0).astype(np.uint8)
    objects = np.array([[0, -1]])
    assert scenes.best_threshold(scenes.Scenes(images, masks, objects)) == (1.0, "x >= 1")
    dark = scenes.Scenes(255 - images, masks, objects)
    assert scenes.best_threshold(dark) == (1.0, "x <= 165")


def test_brightness_alone_does_not_find_clothes(data_folder: Path) -> None:
    """Real scenes: a threshold must do badly, or the task would be no task."""
    load = scenes.datasets.load
    clothes, _ = load("fashion-mnist", split="test", data_dir=data_folder)
    iou, _ = scenes.best_threshold(scenes.make_scenes(clothes, n=60, seed=1))
    assert iou < 0.5
