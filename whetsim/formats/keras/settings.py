"""The settings of one Keras layer, each checked where it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim import layers as L
from whetsim.errors import FormatError, did_you_mean, quote
from whetsim.formats.keras.config import LayerConfig, plain

__all__ = ["Settings"]

MAX_RANK = 16
_MISSING: Any = object()


class Settings:
    """What a layer's configuration says; a setting without a default must be there.

    Parameters
    ----------
    layer : LayerConfig

    Raises
    ------
    FormatError
        By every method, if the setting is missing or of another type; the text names the layer.
    """

    def __init__(self, layer: LayerConfig) -> None:
        self._layer = layer

    def error(self, text: str) -> FormatError:
        """Return an error that names the layer."""
        return FormatError(f"layer {quote(self._layer.full_name)}: {text}")

    def has(self, key: str) -> bool:
        """Return whether a setting is there and not null."""
        return self._layer.config.get(key) is not None

    def whole(self, key: str, default: int = _MISSING, low: int = 1) -> int:
        """Return a whole number of at least `low`."""
        return self._whole(key, self._get(key, default), low)

    def flag(self, key: str, default: bool = _MISSING) -> bool:
        """Return true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false (got {quote(value)}).")
        return value

    def number(self, key: str, default: float = _MISSING) -> float:
        """Return a finite number."""
        return L.finite(self._get(key, default), f"layer {quote(self._layer.full_name)}: {key}")

    def word(self, key: str, choices: Sequence[str], default: str = _MISSING) -> str:
        """Return one of several words."""
        value = self._get(key, default)
        if value not in choices:
            raise self.error(
                f"{key} is {quote(value)} (need {' or '.join(map(repr, choices))})."
                f"{did_you_mean(value, choices)}"
            )
        return str(value)

    def sizes(self, key: str, n: int, default: Any = _MISSING, low: int = 1) -> tuple[int, ...]:
        """Return n whole numbers; a single one counts for all."""
        value = self._get(key, default)
        given = value if isinstance(value, list) else [value] * n
        if len(given) != n:
            raise self.error(f"{key} has {len(given)} entries (need {n}).")
        return tuple(self._whole(key, v, low) for v in given)

    def axes(self, key: str, rank: int, default: Any = _MISSING) -> tuple[int, ...]:
        """Return axes of a sample; the file counts the axis of the samples as well."""
        value = self._get(key, default)
        result = []
        for axis in value if isinstance(value, list) else [value]:
            number = self._whole(key, axis, -rank)
            if number == 0 or number > rank:
                raise self.error(f"{key} is {number} (need 1 to {rank}, or -{rank} to -1).")
            result.append(number - 1 if number > 0 else number + rank)
        return tuple(result)

    def axis(self, key: str, rank: int) -> int:
        """Return one axis of a sample, the last by default."""
        axes = self.axes(key, rank, -1)
        if len(axes) != 1:
            raise self.error(f"{key} has {len(axes)} entries (need one).")
        return axes[0]

    def numbers(self, key: str) -> NDArray[np.float32]:
        """Return a number or nested lists of numbers as an array."""
        value = self._get(key, _MISSING)
        try:
            return np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise self.error(f"{key} must be a number or an array (got {quote(value)}).") from None

    def pads(self, key: str, n: int) -> list[tuple[int, int]]:
        """Return cells before and after each of n axes."""
        value = self._get(key, _MISSING)
        if not isinstance(value, list):
            value = [value] * n
        elif n == 1 and len(value) == 2:
            value = [value]
        if len(value) != n:
            raise self.error(f"{key} has {len(value)} entries (need {n}).")
        result = []
        for entry in value:
            both = plain(entry) if isinstance(plain(entry), list) else [entry, entry]
            if len(both) != 2:
                raise self.error(f"{key} is {quote(value)} (need two numbers for each axis).")
            result.append((self._whole(key, both[0], 0), self._whole(key, both[1], 0)))
        return result

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a shape in which -1 may stand for what is left."""
        value = self._get(key, _MISSING)
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_RANK:
            raise self.error(f"{key} must be a list of 1 to {MAX_RANK} numbers.")
        return tuple(self._whole(key, v, -1) for v in value)

    def channel_axis(self, n_axes: int) -> int:
        """Return the axis of the channels beside n others."""
        if self._layer.config.get("data_format") is None:
            return n_axes
        order = self.word("data_format", ("channels_last", "channels_first"))
        return n_axes if order == "channels_last" else 0

    def unset(self, key: str, *values: Any) -> None:
        """Refuse a setting that is anything but missing, null or one of `values`."""
        value = plain(self._layer.config.get(key))
        if value is not None and value not in values:
            need = " or ".join(repr(v) for v in (*values, None))
            raise self.error(f"{key} = {quote(value)} cannot be expressed (need {need}).")

    def _get(self, key: str, default: Any) -> Any:
        value = plain(self._layer.config.get(key, default))
        if value is _MISSING:
            raise self.error(f"its configuration has no {key}. The file is damaged.")
        return value

    def _whole(self, key: str, value: Any, low: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{key} must be a whole number (got {quote(value)}).")
        if not low <= value <= L.MAX_EXTENT:
            raise self.error(f"{key} is {value} (need {low} to {L.MAX_EXTENT}).")
        return value
