"""Spikes and margins inside a model, against plain numpy, and that looking changes nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402

from whetsim.sharpen.observe import QUANTILES, observe  # noqa: E402

# Keras reads torch tensors in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

WEIGHTS = np.random.default_rng(1).normal(size=(5, 7)).astype("float32")
MODULE = import_module("whetsim.sharpen.observe")  # the name in the package is the function
BIAS = np.array([0.5, 9, -9, 0.5, 0.2, 0.7, 0.5], dtype="float32")
X = np.random.default_rng(2).normal(size=(23, 5)).astype("float32")


def dense_model(**state: Any) -> keras.Model:
    dense = keras.layers.Dense(7, name="dense")
    layers = [keras.Input((5,)), dense, sharpen.SpikingBReLU(name="spikes", **state)]
    model = keras.Sequential(layers, name="net")
    dense.set_weights([WEIGHTS, BIAS])
    return model


def conv_model() -> keras.Model:
    keras.utils.set_random_seed(4)
    inner = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(6)], name="inner"
    )
    inner.add(sharpen.SpikingBReLU(name="inside"))
    x = image = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3)(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.3)(x)
    x = sharpen.SpikingBReLU(name="outside")(x)
    x = keras.layers.Dense(4, activity_regularizer="l2")(inner(x))
    model = keras.Model(image, sharpen.SpikingBReLU(name="last")(x))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def values_of(model: keras.Model, layer: str, x: np.ndarray) -> np.ndarray:
    inner = keras.Model(model.inputs, model.get_layer(layer).output)
    return np.asarray(inner.predict(x, verbose=0))


@pytest.mark.parametrize("batch_size", [1, 5, 500])
def test_spikes_and_margins_are_those_of_numpy(batch_size: int) -> None:
    v = X @ WEIGHTS + BIAS
    fired = v >= 0.5
    seen = observe(dense_model(), X, batch_size=batch_size, sharp=True)
    assert seen.sharp
    np.testing.assert_array_equal(seen.outputs, fired)
    layer = seen.layers["spikes"]
    assert (layer.name, layer.n_units, layer.n_samples) == ("spikes", 7, 23)
    np.testing.assert_array_equal(layer.fired, fired.sum(axis=0))
    assert layer.spikes_per_sample == fired.sum() / 23
    assert layer.never.tolist() == [2]
    assert layer.always.tolist() == [1]
    assert tuple(layer.margins) == QUANTILES
    expected = np.quantile(np.abs(v.astype(float) - 0.5), QUANTILES)
    np.testing.assert_allclose(list(layer.margins.values()), expected, rtol=1e-5)


def test_a_soft_network_is_observed_as_it_is() -> None:
    v = X @ WEIGHTS + BIAS
    seen = observe(dense_model(sharpness=0.5), X)
    assert not seen.sharp
    np.testing.assert_allclose(seen.outputs, np.clip((v - 0.5) / 0.5 + 0.5, 0, 1), atol=1e-5)
    np.testing.assert_array_equal(seen.layers["spikes"].fired, (v >= 0.5).sum(axis=0))
    assert observe(dense_model(sharpness=1.0), X).sharp


def test_the_threshold_is_that_of_the_layer() -> None:
    model = keras.Sequential([keras.Input((5,)), sharpen.SpikingSigmoid(name="spikes")])
    layer = observe(model, X, sharp=True).layers["spikes"]
    np.testing.assert_array_equal(layer.fired, (X >= 0).sum(axis=0))
    np.testing.assert_allclose(
        list(layer.margins.values()), np.quantile(np.abs(X), QUANTILES), rtol=1e-5
    )


def test_convolutions_inner_models_and_position_of_units() -> None:
    model = conv_model()
    x = np.random.default_rng(0).normal(size=(9, 6, 6, 1)).astype("float32")
    seen = observe(model, x, batch_size=4, sharp=True)
    assert list(seen.layers) == [layer.name for layer in sharpen.spiking_layers(model)]
    assert [layer.n_units for layer in seen.layers.values()] == [48, 6, 4]
    sharpen.set_sharpness(model, 1.0)
    spikes = values_of(model, "outside", x)
    np.testing.assert_array_equal(seen.layers["outside"].fired, spikes.sum(axis=0).reshape(-1))
    np.testing.assert_array_equal(seen.outputs, np.asarray(model.predict(x, verbose=0)))


def test_a_layer_that_is_used_twice_has_units_for_each_use() -> None:
    shared = sharpen.SpikingBReLU(name="shared")
    a, b = keras.Input((5,)), None
    b = keras.layers.Rescaling(2.0)(a)
    joined = keras.layers.Concatenate()([shared(a), shared(b)])
    layer = observe(keras.Model(a, joined), X, batch_size=10, sharp=True).layers["shared"]
    both = np.concatenate([X >= 0.5, 2 * X >= 0.5], axis=1)
    np.testing.assert_array_equal(np.sort(layer.fired), np.sort(both.sum(axis=0)))
    assert layer.n_units == 10


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("straight_through", [False, True])
def test_looking_leaves_everything_as_it_was(sharp: bool, straight_through: bool) -> None:
    model = conv_model()
    for layer in sharpen.spiking_layers(model):
        layer.sharpness, layer.straight_through = 0.3, straight_through
    x = np.random.default_rng(0).normal(size=(9, 6, 6, 1)).astype("float32")
    model.fit(x, np.zeros((9, 4)), verbose=0)

    def state() -> list[np.ndarray]:
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

    before = state()
    observe(model, x, sharp=sharp)
    for old, new in zip(before, state(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(layer.observer is None for layer in sharpen.spiking_layers(model))


def test_everything_is_put_back_after_an_exception() -> None:
    model = dense_model(sharpness=0.25, straight_through=True)
    (layer,) = sharpen.spiking_layers(model)
    told: list[int] = []
    layer.observer = lambda x, value: told.append(len(x))
    with pytest.raises(sharpen.TrainingError, match=r"'net' does not run on these samples"):
        observe(model, np.zeros((3, 4)), sharp=True)
    assert layer.sharpness == 0.25
    assert layer.straight_through
    model(X)
    assert told == [23]


def test_of_many_margins_a_fixed_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "MOST_MARGINS", 40)
    v = (X @ WEIGHTS + BIAS).reshape(-1)
    every = 5  # 161 margins, at most 40: each fifth, which shares no factor with 7 units
    expected = np.quantile(np.abs(v[::every].astype(float) - 0.5), QUANTILES)
    for batch_size in (1, 6, 23):
        layer = observe(dense_model(), X, batch_size=batch_size).layers["spikes"]
        np.testing.assert_allclose(list(layer.margins.values()), expected, rtol=1e-5)
    monkeypatch.setattr(MODULE, "MOST_MARGINS", 23)
    expected = np.quantile(np.abs(v[::8].astype(float) - 0.5), QUANTILES)  # 7 would see one unit
    layer = observe(dense_model(), X).layers["spikes"]
    np.testing.assert_allclose(list(layer.margins.values()), expected, rtol=1e-5)


def test_values_are_frozen() -> None:
    seen = observe(dense_model(), X)
    with pytest.raises(ValueError, match="read-only"):
        seen.outputs[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        seen.layers["spikes"].fired[0] = 0
    with pytest.raises(TypeError):
        seen.layers["spikes"].margins[0.5] = 0  # type: ignore[index]


def test_other_arrays_are_taken() -> None:
    expected = observe(dense_model(), np.round(X)).outputs
    frozen = np.round(X).astype("float64")
    frozen.flags.writeable = False
    for x in (frozen, frozen.astype(int), frozen.tolist()):
        np.testing.assert_array_equal(observe(dense_model(), x).outputs, expected)


class Odd(keras.Model):  # type: ignore[misc]
    """Turns the batch axis away from the first place, or leaves a layer out."""

    def __init__(self, leave_out: bool) -> None:
        super().__init__(name="odd")
        self.spikes = sharpen.SpikingBReLU(name="spikes")
        self.leave_out = leave_out
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        return x if self.leave_out else keras.ops.transpose(self.spikes(keras.ops.transpose(x)))


@pytest.mark.parametrize(
    ("model", "x", "text"),
    [
        (dense_model, [], r"x is empty \(got shape \(0,\); need at least one sample\)"),
        (dense_model, np.zeros((3, 0)), r"x is empty \(got shape \(3, 0\)"),
        (dense_model, [["a"]], r"x is not an array of numbers \(got list; need shape"),
        (dense_model, [[1], [1, 2]], r"x is not an array of numbers"),
        (dense_model, 3.0, r"x is not an array of numbers \(got float"),
        (lambda: keras.Sequential([sharpen.SpikingBReLU()], name="n"), X, "'n' is not built"),
        (lambda: keras.Sequential([keras.Input((5,))], name="n"), X, "'n' has no layer that can"),
        (lambda: Odd(False), X, r"'spikes': its first axis is not the samples \(got 5; need 23"),
        (lambda: Odd(True), X, "layer 'spikes' did not run, though the model holds it"),
    ],
)
def test_what_cannot_be_observed_is_named(model: Any, x: Any, text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=f"observe: .*{text}"):
        observe(model(), x)


def test_two_layers_of_one_name_and_several_outputs() -> None:
    inner = keras.Sequential([keras.Input((5,)), sharpen.SpikingBReLU(name="same")])
    x = keras.Input((5,))
    twice = keras.Model(x, sharpen.SpikingBReLU(name="same")(inner(x)))
    with pytest.raises(sharpen.TrainingError, match="two layers are named 'same'"):
        observe(twice, X)
    several = keras.Model(x, [inner(x), x], name="several")
    with pytest.raises(sharpen.TrainingError, match=r"'several' has 2 outputs \(need one\)"):
        observe(several, X)


def test_batch_size_is_checked() -> None:
    with pytest.raises(sharpen.TrainingError, match=r"batch_size is too small \(got 0; need >= 1"):
        observe(dense_model(), X, batch_size=0)
