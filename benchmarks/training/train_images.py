"""Train dense and convolutional networks on MNIST and Fashion-MNIST, with grey or binary input.

    python benchmarks/training/train_images.py mnist-dense [--epochs N] [--seed N] [--threads N]

The networks are `mnist-dense`, `mnist-conv`, `fashion-dense` and `fashion-conv`; with `-binary`
behind, they read nothing but spikes (planes of pixels above a threshold). They are trained on the
60,000 training images and tested on the official 10,000, as spiking networks. The file
goes to benchmarks/networks, with the diary of the training beside it. docs/training.md has results
and times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import (
    METHOD,
    Data,
    Integers,
    Recipe,
    Task,
    batch_norm,
    distort,
    parse,
    shift,
    train_and_export,
)
from numpy.typing import NDArray

from whetsim import datasets, sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
from keras import layers

WIDTH = 100
KEY_SEED = 1
LARGEST_SHIFT = 1.5
"""Of a distorted image, in pixels."""
SCRIPT = "benchmarks/training/train_images.py"


@dataclass(frozen=True)
class Plan:
    """One network and how it is trained."""

    dataset: str
    epochs: int
    dense: tuple[int, ...]
    filters: tuple[int, ...] = ()
    padding: tuple[str, ...] = ()
    temperature: float = 20.0
    dropout: float = 0.0
    shift: int = 1
    flip: bool = False
    distort: bool = False
    start: float = 0.25
    stop: float = 0.6
    learning_rate: float = 3e-3
    batch_size: int = 256
    levels: tuple[int, ...] = ()


MNIST_DENSE = Plan("mnist", 80, (256, 64), start=0.05, stop=0.2)
MNIST_CONV = Plan(
    "mnist",
    20,
    (256,),
    filters=(32, 96),
    padding=("valid", "valid"),
    distort=True,
    learning_rate=2e-3,
    batch_size=128,
    start=0.1,
    stop=0.4,
)
FASHION_DENSE = Plan(
    "fashion-mnist", 50, (256, 64), shift=0, flip=True, dropout=0.15, start=0.05, stop=0.2
)
FASHION_CONV = replace(
    MNIST_CONV,
    dataset="fashion-mnist",
    epochs=20,
    filters=(48, 96),
    padding=("same", "valid"),
    distort=False,
    flip=True,
)
PLANS = {
    "mnist-dense": MNIST_DENSE,
    "mnist-conv": MNIST_CONV,
    "fashion-dense": FASHION_DENSE,
    "fashion-conv": FASHION_CONV,
    "mnist-dense-binary": replace(MNIST_DENSE, levels=(128,), epochs=40),
    "mnist-conv-binary": replace(MNIST_CONV, levels=(128,), epochs=8, start=0.125),
    "fashion-dense-binary": replace(FASHION_DENSE, levels=(48, 144)),
    "fashion-conv-binary": replace(
        FASHION_CONV, levels=(32, 96, 160, 224), filters=(32, 64), epochs=10
    ),
}


def load_data(plan: Plan) -> Data:
    """Return the images with a channel axis."""
    x_train, y_train = datasets.load(plan.dataset, split="train")
    x_test, y_test = datasets.load(plan.dataset, split="test")
    return Data(
        plan.dataset, x_train[..., None], y_train, x_test[..., None], y_test, levels=plan.levels
    )


def build(plan: Plan) -> keras.Model:
    """Return the untrained network; the names of the steps become names of populations."""
    network: list[Any] = [keras.Input((28, 28, max(len(plan.levels), 1)))]
    for number, filters in enumerate(plan.filters, start=1):
        network += [
            layers.Conv2D(
                filters, 5, padding=plan.padding[number - 1], use_bias=False, name=f"conv_{number}"
            ),
            layers.MaxPooling2D(2, name=f"pool_{number}"),
            batch_norm(number, momentum=0.97),
            sharpen.SpikingBReLU(name=f"spikes_{number}"),
        ]
    network.append(layers.Flatten(name="flatten"))
    for number, units in enumerate((*plan.dense, WIDTH), start=len(plan.filters) + 1):
        if plan.dropout and number > 1:
            network.append(layers.Dropout(plan.dropout))
        network += [
            layers.Dense(units, use_bias=False, name=f"dense_{number}"),
            batch_norm(number, momentum=0.97),
            sharpen.SpikingBReLU(name=f"spikes_{number}"),
        ]
    key = sharpen.generate_key(10, WIDTH, seed=KEY_SEED)
    network.append(sharpen.SoftmaxDecode(key, temperature=plan.temperature))
    return keras.Sequential(network)


def main() -> None:
    """Train and write the network named by the first argument."""
    options = parse(__doc__, PLANS)
    plan, name = PLANS[options.network], options.network.replace("-", "_")

    def augment(
        images: Integers, labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[Integers, NDArray[Any]]:
        if plan.distort:
            images = distort(images, rng, LARGEST_SHIFT)
        else:
            images = shift(images, rng, plan.shift)
        if plan.flip:
            mirrored = rng.random(len(images)) < 0.5
            images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return images, labels

    changes = [f"softmax temperature {plan.temperature:g}"]
    if plan.distort:
        changes.append("random small affine distortions")
    elif plan.shift:
        changes.append(f"shifts by up to {plan.shift} pixel")
    changes += ["mirrored at random"] * plan.flip
    changes += [f"dropout {plan.dropout:g}"] * bool(plan.dropout)
    task = Task(
        name=name,
        script=SCRIPT,
        build=lambda: build(plan),
        data=load_data(plan),
        augment=augment,
        method="; ".join([METHOD, *changes]),
    )
    recipe = Recipe(
        plan.epochs, plan.batch_size, plan.learning_rate, options.seed, plan.start, plan.stop
    )
    train_and_export(task, recipe, options)


if __name__ == "__main__":
    main()
