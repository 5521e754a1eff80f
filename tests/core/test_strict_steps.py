"""Steps that fire above their threshold alone: exact ties in every place where one may be."""

from __future__ import annotations

import numpy as np
import pytest

from whetsim import layers as L
from whetsim.mapping import map_to_spikes
from whetsim.model import INPUT, InputSpec, Model

from .test_mapping import dense, norm, spikes_of, step


@pytest.mark.parametrize("threshold", [0.5, 0.0, -0.25, 0.125, 1.0, 3.0])
def test_a_strict_step_is_silent_at_a_tie(threshold: float) -> None:
    # Below the threshold, a tie, above it by a quarter and by one part in 2^20.
    weight = [[threshold - 0.25, threshold, threshold + 0.25, threshold + 2.0**-20]]
    layers = (dense("d", INPUT, weight), step("s", "d", threshold, strict=True))
    model = Model("m", InputSpec((1,)), layers)
    assert spikes_of(model, [[1]]) == [[0, 0, 1, 1]]
    assert spikes_of(model, [[0]]) == [[int(threshold < 0)] * 4]
    population = map_to_spikes(model)["s"]
    assert np.array_equal(population.bias, (0.5 - threshold) * 2.0**population.exponent - 1)


@pytest.mark.parametrize("strict", [True, False])
def test_ties_of_grey_values(strict: bool) -> None:
    layers = (step("s", INPUT, 64 / 256, strict=strict),)
    model = Model("m", InputSpec((3,), 0, 255, 1 / 256), layers)
    assert spikes_of(model, [[63, 64, 65]]) == [[0, int(not strict), 1]]


@pytest.mark.parametrize("gamma", [1.0, -1.0, -0.5])
def test_a_strict_step_behind_a_pool_and_a_negative_scale(gamma: float) -> None:
    for threshold in gamma * np.arange(4) * 0.25:
        layers = (
            L.MaxPool2D(name="p", inputs=INPUT),
            norm("n", "p", [gamma]),
            step("s", "n", float(threshold), strict=True),
        )
        model = Model("m", InputSpec((2, 2, 1), 0, 3, 0.25), layers)
        samples = np.array(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).T.reshape(-1, 2, 2, 1)
        x = samples.max(axis=(1, 2, 3)) * 0.25 * gamma
        assert (x == threshold).any()
        assert spikes_of(model, samples) == (x > threshold)[:, None].astype(int).tolist()


def test_a_strict_step_at_the_largest_sum() -> None:
    # One grid unit less in the bias makes the largest sum need one more bit.
    weight = np.array([[-1 + 2.0**-31]])
    layers = (L.Dense(name="d", inputs=INPUT, weight=weight), step("s", "d", 0.5, strict=True))
    network = map_to_spikes(Model("m", InputSpec((1,)), layers))
    assert network["s"].bias.tolist() == [-1]
    assert network["s"].exponent.tolist() == [30]
    loose = map_to_spikes(Model("m", InputSpec((1,)), (layers[0], step("s", "d"))))
    assert loose["s"].exponent.tolist() == [31]
