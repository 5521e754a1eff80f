"""Grey scenes of clothes among clutter, with the mask of the clothes: made from a seed, no files.

A scene is a textured background, shapes that are as bright as clothes, and one or two clothes from
Fashion-MNIST, shrunk and placed at random. Brightness alone does not tell what belongs to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from whetsim import datasets

SIZE = 32
"""Rows and columns of a scene."""
THRESHOLD = 24
"""Brighter pixels belong to an object, and so do holes inside."""
LARGEST = 2
"""Most objects in a scene."""
OBJECT_SCALE = (0.75, 1.0)
OBJECT_GAIN = (0.7, 1.0)
SHAPES = (1, 4)
"""Fewest and most shapes that are no clothes."""
NOISE = 4.0
"""Standard deviation of the noise of single pixels, in grey values."""

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Scenes:
    """Images and what is to be found in them."""

    images: NDArray[np.uint8]
    """Grey values, shape (n, SIZE, SIZE, 1)."""
    masks: NDArray[np.uint8]
    """1 where an object is, else 0; same shape."""
    objects: NDArray[np.int64]
    """Which objects were placed, shape (n, LARGEST); -1 for none. The last one lies on top."""


def make_scenes(objects: NDArray[np.uint8], n: int, seed: int) -> Scenes:
    """Make scenes, the same for the same arguments.

    Parameters
    ----------
    objects : uint8 array, shape (n_objects, height, width)
        Bright things on black.
    n : int
        Number of scenes.
    seed : int
        Of all random choices.

    Returns
    -------
    Scenes

    Raises
    ------
    ValueError
        If an object is empty, or no object can be made to fit into a scene.
    """
    if max(objects.shape[1:]) * OBJECT_SCALE[0] > SIZE:
        raise ValueError(
            f"objects: too large (got {objects.shape[1:]}; need at most "
            f"{int(SIZE / OBJECT_SCALE[0])} pixels). Shrink them first."
        )
    rng = np.random.default_rng(seed)
    images = np.empty((n, SIZE, SIZE, 1), np.uint8)
    masks = np.empty((n, SIZE, SIZE, 1), np.uint8)
    chosen = np.full((n, LARGEST), -1, np.int64)
    for index in range(n):
        canvas = _background(rng)
        for _ in range(rng.integers(SHAPES[0], SHAPES[1] + 1)):
            shape = _shape(rng)
            canvas[shape] = _surface(rng)[shape]
        mask = np.zeros((SIZE, SIZE), bool)
        for place in range(rng.integers(1, LARGEST + 1)):
            chosen[index, place] = rng.integers(len(objects))
            values, inside = _shrink(objects[chosen[index, place]], rng)
            top, left = (rng.integers(0, SIZE - extent + 1) for extent in inside.shape)
            window = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
            canvas[window][inside] = values[inside]
            mask[window] |= inside
        canvas += rng.normal(0.0, NOISE, canvas.shape)
        images[index, ..., 0] = np.clip(np.rint(canvas), 0, 255)
        masks[index, ..., 0] = mask
    return Scenes(images, masks, chosen)


def load_scenes(n_train: int, n_test: int, seed: int) -> tuple[Scenes, Scenes]:
    """Make scenes of Fashion-MNIST's clothes.

    Parameters
    ----------
    n_train, n_test : int
        Number of scenes to train on and to test on. No piece of clothing is in both: the former
        show those of the training split, the latter those of the test split.
    seed : int
        Of all random choices.

    Returns
    -------
    train, test : Scenes
    """
    train, _ = datasets.load("fashion-mnist", split="train")
    test, _ = datasets.load("fashion-mnist", split="test")
    return make_scenes(train, n_train, seed), make_scenes(test, n_test, seed + 1)


def find_mask(image: NDArray[np.uint8]) -> Bits:
    """Return which pixels belong to an object: bright ones, and holes between them."""
    mask: Bits = ndimage.binary_fill_holes(image > THRESHOLD)
    return mask


def pooled_iou(masks: NDArray[np.uint8], found: NDArray[Any]) -> float:
    """Return intersection over union, each summed over all pixels; 0.5 and more counts as found."""
    both, either = _overlap(masks, found)
    return float(both.sum() / either.sum())


def mean_iou(masks: NDArray[np.uint8], found: NDArray[Any]) -> float:
    """Return the mean over images of intersection over union; 1 for two empty masks."""
    both, either = _overlap(masks, found)
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def best_threshold(scenes: Scenes) -> tuple[float, str]:
    """Return what brightness alone can do.

    Parameters
    ----------
    scenes : Scenes
        The threshold is chosen on these very scenes, so the answer is no underestimate.

    Returns
    -------
    iou : float
        The pooled intersection over union of the best of all 512 rules.
    rule : str
        The rule.
    """
    rules = {}
    for level in range(256):
        rules[f"x >= {level}"] = pooled_iou(scenes.masks, scenes.images >= level)
        rules[f"x <= {level}"] = pooled_iou(scenes.masks, scenes.images <= level)
    rule = max(rules, key=lambda name: rules[name])
    return rules[rule], rule


def _overlap(
    masks: NDArray[np.uint8], found: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = masks.reshape(len(masks), -1) != 0
    second = found.reshape(len(found), -1) >= 0.5
    return (first & second).sum(axis=1), (first | second).sum(axis=1)


def _background(rng: np.random.Generator) -> Floats:
    """Return smooth noise, half the time with a grating on top."""
    mean, contrast = rng.uniform(20, 130), rng.uniform(10, 40)
    canvas = mean + contrast * _smooth_noise(rng, rng.uniform(0.7, 4.0))
    if rng.random() < 0.5:
        canvas += rng.uniform(10, 40) * _grating(rng)
    return canvas


def _surface(rng: np.random.Generator) -> Floats:
    """Return what a shape is painted with: a grey as of clothes, cloudy or striped."""
    grey, contrast = rng.uniform(20, 235), rng.uniform(0, 40)
    if rng.random() < 0.3:
        return grey + contrast * _grating(rng)
    return grey + contrast * _smooth_noise(rng, rng.uniform(0.5, 2.0))


def _smooth_noise(rng: np.random.Generator, sigma: float) -> Floats:
    noise: Floats = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap")
    return noise / noise.std()


def _grating(rng: np.random.Generator) -> Floats:
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(2.5, 12)
    rows, columns = np.indices((SIZE, SIZE))
    along = rows * np.sin(angle) + columns * np.cos(angle)
    wave: Floats = np.sin(2 * np.pi * along / wavelength + rng.uniform(0, 2 * np.pi))
    return wave


def _shape(rng: np.random.Generator) -> Bits:
    """Return the pixels of a turned rectangle, ellipse or stroke."""
    rows, columns = np.indices((SIZE, SIZE))
    y, x = rows - rng.uniform(0, SIZE), columns - rng.uniform(0, SIZE)
    angle = rng.uniform(0, np.pi)
    along = y * np.sin(angle) + x * np.cos(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = rng.choice(["rectangle", "ellipse", "stroke"])
    if kind == "stroke":
        bend = rng.uniform(-0.04, 0.04)
        near: Bits = np.abs(across - bend * along**2) < rng.uniform(0.6, 1.6)
        return near & (np.abs(along) < rng.uniform(6, 16))
    half_length, half_width = rng.uniform(3, 9), rng.uniform(2, 6)
    if kind == "rectangle":
        return (np.abs(along) < half_length) & (np.abs(across) < half_width)
    return (along / half_length) ** 2 + (across / half_width) ** 2 < 1


def _shrink(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Floats, Bits]:
    """Return an object smaller and darker, and its mask, both cropped to it."""
    small = ndimage.zoom(image, rng.uniform(*OBJECT_SCALE), order=1)
    mask = find_mask(small)
    if not mask.any():
        raise ValueError(f"objects: one has no pixel above {THRESHOLD}. Leave it out.")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return small[box] * rng.uniform(*OBJECT_GAIN), mask[box]
