"""Checks of what users pass to the training side, and the error they raise."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import WhetsimError


class TrainingError(WhetsimError, ValueError):
    """A layer, key, sharpener or export was given something that it cannot work with."""


def check_number(where: str, name: str, value: object) -> float:
    """Return `value` as a finite float.

    Raises
    ------
    TrainingError
        If it is not a number, or not finite.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainingError(f"{where}: {name} is not a number (got {value!r}; need a finite one).")
    return number


def check_sharpness(where: str, value: object) -> float:
    """Return `value` as a float between 0 and 1.

    Raises
    ------
    TrainingError
        If it is anything else.
    """
    number = check_number(where, "sharpness", value)
    if not 0.0 <= number <= 1.0:
        raise TrainingError(
            f"{where}: sharpness is out of range (got {number:g}; need 0 to 1). "
            "0 is the soft activation, 1 the step."
        )
    return number


def check_positive(where: str, name: str, value: object) -> float:
    """Return `value` as a float greater than 0.

    Raises
    ------
    TrainingError
        If it is anything else.
    """
    number = check_number(where, name, value)
    if number <= 0:
        raise TrainingError(f"{where}: {name} is out of range (got {number:g}; need > 0).")
    return number


def check_not_negative(where: str, name: str, value: object) -> float:
    """Return `value` as a float of at least 0.

    Raises
    ------
    TrainingError
        If it is anything else.
    """
    number = check_number(where, name, value)
    if number < 0:
        raise TrainingError(f"{where}: {name} is out of range (got {number:g}; need >= 0).")
    return number


def check_part(where: str, name: str, value: object, meaning: str) -> float:
    """Return `value` as a float between 0 and 1.

    Parameters
    ----------
    meaning : str
        What it is a part of, for the error.

    Raises
    ------
    TrainingError
        If it is anything else.
    """
    number = check_number(where, name, value)
    if not 0.0 <= number <= 1.0:
        raise TrainingError(
            f"{where}: {name} is out of range (got {number:g}; need 0 to 1). It is {meaning}."
        )
    return number


def check_flag(where: str, name: str, value: object) -> bool:
    """Return `value` as a bool.

    Raises
    ------
    TrainingError
        If it is not True or False (1 and 0 will do).
    """
    # A text would count as true, "no" as well.
    if not isinstance(value, (bool, int, float, np.bool_)) or value not in (0, 1):
        raise TrainingError(f"{where}: {name} is no flag (got {value!r}; need True or False).")
    return bool(value)


def check_count(where: str, name: str, value: object, smallest: int) -> int:
    """Return `value` as an int of at least `smallest`.

    Raises
    ------
    TrainingError
        If it is not an integer or too small.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TrainingError(
            f"{where}: {name} is not an integer (got {value!r}; need one >= {smallest})."
        ) from None
    if count < smallest:
        raise TrainingError(f"{where}: {name} is too small (got {count}; need >= {smallest}).")
    return count


def not_a_state(where: str, state: Mapping[str, Any], *needed: str) -> TrainingError:
    """Return the error for a state that lacks what is needed."""
    return TrainingError(
        f"{where}: this is not a state of it (got {', '.join(sorted(state)) or 'nothing'}; need "
        f"{', '.join(needed)}). Take one that state() returned."
    )


def logged(where: str, name: str, logs: Mapping[str, Any] | None) -> float:
    """Return an entry of an epoch's logs.

    Raises
    ------
    TrainingError
        If there is none of this name.
    """
    logs = logs or {}
    if name not in logs:
        raise TrainingError(
            f"{where}: the logs have no '{name}' (got {', '.join(sorted(logs))}). "
            "Pass validation data to fit, or monitor one of these."
        )
    return float(logs[name])


def check_key(where: str, key: ArrayLike, distinct: bool = True) -> NDArray[np.uint8]:
    """Return `key` as an array of zeros and ones, shape (n_classes, n_outputs).

    Parameters
    ----------
    where : str
        Named in the error.
    key : array_like of int or bool, shape (n_classes, n_outputs)
        At least two rows and one column.
    distinct : bool
        Refuse equal rows as well.

    Raises
    ------
    TrainingError
        If the key is anything else; equal rows are named.
    """
    try:
        rows = np.asarray(key)
    except ValueError:
        rows = np.empty(0)
    if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] < 1:
        raise TrainingError(
            f"{where}: key is not a matrix (got shape {rows.shape}; need (n_classes, n_outputs) "
            "with at least 2 classes). Make one with generate_key."
        )
    if not np.isin(rows, (0, 1)).all():
        raise TrainingError(
            f"{where}: key has other values than 0 and 1. Make one with generate_key."
        )
    rows = rows.astype(np.uint8)
    if distinct:
        seen: dict[bytes, int] = {}
        for index, row in enumerate(rows):
            twin = seen.setdefault(row.tobytes(), index)
            if twin != index:
                raise TrainingError(
                    f"{where}: key has equal rows for classes {twin} and {index} "
                    "(need distinct ones). Make one with generate_key."
                )
    return rows
