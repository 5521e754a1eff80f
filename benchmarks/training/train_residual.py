"""Train a convolutional network with residual connections on MNIST.

    python benchmarks/training/train_residual.py [--out FILE] [--epochs N] [--seed N] [--threads N]

Each block adds the spikes that enter it to the pre-activations of its last step, as residual
networks do. In the spiking network the addition is a second projection, with a delay that makes
both arrive together. Trained on the 60,000 training images, tested on the official 10,000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import METHOD, Integers, Recipe, Task, batch_norm, distort, parse, train_and_export
from numpy.typing import NDArray
from train_images import KEY_SEED, LARGEST_SHIFT, MNIST_CONV, WIDTH, load_data

from whetsim import sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

TEMPERATURE = 20.0


def block(x: Any, filters: int, name: str) -> Any:
    """Return two convolutions with a step each; the input is added before the second step."""
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv_1")(x)
    y = sharpen.SpikingBReLU(name=f"{name}_spikes_1")(batch_norm(f"{name}_1", 0.97)(y))
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv_2")(y)
    # The batch norm starts at 0, so that the block passes its input on until it has learned.
    y = layers.BatchNormalization(momentum=0.97, gamma_initializer="zeros", name=f"{name}_norm")(y)
    return sharpen.SpikingBReLU(name=f"{name}_spikes_2")(layers.Add(name=f"{name}_add")([y, x]))


def narrow(x: Any, filters: int, size: int, name: str) -> Any:
    """Return a convolution, a max pool and a step."""
    y = layers.Conv2D(filters, size, padding="same", use_bias=False, name=f"{name}_conv")(x)
    y = layers.MaxPooling2D(2, name=f"{name}_pool")(y)
    return sharpen.SpikingBReLU(name=f"{name}_spikes")(batch_norm(name, 0.97)(y))


def build() -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    image = keras.Input((28, 28, 1))
    x = block(narrow(image, 24, 5, "first"), 24, "block_1")
    x = block(narrow(x, 48, 3, "second"), 48, "block_2")
    x = layers.MaxPooling2D(2, name="last_pool")(x)
    x = layers.Dense(WIDTH, use_bias=False, name="output_dense")(layers.Flatten(name="flatten")(x))
    x = sharpen.SpikingBReLU(name="output_spikes")(batch_norm("output", 0.97)(x))
    key = sharpen.generate_key(10, WIDTH, seed=KEY_SEED)
    return keras.Model(image, sharpen.SoftmaxDecode(key, temperature=TEMPERATURE)(x))


def augment(
    images: Integers, labels: NDArray[Any], rng: np.random.Generator
) -> tuple[Integers, NDArray[Any]]:
    """Distort the images."""
    return distort(images, rng, LARGEST_SHIFT), labels


def main() -> None:
    """Train and write."""
    options = parse(__doc__, "mnist_residual")
    task = Task(
        name="mnist_residual",
        script="benchmarks/training/train_residual.py",
        build=build,
        data=load_data(MNIST_CONV),
        augment=augment,
        method=f"{METHOD}; softmax temperature {TEMPERATURE:g}; random small affine distortions",
    )
    train_and_export(task, Recipe(8, 128, 2e-3, options.seed, 0.125, 0.5), options)


if __name__ == "__main__":
    main()
