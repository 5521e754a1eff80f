"""Keras 3 layers of a network that is sharpened: activations that become steps, key readout.

Written with `keras.ops` alone, so that they work with the torch, JAX and TensorFlow backends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, final

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from whetsim.sharpen.checks import (
    TrainingError,
    check_flag,
    check_key,
    check_not_negative,
    check_positive,
    check_sharpness,
)

PACKAGE = "whetsim"


class SpikingActivation(keras.layers.Layer):  # type: ignore[misc]
    """Base of the activations that can be sharpened into a step.

    The state is two scalar, non-trainable variables, so that it is saved with the model and can be
    changed while a compiled training function is in use.

    Parameters
    ----------
    sharpness : float
        0 is the soft activation that training starts with, 1 an exact step.
    straight_through : bool
        At sharpness 1, pass gradients as if the sharpness were 0. Without it the gradient of a
        step is 0 and nothing below the layer learns. No effect at a sharpness below 1.
    margin_strength : float
        Weight of the margin regularizer, 0 (off) or more. 0.01 to 0.1 is a good range.
    margin_width : float
        Margin up to which the regularizer pushes, greater than 0.
    **kwargs
        Those of `keras.layers.Layer`.

    Attributes
    ----------
    observer : callable or None
        Called with input and output of every call; for looking inside a model that runs eagerly.

    Raises
    ------
    TrainingError
        If the sharpness is not a number between 0 and 1, or a margin number is out of range.

    Notes
    -----
    The margin regularizer adds `margin_strength * sharpness * mean(max(0, 1 - |x - threshold| /
    margin_width))` to the loss while training: it grows as the layer is sharpened and pushes
    pre-activations off the threshold, where rounding and noise decide.

    Value and gradient are computed apart and joined as `value + slope * (x - stop_gradient(x))`:
    the second term is exactly 0, so that outputs of a sharp layer are exactly 0 or 1, and the
    gradient is the stated slope with every backend (they differ on the gradient of a clip's edge).
    """

    threshold: ClassVar[float]
    """The smallest input that makes the sharp activation fire."""

    observer: Callable[[Any, Any], None] | None = None

    def __init__(
        self,
        sharpness: float = 0.0,
        straight_through: bool = False,
        margin_strength: float = 0.0,
        margin_width: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.margin_strength = check_not_negative(self.name, "margin_strength", margin_strength)
        self.margin_width = check_positive(self.name, "margin_width", margin_width)
        # autocast=False: in half precision a sharpness of 0.9999 would be rounded to 1.
        self._sharpness = self.add_weight(
            name="sharpness",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(check_sharpness(self.name, sharpness)),
            trainable=False,
            autocast=False,
        )
        self._straight_through = self.add_weight(
            name="straight_through",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(
                float(check_flag(self.name, "straight_through", straight_through))
            ),
            trainable=False,
            autocast=False,
        )

    @property
    def sharpness(self) -> float:
        """Sharpness, 0 to 1, as the float32 that the layer computes with."""
        return float(ops.convert_to_numpy(self._sharpness))

    @sharpness.setter
    def sharpness(self, value: float) -> None:
        self._sharpness.assign(check_sharpness(self.name, value))

    @property
    def straight_through(self) -> bool:
        """Whether gradients pass the layer when it is a step."""
        return bool(ops.convert_to_numpy(self._straight_through) > 0)

    @straight_through.setter
    def straight_through(self, value: bool) -> None:
        self._straight_through.assign(float(check_flag(self.name, "straight_through", value)))

    @property
    def is_sharp(self) -> bool:
        """Whether the layer is an exact step."""
        return self.sharpness == 1.0

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Apply the activation.

        Parameters
        ----------
        inputs : tensor
            Pre-activations, any shape.
        training : bool, optional
            Whether the margin regularizer adds to the loss; Keras sets it.

        Returns
        -------
        tensor
            Same shape, between 0 and 1; exactly 0 or 1 at sharpness 1.
        """
        x = ops.convert_to_tensor(inputs)
        # In float32: in half precision a softness of 1e-5 would be 0, and a tie 0 / 0.
        wide = ops.cast(x, "float32")
        sharpness = ops.convert_to_tensor(self._sharpness)
        straight_through = ops.convert_to_tensor(self._straight_through)
        is_step = sharpness >= 1.0
        # A step takes the shape of its straight-through gradient from sharpness 0.
        softness = ops.where(is_step, 1.0, 1.0 - sharpness)
        passes = ops.where(is_step, straight_through, 1.0)
        soft, slope = self._soft(wide, softness)
        step = ops.cast(wide >= self.threshold, "float32")
        gradient = ops.stop_gradient(slope * passes)
        value = ops.stop_gradient(ops.where(is_step, step, soft))
        value = ops.cast(value + gradient * (wide - ops.stop_gradient(wide)), x.dtype)
        if training and self.margin_strength:
            lack = ops.relu(1.0 - ops.absolute(x - self.threshold) / self.margin_width)
            # In float32: the mean of many half-precision numbers would be rounded away.
            self.add_loss(self.margin_strength * sharpness * ops.mean(ops.cast(lack, "float32")))
        if self.observer is not None:
            self.observer(x, value)
        return value

    @abstractmethod
    def _soft(self, x: Any, softness: Any) -> tuple[Any, Any]:
        """Return value and slope of the soft activation; softness is 1 - sharpness, above 0."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what a new layer of the same state is made from."""
        state = {
            "sharpness": self.sharpness,
            "straight_through": self.straight_through,
            "margin_strength": self.margin_strength,
            "margin_width": self.margin_width,
        }
        return {**super().get_config(), **state}


@final
@keras.saving.register_keras_serializable(package=PACKAGE)
class SpikingBReLU(SpikingActivation):
    """Bounded rectified linear unit that is sharpened into a step at 0.5.

    Notes
    -----
    With `w = 1 - sharpness`, the value is `clip((x - 0.5) / w + 0.5, 0, 1)` and the gradient is
    `1 / w` where `|x - 0.5| < w / 2`, else 0. At sharpness 1 the value is 1 where `x >= 0.5`
    (a tie fires), else 0; the gradient is 0, or with `straight_through` that of sharpness 0.

    References
    ----------
    W. Severa, C. M. Vineyard, R. Dellana, S. J. Verzi, J. B. Aimone: Training deep neural networks
    for binary communication with the Whetstone method. Nature Machine Intelligence 1, 86-94 (2019).

    Examples
    --------
    >>> layer = SpikingBReLU(sharpness=0.5)
    >>> layer.sharpness = 1.0
    >>> layer.is_sharp
    True
    """

    threshold = 0.5

    def _soft(self, x: Any, softness: Any) -> tuple[Any, Any]:
        distance = x - self.threshold
        value = ops.clip(distance / softness + self.threshold, 0.0, 1.0)
        slope = ops.cast(ops.absolute(distance) < softness / 2, x.dtype) / softness
        return value, slope


@final
@keras.saving.register_keras_serializable(package=PACKAGE)
class SpikingSigmoid(SpikingActivation):
    """Logistic sigmoid that is sharpened into a step at 0.

    Notes
    -----
    With `w = 1 - sharpness`, the value is `y = 1 / (1 + exp(-x / w))` and the gradient is
    `y (1 - y) / w`. At sharpness 1 the value is 1 where `x >= 0` (a tie fires), else 0; the
    gradient is 0, or with `straight_through` that of sharpness 0. The export writes the threshold
    0 to the file; mapping moves it to 0.5 by adding 0.5 to the biases.

    References
    ----------
    W. Severa, C. M. Vineyard, R. Dellana, S. J. Verzi, J. B. Aimone: Training deep neural networks
    for binary communication with the Whetstone method. Nature Machine Intelligence 1, 86-94 (2019).

    Examples
    --------
    >>> SpikingSigmoid(sharpness=1.0).threshold
    0.0
    """

    threshold = 0.0

    def _soft(self, x: Any, softness: Any) -> tuple[Any, Any]:
        value = ops.sigmoid(x / softness)
        return value, value * (1.0 - value) / softness


@final
@keras.saving.register_keras_serializable(package=PACKAGE)
class SoftmaxDecode(keras.layers.Layer):  # type: ignore[misc]
    """Class probabilities from the spikes of the last layer and an n-hot key.

    A class is a pattern of output spikes, a row of the key; its score grows with the number of
    outputs that agree with the pattern. Nothing here is trained.

    Parameters
    ----------
    key : array_like of int, shape (n_classes, n_outputs)
        0/1 patterns, one row per class (`generate_key`).
    temperature : float
        Divides the scores before the softmax; greater than 0. Scores span twice the number of
        outputs, so that at 1 the softmax is saturated for a wide key; a temperature of about a
        tenth of the width trains better. Predictions do not depend on it.
    **kwargs
        Those of `keras.layers.Layer`.

    Raises
    ------
    TrainingError
        If the key is not a matrix of zeros and ones with distinct rows, or the temperature is not
        greater than 0.

    Notes
    -----
    `softmax((2 s - 1) @ (2 K - 1)^T / temperature)` for outputs s in 0..1 and the key K.
    """

    def __init__(self, key: ArrayLike, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._key: NDArray[np.uint8] = check_key(self.name, key)
        self.temperature = check_positive(self.name, "temperature", temperature)

    @property
    def key(self) -> NDArray[np.uint8]:
        """The key, shape (n_classes, n_outputs), zeros and ones."""
        return self._key.copy()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check that there are as many inputs as outputs of the key."""
        if input_shape[-1] != self._key.shape[1] or len(input_shape) != 2:
            raise TrainingError(
                f"layer '{self.name}': the key does not fit its input (got shape "
                f"{tuple(input_shape[1:])} for a sample; need ({self._key.shape[1]},)). "
                "Make a key of that width, or flatten before it."
            )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """Decode.

        Parameters
        ----------
        inputs : tensor, shape (n_samples, n_outputs)
            Outputs of the last layer, 0 to 1.

        Returns
        -------
        tensor, shape (n_samples, n_classes)
            Probabilities; each row's sum is 1.
        """
        s = ops.convert_to_tensor(inputs)
        signs = ops.convert_to_tensor(2.0 * self._key.T - 1.0, dtype=s.dtype)
        return ops.softmax(ops.matmul(2.0 * s - 1.0, signs) / self.temperature)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (n_samples, n_classes)."""
        return (*input_shape[:-1], len(self._key))

    def get_config(self) -> dict[str, Any]:
        """Return what a new layer of the same key is made from."""
        state = {"key": self._key.tolist(), "temperature": self.temperature}
        return {**super().get_config(), **state}
