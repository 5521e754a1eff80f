"""Units that never or always fire, and when a warning is due."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402

from whetsim.sharpen.dead_units import (  # noqa: E402
    DeadUnitWarning,
    find_dead_units,
    warn_of_dead_outputs,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

X = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")


def units(never: list[int], always: list[int], n_units: int = 10) -> sharpen.LayerActivity:
    fired = np.full(n_units, 2)
    fired[never], fired[always] = 0, 4
    return sharpen.LayerActivity("made up", 4, fired, margins={})


def two_layers() -> keras.Model:
    first, second = keras.layers.Dense(4), keras.layers.Dense(3)
    hidden, output = (sharpen.SpikingBReLU(name=name) for name in ("hidden", "output"))
    model = keras.Sequential([keras.Input((2,)), first, hidden, second, output])
    first.set_weights([np.ones((2, 4)), np.array([0.5, -99, 99, 0.5])])
    second.set_weights([np.zeros((4, 3)), np.array([0.4999, 0.5, 0.6])])
    return model


def test_dead_units_are_found_in_the_sharp_network() -> None:
    model = two_layers()
    dead = find_dead_units(model, X)
    assert list(dead) == ["hidden", "output"]
    assert dead["hidden"].never.tolist() == [1]
    assert dead["hidden"].always.tolist() == [2]
    assert (dead["hidden"].n_units, dead["hidden"].n_samples) == (4, 50)
    assert dead["output"].never.tolist() == [0]
    assert dead["output"].always.tolist() == [1, 2]
    assert (dead["output"].n_never, dead["output"].n_always) == (1, 2)
    assert [layer.sharpness for layer in sharpen.spiking_layers(model)] == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        dead["output"].never[0] = 1


def test_the_warning_names_layers_and_numbers_and_what_to_do() -> None:
    dead = {"hidden": units([1, 2], []), "output": units([3], [0, 9])}
    with pytest.warns(DeadUnitWarning) as caught:
        warn_of_dead_outputs(dead)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert text.startswith("layer 'output': 1 never fire and 2 always fire, of 10; ")
    assert "all 4 samples" in text
    assert "'hidden': 2 never fire and 0 always fire, of 10" in text
    for advice in ("Lower the learning rate while sharpening", "sharpening later", "beta 0.5"):
        assert advice in text
    assert text.endswith("take a wider key.")
    assert issubclass(DeadUnitWarning, UserWarning)
    assert caught[0].filename == __file__


def test_dead_units_below_the_outputs_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_dead_outputs({"hidden": units([1, 2], [3]), "output": units([], [])})


@pytest.mark.parametrize(
    ("never", "always", "text"),
    [
        ([0, 1], [], "1 never fire and 0 always fire, of 3"),  # 1 should fire at times, 0 never
        ([], [1, 2], "0 never fire and 1 always fire, of 3"),  # 2 should always fire
        ([0], [2], None),
    ],
)
def test_a_pixel_that_is_always_dark_is_not_dead(
    never: list[int], always: list[int], text: str | None
) -> None:
    targets = np.array([[0, 0, 1], [0, 1, 1]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_dead_outputs({"output": units(never, always, 3)}, targets)
    assert [text in str(w.message) for w in caught] == ([True] if text else [])


@pytest.mark.parametrize(
    ("dead", "targets", "text"),
    [
        ({}, None, "no layer given"),
        ({"output": units([], [])}, np.zeros((4, 9)), r"layer 'output' \(got 9 units; need 10\)"),
    ],
)
def test_wrong_use_is_named(dead: Any, targets: Any, text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        warn_of_dead_outputs(dead, targets)
