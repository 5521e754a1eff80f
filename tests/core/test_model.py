"""`Model`, `InputSpec` and `Readout`: graphs, shapes, and what they refuse."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from whetsim import layers as L
from whetsim.errors import FormatError
from whetsim.model import InputSpec, Model, Readout
from whetsim.testing.networks import all_kinds, conv_model, dense_model

SPEC = InputSpec((4,))


def step(name: str, *inputs: str) -> L.Step:
    return L.Step(name=name, inputs=inputs or ("input",))


def add(name: str, *inputs: str) -> L.Add:
    return L.Add(name=name, inputs=inputs)


def dense(name: str, source: str, n_in: int, n_out: int) -> L.Dense:
    return L.Dense(name=name, inputs=source, weight=np.ones((n_in, n_out), np.float32))


@pytest.mark.parametrize("make", [dense_model, conv_model, all_kinds])
@pytest.mark.parametrize("seed", range(5))
def test_layers_in_any_order_are_sorted(make: Any, seed: int) -> None:
    model = make(np.random.default_rng(0))
    shuffled = list(model.layers)
    Random(seed).shuffle(shuffled)
    again = Model("m", model.input, tuple(shuffled), output=model.output)
    seen = {"input"}
    for layer in again.layers:
        assert set(layer.inputs) <= seen
        seen.add(layer.name)
    assert again.shapes == model.shapes


def test_a_sorted_list_keeps_its_order() -> None:
    model = all_kinds(np.random.default_rng(0))
    again = Model("m", model.input, model.layers, output=model.output)
    assert [x.name for x in again.layers] == [x.name for x in model.layers]


def test_shapes_name_every_layer_and_the_input() -> None:
    model = Model("m", SPEC, (dense("d", "input", 4, 3), step("s", "d")))
    assert model.shapes == {"input": (4,), "d": (3,), "s": (3,)}
    assert model.output == "s"
    assert model["d"].n_parameters == model.n_parameters == 12
    with pytest.raises(KeyError):
        model["t"]


def test_the_output_may_stand_anywhere() -> None:
    model = Model("m", SPEC, (step("b", "a"), step("a")), output="b")
    assert [x.name for x in model.layers] == ["a", "b"]


def test_metadata_is_copied() -> None:
    metadata: dict[str, Any] = {"list": [1, 2]}
    model = Model("m", SPEC, (step("s"),), metadata=metadata)
    metadata["list"].append(3)
    assert model.metadata == {"list": [1, 2]}


BAD_MODELS: list[tuple[Any, str]] = [
    (lambda: Model("m", SPEC, ()), "the model has no layers"),
    (
        lambda: Model("m", SPEC, (step("a"), step("a"))),
        "layer 'a': the name is used twice. Rename one",
    ),
    (lambda: Model("m", SPEC, (step("input"),)), "layer 'input': this name is kept for the input"),
    (
        lambda: Model("m", SPEC, (step("first"), step("second", "frist"))),
        "layer 'second': its input 'frist' is no layer of the model. Did you mean 'first'",
    ),
    (
        lambda: Model("m", SPEC, (step("first"),), output="last"),
        "the output 'last' is no layer of the model",
    ),
    (lambda: Model("m", SPEC, (step("a", "a"),)), "layers form a circle: 'a' -> 'a'. Recurrent"),
    (
        lambda: Model("m", SPEC, (add("a", "input", "c"), step("b", "a"), step("c", "b"))),
        "layers form a circle: '[abc]' -> '[abc]' -> '[abc]' -> '[abc]'",
    ),
    (
        lambda: Model("m", SPEC, (step("a"), step("b", "a"), step("c", "a")), output="c"),
        "layer 'b': it does not lead to the output 'c'. Remove it, or make it the output",
    ),
    (
        lambda: Model("m", SPEC, (step("a"), step("b", "a")), output="a"),
        "layer 'b': it does not lead to the output 'a'",
    ),
    (
        lambda: Model("m", SPEC, (dense("a", "input", 4, 500), dense("dense_2", "a", 512, 10))),
        r"'dense_2': weight has shape \(512, 10\); expected \(500, n\) because 'a' has 500 outputs",
    ),
    (
        lambda: Model("m", SPEC, (dense("a", "input", 4, 0),)),
        r"layer 'a': its output has shape \(0,\) .need 1 to 16777216 units",
    ),
    (
        lambda: Model("m", SPEC, (step("s"),), readout=Readout(key=np.ones((2, 5), np.uint8))),
        "readout: it decodes 5 outputs; the output layer 's' has 4",
    ),
    (
        lambda: Model("m", SPEC, (step("s"),), metadata={"x": float("nan")}),
        "metadata: must be plain JSON values",
    ),
    (
        lambda: Model("m", SPEC, (step("s"),), metadata={"x": object()}),
        "metadata: must be plain JSON values",
    ),
    (
        lambda: Model("m", SPEC, tuple(step(f"s{i}") for i in range(10_001))),
        "the model has 10001 layers .need <= 10000",
    ),
]


@pytest.mark.parametrize(("build", "match"), BAD_MODELS, ids=[m for _, m in BAD_MODELS])
def test_refused_models(build: Any, match: str) -> None:
    with pytest.raises(FormatError, match=match) as caught:
        build()
    assert len(str(caught.value).splitlines()) == 1


BAD_INPUTS: list[tuple[tuple[Any, ...], str]] = [
    (((),), "shape must have 1 to 16 axes"),
    ((4,), "shape must have 1 to 16 axes"),
    (((1,) * 17,), "shape must have 1 to 16 axes"),
    (((0,),), "is empty or larger than 16777216"),
    (((-2, -2),), "is empty or larger"),
    (((2**16, 2**16),), "is empty or larger"),
    (((2.0,),), "must be whole numbers .got 2.0"),
    (((True,),), "must be whole numbers .got True"),
    (((2,), 0, 0), "range 0..0 must be rising"),
    (((2,), 1, 0), "range 1..0 must be rising"),
    (((2,), -(2**24) - 1, 0), "within"),
    (((2,), 0, 2**24 + 1), "within"),
    (((2,), 0, 0.5), "must be whole numbers"),
    (((2,), 0, 1, 0.0), "scale must be .*(positive|finite)"),
    (((2,), 0, 1, float("nan")), "scale must be .*(positive|finite)"),
    (((2,), 0, 1, float("inf")), "scale must be .*(positive|finite)"),
    (((2,), 0, 1, "1"), "scale must be a .*number"),
    (((2,), 0, 1, 10**400), "scale must be"),
]


@pytest.mark.parametrize(("values", "match"), BAD_INPUTS)
def test_refused_inputs(values: tuple[Any, ...], match: str) -> None:
    with pytest.raises(FormatError, match=f"input: .*{match}"):
        InputSpec(*values)


def test_input_takes_numpy_numbers() -> None:
    spec = InputSpec([np.int64(2), 3], np.int8(-1), np.uint8(255), np.float64(0.5))
    assert spec == InputSpec((2, 3), -1, 255, 0.5)
    assert spec.size == 6
    assert type(spec.shape) is tuple and type(spec.low) is int


BAD_READOUTS: list[tuple[dict[str, Any], str]] = [
    ({}, "need either a key or a decoder"),
    ({"key": np.eye(2), "decoder": np.eye(2)}, "need either a key or a decoder"),
    ({"key": np.ones(3)}, "expected .classes, outputs"),
    ({"key": np.ones((0, 3))}, "expected .classes, outputs"),
    ({"key": np.full((2, 2), 2)}, "key must hold 0 and 1 alone"),
    ({"key": np.full((2, 2), 0.5)}, "key must hold 0 and 1 alone"),
    ({"key": np.full((2, 2), "1")}, "key must hold 0 and 1 alone"),
    ({"decoder": np.eye(2, dtype=int)}, "decoder is int64 .*expected floats"),
    ({"decoder": np.ones(3)}, "expected floats .outputs, classes"),
    ({"decoder": np.full((2, 2), np.inf)}, "decoder holds NaN or infinite"),
    ({"bias": np.ones(2)}, "need either a key or a decoder"),
    ({"key": np.eye(2), "bias": np.ones(2)}, "a bias needs a decoder; a key has none"),
    ({"decoder": np.eye(2), "bias": [1, 2]}, "bias is int64 .*expected floats .2,"),
    ({"decoder": np.eye(2), "bias": np.ones(3)}, r"bias is float64 of shape \(3,\); expected"),
    ({"decoder": np.eye(2), "bias": np.array([0, np.nan])}, "bias holds NaN or infinite"),
]


@pytest.mark.parametrize(("values", "match"), BAD_READOUTS)
def test_refused_readouts(values: dict[str, Any], match: str) -> None:
    with pytest.raises(FormatError, match=f"readout: .*{match}"):
        Readout(**values)


def test_key_scores_by_plain_loops() -> None:
    rng = np.random.default_rng(0)
    key = rng.integers(0, 2, (4, 7)).astype(np.uint8)
    spikes = rng.integers(0, 2, (5, 7)).astype(bool)
    scores = Readout(key=key).scores(spikes)
    for sample in range(5):
        for label in range(4):
            equal = int((spikes[sample] == key[label].astype(bool)).sum())
            assert scores[sample, label] == equal - (7 - equal)


def test_decoder_is_used_as_it_is() -> None:
    decoder = np.array([[0.5, -1.25], [2.0, 0.75], [-3.0, 0.0]], np.float32)
    readout = Readout(decoder=decoder)
    assert (readout.n_outputs, readout.n_classes) == (3, 2)
    scores = readout.scores([[1, 0, 1], [0, 0, 0]])
    assert scores.dtype == np.float64
    assert scores.tolist() == [[0.5 - 2 - 3, -1.25 - 0.75], [-0.5 - 2 + 3, 1.25 - 0.75]]


def test_bias_is_added_to_the_scores() -> None:
    decoder = np.array([[0.5, -1.25], [2.0, 0.75]], np.float32)
    bias = np.array([0.25, -4], np.float32)
    readout = Readout(decoder=decoder, bias=bias)
    plain = Readout(decoder=decoder).scores([[1, 0], [0, 0]])
    assert np.array_equal(readout.scores([[1, 0], [0, 0]]), plain + np.array([0.25, -4]))
    bias[0] = 9
    assert readout.bias is not None and readout.bias.tolist() == [0.25, -4]
    with pytest.raises(ValueError, match="read-only"):
        readout.bias[0] = 0


def test_scores_do_not_depend_on_the_other_samples() -> None:
    rng = np.random.default_rng(1)
    readout = Readout(decoder=rng.normal(size=(100, 10)))
    spikes = rng.integers(0, 2, (333, 100))
    together = readout.scores(spikes)
    for i in (0, 1, 100, 332):
        assert np.array_equal(readout.scores(spikes[i : i + 1])[0], together[i])
    assert readout.scores(spikes[:0]).shape == (0, 10)
