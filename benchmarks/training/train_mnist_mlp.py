"""Train the dense MNIST network and write it to benchmarks/networks/mnist_mlp.safetensors.

784-256-64-100 with batch norm, trained on the 60,000 training images, tested on the official
10,000. About five minutes on one core.

    python benchmarks/training/train_mnist_mlp.py [--out FILE] [--epochs N] [--seed N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import METHOD, ROOT, Data, Recipe, batch_norm, train_and_export
from numpy.typing import NDArray

from whetsim import datasets, sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

HIDDEN = (256, 64)
WIDTH = 100
TEMPERATURE = 20.0
KEY_SEED = 1
LARGEST_SHIFT = 1


def load_mnist() -> Data:
    """Return MNIST as vectors of 784 grey values."""
    x_train, y_train = datasets.load("mnist", split="train")
    x_test, y_test = datasets.load("mnist", split="test")
    return Data(
        "mnist", x_train.reshape(-1, 784), y_train, x_test.reshape(-1, 784), y_test, high=255
    )


def build() -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    network = [keras.Input((784,))]
    for number, units in enumerate((*HIDDEN, WIDTH), start=1):
        network += [
            layers.Dense(units, use_bias=False, name=f"dense_{number}"),
            batch_norm(number, momentum=0.97),
            sharpen.SpikingBReLU(name=f"spikes_{number}"),
        ]
    key = sharpen.generate_key(10, WIDTH, seed=KEY_SEED)
    network.append(sharpen.SoftmaxDecode(key, temperature=TEMPERATURE))
    return keras.Sequential(network)


def shift(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move each image by up to a pixel along both axes; what enters is black."""
    n, room = len(images), LARGEST_SHIFT
    padded = np.pad(images.reshape(n, 28, 28), ((0, 0), (room, room), (room, room)))
    row, column = rng.integers(0, 2 * room + 1, size=(2, n))
    rows, columns = row[:, None] + np.arange(28), column[:, None] + np.arange(28)
    moved: NDArray[np.uint8] = padded[
        np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return moved.reshape(n, -1)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = ROOT / "benchmarks" / "networks" / "mnist_mlp.safetensors"
    parser.add_argument("--out", type=Path, default=default, help="file to write")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    recipe = Recipe(
        epochs=arguments.epochs, batch_size=256, learning_rate=3e-3, seed=arguments.seed
    )
    train_and_export(
        build,
        load_mnist(),
        recipe,
        shift,
        path=arguments.out,
        script="benchmarks/training/train_mnist_mlp.py",
        method=f"{METHOD}; softmax temperature {TEMPERATURE:g}; images "
        f"shifted by up to {LARGEST_SHIFT} pixel",
    )


if __name__ == "__main__":
    main()
