"""Train the bundled digits network and write it to whetsim/networks/digits_conv.safetensors.

A small convolutional network with batch norm and max pooling for scikit-learn's digits (8x8 pixels,
0..16): trained on the first 1,437 images, tested on the last 360. A few minutes on one core.

    python benchmarks/training/train_digits.py [--out FILE] [--epochs N] [--seed N] [--threads N]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import (
    METHOD,
    ROOT,
    Data,
    Integers,
    Recipe,
    Task,
    batch_norm,
    distort,
    parse,
    train_and_export,
)
from numpy.typing import NDArray

from whetsim import datasets, sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

WIDTH = 100
TEMPERATURE = 20.0
DROPOUT = 0.1
KEY_SEED = 1
HIGH = 16
"""Largest grey value."""


def load_digits() -> Data:
    """Return scikit-learn's digits as maps of shape (8, 8, 1)."""
    x_train, y_train = datasets.load("digits", split="train")
    x_test, y_test = datasets.load("digits", split="test")
    return Data("digits", x_train[..., None], y_train, x_test[..., None], y_test, high=HIGH)


def build() -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv_1"),
            batch_norm(1, momentum=0.95),
            sharpen.SpikingBReLU(name="spikes_1"),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv_2"),
            batch_norm(2, momentum=0.95),
            layers.MaxPooling2D(2, name="pool_2"),
            sharpen.SpikingBReLU(name="spikes_2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(DROPOUT),
            layers.Dense(WIDTH, use_bias=False, name="dense_3"),
            batch_norm(3, momentum=0.95),
            sharpen.SpikingBReLU(name="spikes_3"),
            sharpen.SoftmaxDecode(
                sharpen.generate_key(10, WIDTH, seed=KEY_SEED), temperature=TEMPERATURE
            ),
        ]
    )


def augment(
    images: Integers, labels: NDArray[Any], rng: np.random.Generator
) -> tuple[Integers, NDArray[Any]]:
    """Distort the images."""
    return distort(images, rng, largest_shift=0.8, high=HIGH), labels


def main() -> None:
    """Train and write."""
    out = ROOT / "whetsim" / "networks" / "digits_conv.safetensors"
    options = parse(__doc__, "digits_conv", out=out)
    task = Task(
        name="digits_conv",
        script="benchmarks/training/train_digits.py",
        build=build,
        data=load_digits(),
        augment=augment,
        method=f"{METHOD}; dropout {DROPOUT}; softmax temperature "
        f"{TEMPERATURE:g}; random small affine distortions",
    )
    train_and_export(task, Recipe(160, 64, 5e-3, options.seed), options)


if __name__ == "__main__":
    main()
