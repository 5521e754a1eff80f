"""Fixtures for the training side; they import Keras only when they are used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Gradient = Callable[[Any, np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Keep torch to one thread: on a busy machine more only wait for each other."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def gradient() -> Gradient:
    """Return a function (layer, x) -> d sum(layer(x)) / dx for the Keras backend in use."""
    import keras

    backend = keras.backend.backend()

    def with_torch(layer: Any, x: np.ndarray) -> np.ndarray:
        import torch

        leaf = torch.tensor(x, requires_grad=True)
        layer(leaf).sum().backward()
        return leaf.grad.numpy()

    def with_jax(layer: Any, x: np.ndarray) -> np.ndarray:
        import jax

        return np.asarray(jax.grad(lambda v: layer(v).sum())(x))

    def with_tensorflow(layer: Any, x: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        leaf = tf.Variable(x)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(leaf))
        return tape.gradient(total, leaf).numpy()

    return {"torch": with_torch, "jax": with_jax, "tensorflow": with_tensorflow}[backend]
