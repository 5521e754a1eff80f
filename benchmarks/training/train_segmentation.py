"""Train a small U-shaped network whose output spikes are the mask of clothes in cluttered scenes.

    python benchmarks/training/train_segmentation.py [--out FILE] [--epochs N] [--seed N]
                                                     [--threads N]

Strided convolutions halve the scene three times; transposed convolutions double it again and meet
what the way down found at the same size. In the spiking network each such skip connection is a
second projection, with a delay that makes both arrive together. scenes.py makes 10,000 scenes to
train on and 1,000 with other clothes to test on, as a spiking network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import METHOD, Data, Integers, Recipe, Task, batch_norm, parse, train_and_export
from numpy.typing import NDArray
from scenes import SIZE, Scenes, best_threshold, load_scenes, mean_iou, pooled_iou

from whetsim import sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

TRAIN_SCENES, TEST_SCENES = 10_000, 1_000
SCENE_SEED = 1
FILTERS = (32, 40, 48)
OUTPUT_NOISE = 0.3


def as_data(train: Scenes, test: Scenes) -> Data:
    """Return scenes as a data set whose targets are masks."""
    name = f"clothes of fashion-mnist in clutter (scenes.py, seed {SCENE_SEED})"
    return Data(name, train.images, train.masks, test.images, test.masks)


def build() -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    image = keras.Input((SIZE, SIZE, 1))
    x, ways_down = image, []
    for number, filters in enumerate(FILTERS, start=1):
        size = 5 if number == 1 else 3
        x = spikes(f"down_{number}", down(x, filters, size, f"down_{number}"))
        ways_down.append(x)
    for number in range(len(FILTERS) - 1, 0, -1):
        name, filters = f"up_{number}", FILTERS[number - 1]
        skip = same(ways_down[number - 1], filters, 3, f"{name}_skip")
        x = spikes(name, layers.Add(name=f"{name}_add")([up(x, filters, 4, name), skip]))
    skip = same(image, 1, 5, "mask_skip")
    x = output_spikes("mask", layers.Add(name="mask_add")([up(x, 1, 6, "mask"), skip]))
    return keras.Model(image, x)


def down(x: Any, filters: int, size: int, name: str) -> Any:
    """Return a convolution that halves the map."""
    return layers.Conv2D(filters, size, strides=2, padding="same", use_bias=False, name=name)(x)


def up(x: Any, filters: int, size: int, name: str) -> Any:
    """Return a transposed convolution that doubles the map."""
    return layers.Conv2DTranspose(
        filters, size, strides=2, padding="same", use_bias=False, name=name
    )(x)


def same(x: Any, filters: int, size: int, name: str) -> Any:
    """Return a convolution that keeps the map's size."""
    return layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)(x)


def spikes(name: str, x: Any) -> Any:
    """Return batch norm and a step."""
    return sharpen.SpikingBReLU(name=f"{name}_spikes")(batch_norm(name, 0.95)(x))


def output_spikes(name: str, x: Any) -> Any:
    """Return a step that learns from the squared error of its spikes.

    Such a step gets no gradient where it is right, and where it is wrong one that shrinks the
    pre-activation: with a free scale it would shrink to the threshold, where nothing is learned.
    So the scale is fixed, and noise, while training, asks for a margin.
    """
    half = keras.initializers.Constant(0.5)
    x = layers.BatchNormalization(
        momentum=0.95, scale=False, beta_initializer=half, name=f"norm_{name}"
    )(x)
    x = layers.GaussianNoise(OUTPUT_NOISE, name=f"noise_{name}")(x)
    return sharpen.SpikingBReLU(name=f"{name}_spikes")(x)


def flip(
    images: Integers, masks: NDArray[Any], rng: np.random.Generator
) -> tuple[Integers, NDArray[Any]]:
    """Mirror half of the scenes."""
    mirrored = rng.random(len(images)) < 0.5
    images, masks = images.copy(), masks.copy()
    images[mirrored], masks[mirrored] = images[mirrored, :, ::-1], masks[mirrored, :, ::-1]
    return images, masks


def facts(test: Scenes, found: NDArray[np.uint8]) -> dict[str, Any]:
    """Return more scores of the masks that were found, and what brightness alone would find."""
    threshold_iou, rule = best_threshold(test)
    return {
        "mean_iou": mean_iou(test.masks, found),
        "pixel_accuracy": float((found == test.masks).mean()),
        "best_threshold_iou": threshold_iou,
        "best_threshold": rule,
        "everything_iou": pooled_iou(test.masks, np.ones_like(test.masks)),
    }


def main() -> None:
    """Train and write."""
    options = parse(__doc__, "segmentation")
    train, test = load_scenes(TRAIN_SCENES, TEST_SCENES, SCENE_SEED)
    task = Task(
        name="segmentation",
        script="benchmarks/training/train_segmentation.py",
        build=build,
        data=as_data(train, test),
        augment=flip,
        method=f"{METHOD}; mean squared error of the mask, whose batch norm has a fixed scale and "
        f"noise of {OUTPUT_NOISE:g} behind it; half of the scenes mirrored",
        loss="mse",
        score=pooled_iou,
        score_name="iou",
        facts=lambda found: facts(test, found),
    )
    train_and_export(task, Recipe(24, 64, 3e-3, options.seed, start=0.2, stop=0.5), options)


if __name__ == "__main__":
    main()
