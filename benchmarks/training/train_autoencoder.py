"""Train a convolutional autoencoder on MNIST that passes each digit through 128 neurons.

    python benchmarks/training/train_autoencoder.py [--out FILE] [--epochs N] [--seed N]
                                                    [--threads N]

Input is grey; the output spikes are to draw the digit in black and white, as its brighter half.
In between are 128 neurons, a sixth of the number of pixels. Trained on the 60,000 training images,
tested on the official 10,000, as a spiking network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import METHOD, Data, Recipe, Task, keep, parse, train_and_export
from numpy.typing import NDArray
from scenes import mean_iou, pooled_iou
from train_segmentation import OUTPUT_NOISE, output_spikes, spikes

from whetsim import datasets

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

HALF = 128
"""Least grey value that is ink."""
FILTERS = (16, 48)
CODE = 8
"""Channels of the code, which is 4 by 4."""


def load_data() -> Data:
    """Return MNIST with a channel axis; targets are the images in black and white."""
    x_train, _ = datasets.load("mnist", split="train")
    x_test, _ = datasets.load("mnist", split="test")
    x_train, x_test = x_train[..., None], x_test[..., None]
    return Data("mnist", x_train, ink(x_train), x_test, ink(x_test))


def ink(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 where an image is at least half as bright as can be, else 0."""
    return (images >= HALF).astype(np.uint8)


def build() -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    few, many = FILTERS
    image = keras.Input((28, 28, 1))
    same: dict[str, Any] = {"strides": 2, "padding": "same", "use_bias": False}
    x = spikes("down_1", layers.Conv2D(few, 5, name="down_1", **same)(image))
    x = spikes("down_2", layers.Conv2D(many, 3, name="down_2", **same)(x))
    x = spikes("code", layers.Conv2D(CODE, 4, use_bias=False, name="code")(x))
    x = spikes("up_2", layers.Conv2DTranspose(many, 4, use_bias=False, name="up_2")(x))
    x = spikes("up_1", layers.Conv2DTranspose(few, 4, name="up_1", **same)(x))
    x = output_spikes("drawing", layers.Conv2DTranspose(1, 6, name="drawing", **same)(x))
    return keras.Model(image, x)


def facts(data: Data, drawn: NDArray[np.uint8]) -> dict[str, Any]:
    """Return more scores of the drawings, and those of two that see no image."""
    truth = data.y_test
    usual = (data.y_train.mean(axis=0) >= 0.5).astype(np.uint8)
    drawings = {
        "": drawn,
        "all_white_": np.zeros_like(truth),
        "mean_image_": np.broadcast_to(usual, truth.shape),
    }
    result = {}
    for name, drawing in drawings.items():
        result[f"{name}pixel_accuracy"] = float((drawing == truth).mean())
        result[f"{name}ink_iou"] = pooled_iou(truth, drawing)
        result[f"{name}mean_ink_iou"] = mean_iou(truth, drawing)
    return result


def main() -> None:
    """Train and write."""
    options = parse(__doc__, "autoencoder")
    data = load_data()
    task = Task(
        name="autoencoder",
        script="benchmarks/training/train_autoencoder.py",
        build=build,
        data=data,
        augment=keep,
        method=f"{METHOD}; mean squared error of the drawing, whose batch norm has a fixed scale "
        f"and noise of {OUTPUT_NOISE:g} behind it",
        loss="mse",
        score=pooled_iou,
        score_name="ink_iou",
        facts=lambda drawn: facts(data, drawn),
    )
    train_and_export(task, Recipe(12, 128, 3e-3, options.seed, start=0.25, stop=0.5), options)


if __name__ == "__main__":
    main()
