"""What `diagnose` says about networks whose faults are built in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim import InputSpec, Model, Readout
from whetsim import layers as L
from whetsim.testing.networks import dense_model, ties_and_biases


def network(*layers: L.Layer, shape: tuple[int, ...] = (2,), **rest: Any) -> Model:
    spec = InputSpec(shape, 0, rest.pop("high", 1), rest.pop("scale", 1.0))
    return Model("net", spec, layers, **rest)


def dense(weight: Any, bias: Any = None, **rest: Any) -> list[L.Layer]:
    weight = np.array(weight, "f4")
    bias = None if bias is None else np.array(bias, "f4")
    step = L.Step(name="act", inputs="fc", **rest)
    return [L.Dense(name="fc", inputs="input", weight=weight, bias=bias), step]


def said(model: Model, where: str) -> list[str]:
    return [f"{f.level}: {f.what}" for f in whetsim.diagnose(model) if f.where == where]


KEY = Readout(key=np.eye(3, dtype=np.uint8))
ODD = math.pi / 3
"""A weight that is a multiple of nothing coarse."""


def test_a_sound_network_has_no_findings() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (2, 8))
    key = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]])
    model = network(*dense(weight, np.full(8, 0.01)), readout=Readout(key=key))
    dead = [f for f in whetsim.diagnose(model) if "population" not in f.where]
    assert dead == []


def test_units_that_never_or_always_fire_by_bound() -> None:
    weight = [[0.1, 0.3, ODD], [0.3, 0.2, -ODD]]
    model = network(*dense(weight, [0.0, 0.7, 0.0]), readout=KEY)
    assert said(model, "population 'act'") == [
        "warning: 1 of 3 neurons can never fire, whatever the input.",
        "warning: 1 of 3 neurons always fire, whatever the input.",
    ]


def test_the_bound_is_reached_exactly() -> None:
    # 0.25 + 0.25 is the threshold: it can fire; in a strict step it never can.
    assert not any(
        "never" in text for text in said(network(*dense([[0.25], [0.25]])), "population 'act'")
    )
    strict = network(*dense([[0.25], [0.25]], strict=True))
    assert said(strict, "population 'act'")[0].startswith("problem: 1 of 1 neurons can never")


def test_silence_is_followed_through_the_layers() -> None:
    first = dense([[0.1, ODD], [0.1, ODD]])
    second = L.Dense(name="fc2", inputs="act", weight=np.array([[ODD, 0], [0, ODD]], "f4"))
    model = network(*first, second, L.Step(name="out", inputs="fc2"))
    # The second neuron reads the one that can fire; the first reads the silent one alone.
    assert said(model, "population 'out'") == [
        "warning: 1 of 2 neurons can never fire, whatever the input."
    ]


def test_negative_inputs_count_in_the_bound() -> None:
    spec = InputSpec((1,), -1, 0, 1.0)
    fires = Model("negative", spec, dense([[-ODD]]))
    assert not any("never" in text for text in said(fires, "population 'act'"))
    silent = Model("negative", spec, dense([[ODD]]))
    assert said(silent, "population 'act'")[0].startswith("problem: 1 of 1 neurons can never fire")


def test_dead_channels_are_told_from_border_cells() -> None:
    weight = np.zeros((3, 3, 1, 2), "f4")
    weight[..., 0] = ODD / 12  # fires where six cells or more are seen, so not in the corners
    weight[..., 1] = -ODD
    conv = L.Conv2D(name="conv", inputs="input", weight=weight, padding="same")
    model = network(conv, L.Step(name="act", inputs="conv"), shape=(5, 5, 1))
    assert said(model, "population 'act'") == [
        "warning: 1 of 2 channels can never fire, whatever the input.",
        "note: 4 of 50 neurons can never fire where others of their channel do not "
        "(at borders windows see less).",
    ]


def test_ties_by_construction_and_their_rule() -> None:
    texts = {
        str(f) for f in whetsim.diagnose(ties_and_biases()) if "exactly the threshold" in f.what
    }
    assert len(texts) == 2
    assert all("weights are multiples of 0.25" in t and "such a tie fires" in t for t in texts)
    strict = network(*dense([[0.25, 0.3], [0.75, 0.3]], strict=True))
    (tie,) = (f for f in whetsim.diagnose(strict) if "exactly" in f.what)
    assert "sums of 1 of 2 neurons" in tie.what
    assert "does not fire" in tie.advice


@pytest.mark.parametrize("bias", [0.125, 1 / 3])
def test_a_bias_can_keep_sums_off_the_threshold(bias: float) -> None:
    model = network(*dense([[0.25], [0.75]], [bias]))
    assert not any("exactly" in text for text in said(model, "population 'act'"))


def test_weights_that_are_zero() -> None:
    assert said(network(*dense(np.zeros((2, 3)))), "layer 'fc'") == [
        "warning: all 6 weights are zero."
    ]
    some = network(*dense([[0, ODD, ODD], [0, ODD, ODD]]))
    assert said(some, "layer 'fc'") == ["warning: 1 of its 3 outputs have no weight but zero."]


@pytest.mark.parametrize("kind", ["conv2d_transpose", "depthwise_conv2d"])
def test_empty_outputs_of_other_weight_layouts(kind: str) -> None:
    weight = np.ones((2, 2, 3, 4), "f4")
    if kind == "conv2d_transpose":  # (kernel, kernel, outputs, inputs)
        weight[:, :, 1] = 0
        shape, n = (5, 5, 4), 3
    else:  # (kernel, kernel, channels, multiplier)
        weight[:, :, 1, 2] = 0
        shape, n = (5, 5, 3), 12
    layer = L.KINDS[kind](name="w", inputs="input", weight=weight)  # type: ignore[call-arg]
    model = network(layer, L.Step(name="act", inputs="w"), shape=shape)
    assert said(model, "layer 'w'") == [f"warning: 1 of its {n} outputs have no weight but zero."]


def test_batch_norm_of_a_channel_that_never_changed() -> None:
    variance = np.array([1.0, 1e-12], "f4")
    norm = L.BatchNorm(
        name="norm", inputs="input", mean=np.zeros(2, "f4"), variance=variance, epsilon=1e-5
    )
    (text,) = said(network(norm, L.Step(name="act", inputs="norm")), "layer 'norm'")
    assert "1 of 2 channels have a variance far below epsilon (1e-05)" in text
    assert "scaled by up to 316" in text


def test_a_network_that_is_not_sharp_is_a_problem() -> None:
    model = network(L.Activation(name="a", inputs="input", function="bounded_relu", sharpness=0.75))
    findings = whetsim.diagnose(model)
    assert [f.level for f in findings] == ["problem", "note"]
    assert "bounded_relu with sharpness 0.75 is no step" in findings[0].what
    assert "Sharpen it" in findings[0].advice


def test_what_cannot_be_mapped_is_a_problem() -> None:
    layer = L.Dense(name="fc", inputs="input", weight=np.ones((2, 2), "f4"))
    (problem, *_) = whetsim.diagnose(network(layer))
    assert problem.level == "problem"
    assert problem.where == "layer 'fc'"
    assert "not a step" in problem.what


def test_keys_that_cannot_be_told_apart() -> None:
    weight = np.full((2, 4), ODD)
    same = Readout(key=np.array([[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 0, 1]]))
    assert said(network(*dense(weight), readout=same), "readout") == [
        "warning: classes 0 and 1 have the same key, so they always tie."
    ]
    close = Readout(key=np.array([[1, 0, 1, 0], [1, 0, 1, 1]]))
    (text,) = said(network(*dense(weight), readout=close), "readout")
    assert "differ in 1 of 4 outputs alone" in text


def test_no_readout_is_noted() -> None:
    (text,) = said(network(*dense([[ODD], [ODD]])), "readout")
    assert text == "note: there is none: the result is the 1 output spikes themselves."


def test_a_dead_unit_is_silent_in_a_run() -> None:
    """The bound is right: what it calls dead never changes on random samples."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        model = dense_model(np.random.default_rng(seed), high=15)
        samples = rng.integers(0, 16, (200, *model.input.shape))
        recording = whetsim.run(whetsim.map_to_spikes(model), samples, record="rasters")
        for population in recording.network.populations:
            never = [f for f in said(model, f"population {population.name!r}") if "never" in f]
            always = [f for f in said(model, f"population {population.name!r}") if "always" in f]
            raster = recording.raster(population.name)
            counted = [int(t.split(": ")[1].split(" ")[0]) for t in never + always]
            constant = (raster == raster[:1]).all(axis=0).sum()
            assert sum(counted) <= constant


def test_what_the_reader_of_a_file_remarked() -> None:
    from whetsim.formats.reading import GUESSED

    source = {"format": "onnx", "remarks": ["the final softmax was dropped", GUESSED]}
    model = network(*dense([[ODD], [ODD]]), metadata={"source": source})
    assert said(model, "file") == ["note: the final softmax was dropped."]
    (guess,) = (f for f in whetsim.diagnose(model) if f.where == "input")
    assert guess.level == "warning"
    assert "--input-scale 1/255" in guess.advice


@pytest.mark.parametrize("source", [3, {"remarks": 3}, {"remarks": {"a": 1}}, []])
def test_metadata_of_another_meaning_is_ignored(source: Any) -> None:
    model = network(*dense([[ODD], [ODD]]), metadata={"source": source})
    assert [f.where for f in whetsim.diagnose(model)] == ["readout"]
