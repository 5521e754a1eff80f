"""Values and gradients of the layers against plain numpy, ties, saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402

# Keras reads torch tensors in a way that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SHARPNESS = (0.0, 0.5, 0.999, 1.0)


def inputs() -> np.ndarray:
    """Return values around 0.5 at every scale, with the tie and its float32 neighbours."""
    steps = np.float32(10.0) ** np.arange(-8, 2, dtype=np.float32)
    half = np.float32(0.5)
    near = [half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))]
    return np.concatenate([half - steps, half + steps, near]).astype(np.float32)


def bounded_relu(x: np.ndarray, sharpness: float) -> np.ndarray:
    if sharpness == 1:
        return (x >= np.float32(0.5)).astype(np.float32)
    w = np.float32(1) - np.float32(sharpness)
    return np.clip((x - np.float32(0.5)) / w + np.float32(0.5), 0, 1)


def slope(x: np.ndarray, sharpness: float) -> np.ndarray:
    if sharpness == 1:
        return np.zeros_like(x)
    w = np.float32(1) - np.float32(sharpness)
    return np.where(np.abs(x - np.float32(0.5)) < w / 2, 1 / w, 0).astype(np.float32)


def numpy_of(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_value_is_the_formula(sharpness: float) -> None:
    values = numpy_of(sharpen.SpikingBReLU(sharpness)(inputs()))
    expected = bounded_relu(inputs(), sharpness)
    np.testing.assert_allclose(values, expected, rtol=0, atol=2**-23)
    if sharpness == 1:
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_gradient_is_the_formula(sharpness: float, gradient) -> None:  # type: ignore[no-untyped-def]
    found = gradient(sharpen.SpikingBReLU(sharpness), inputs())
    np.testing.assert_allclose(found, slope(inputs(), sharpness), rtol=1e-6)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_straight_through_changes_the_gradient_of_a_step_alone(sharpness, gradient) -> None:  # type: ignore[no-untyped-def]
    layer = sharpen.SpikingBReLU(sharpness, straight_through=True)
    np.testing.assert_array_equal(
        numpy_of(layer(inputs())), numpy_of(sharpen.SpikingBReLU(sharpness)(inputs()))
    )
    expected = slope(inputs(), 0.0 if sharpness == 1 else sharpness)
    np.testing.assert_allclose(gradient(layer, inputs()), expected, rtol=1e-6)


def test_a_tie_fires_and_the_number_below_does_not() -> None:
    half = np.float32(0.5)
    x = np.array([np.nextafter(half, np.float32(0)), half], dtype=np.float32)
    for straight_through in (False, True):
        layer = sharpen.SpikingBReLU(1.0, straight_through=straight_through)
        assert numpy_of(layer(x)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("sharpness", [0.5, 0.99999, 0.9999999, 1.0])
@pytest.mark.parametrize("kind", ["SpikingBReLU", "SpikingSigmoid"])
def test_a_tie_is_a_number_in_half_precision(kind: str, sharpness: float, dtype: str) -> None:
    layer = getattr(sharpen, kind)(sharpness, dtype=dtype)
    x = keras.ops.cast(np.array([layer.threshold, -1.0, 2.0], dtype=np.float32), dtype)
    values = numpy_of(keras.ops.cast(layer(x), "float32"))
    assert np.isfinite(values).all()
    assert values[0] == (1.0 if layer.is_sharp else 0.5)
    assert values[1] < 0.2
    assert values[2] > 0.8


def test_sharpness_is_set_on_a_compiled_model_and_saved(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), sharpen.SpikingBReLU(name="spikes")])
    x = np.array([[0.4, 0.5, 0.6]], dtype=np.float32)
    assert model.predict(x, verbose=0).tolist() == x.tolist()
    model.get_layer("spikes").sharpness = 1.0
    model.get_layer("spikes").straight_through = True
    assert model.predict(x, verbose=0).tolist() == [[0.0, 1.0, 1.0]]
    assert not model.trainable_variables
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("spikes").sharpness == 1.0
    assert again.get_layer("spikes").straight_through
    assert again.predict(x, verbose=0).tolist() == [[0.0, 1.0, 1.0]]


def test_weights_alone_carry_the_sharpness(tmp_path: Path) -> None:
    def build() -> keras.Model:
        return keras.Sequential([keras.Input((3,)), sharpen.SpikingBReLU()])

    model = build()
    sharpen.set_sharpness(model, 0.25)
    model.save_weights(tmp_path / "model.weights.h5")
    again = build()
    again.load_weights(tmp_path / "model.weights.h5")
    assert [layer.sharpness for layer in sharpen.spiking_layers(again)] == [0.25]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "sharp", None])
def test_other_sharpness_is_refused(value: object) -> None:
    with pytest.raises(sharpen.TrainingError, match=r"^spikes: sharpness is .*\(got .*; need "):
        sharpen.SpikingBReLU(value, name="spikes")
    layer = sharpen.SpikingBReLU(0.5, name="spikes")
    with pytest.raises(sharpen.TrainingError, match="sharpness is"):
        layer.sharpness = value
    assert layer.sharpness == 0.5


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_decode_is_the_formula(temperature: float) -> None:
    key = sharpen.generate_key(5, 20, seed=3)
    s = np.random.default_rng(0).integers(0, 2, (7, 20)).astype(np.float32)
    found = numpy_of(sharpen.SoftmaxDecode(key, temperature)(s))
    scores = (2 * s - 1) @ (2.0 * key - 1).T / temperature
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_row_of_the_key_decodes_to_its_class() -> None:
    key = sharpen.generate_key(10, 40, seed=1)
    scores = numpy_of(sharpen.SoftmaxDecode(key)(key.astype(np.float32)))
    assert scores.argmax(axis=1).tolist() == list(range(10))


def test_decode_is_saved_with_its_key(tmp_path: Path) -> None:
    key = sharpen.generate_key(3, 8, seed=1)
    model = keras.Sequential([keras.Input((8,)), sharpen.SoftmaxDecode(key, 2.0, name="decode")])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").get_layer("decode")
    np.testing.assert_array_equal(again.key, key)
    assert again.temperature == 2.0


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ([[0, 2], [1, 0]], "key has other values than 0 and 1"),
        ([0, 1], r"key is not a matrix \(got shape \(2,\); need \(n_classes, n_outputs\)"),
        ([[0, 1], [1, 0], [0, 1]], "key has equal rows for classes 0 and 2"),
        ([[0, 1], [1]], "key is not a matrix"),
    ],
)
def test_other_keys_are_refused(key: object, text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        sharpen.SoftmaxDecode(key)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(sharpen.TrainingError, match=r"temperature is out of range \(got 0; need >"):
        sharpen.SoftmaxDecode([[0], [1]], temperature=0)


def sigmoid(x: np.ndarray, sharpness: float) -> np.ndarray:
    if sharpness == 1:
        return (x >= 0).astype(np.float64)
    w = 1 - np.float64(np.float32(sharpness))
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x.astype(np.float64) / w))


def signed_inputs() -> np.ndarray:
    """Return values around 0 at every scale, with both zeros and their float32 neighbours."""
    steps = np.float32(10.0) ** np.arange(-8, 2, dtype=np.float32)
    tiny = np.nextafter(np.float32(0), np.float32(1))
    return np.concatenate([-steps, steps, [0.0, -0.0, tiny, -tiny]]).astype(np.float32)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_value_of_the_sigmoid_is_the_formula(sharpness: float) -> None:
    x = signed_inputs()
    # 1 - 0.999 is 0.00099999 in float32: the exponent carries that rounding.
    tolerance = {"rtol": 2e-4 if sharpness == 0.999 else 1e-6, "atol": 1e-7}
    values = numpy_of(sharpen.SpikingSigmoid(sharpness)(x))
    if sharpness == 1:
        normal = np.abs(x) >= np.finfo(np.float32).tiny  # a denormal may be flushed to 0
        expected = (x >= 0).astype(np.float32)
        np.testing.assert_array_equal(values[normal | (x == 0)], expected[normal | (x == 0)])
    else:
        np.testing.assert_allclose(values, sigmoid(x, sharpness), **tolerance)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_gradient_of_the_sigmoid_is_the_formula(sharpness, straight_through, gradient) -> None:  # type: ignore[no-untyped-def]
    x = signed_inputs()
    found = gradient(sharpen.SpikingSigmoid(sharpness, straight_through=straight_through), x)
    if sharpness == 1 and not straight_through:
        assert not found.any()
        return
    shape = 0.0 if sharpness == 1 else sharpness
    y = sigmoid(x, shape)
    expected = y * (1 - y) / (1 - shape)
    np.testing.assert_allclose(found, expected, rtol=5e-4, atol=1e-4)


def test_a_tie_of_the_sigmoid_fires() -> None:
    x = np.array([-1e-30, -0.0, 0.0, 1e-30], dtype=np.float32)
    assert numpy_of(sharpen.SpikingSigmoid(1.0)(x)).tolist() == [0, 1, 1, 1]


def test_the_sigmoid_is_saved_with_its_state(tmp_path: Path) -> None:
    layer = sharpen.SpikingSigmoid(0.75, margin_strength=0.25, margin_width=0.5, name="spikes")
    keras.Sequential([keras.Input((3,)), layer]).save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").get_layer("spikes")
    assert isinstance(again, sharpen.SpikingSigmoid)
    assert (again.sharpness, again.margin_strength, again.margin_width) == (0.75, 0.25, 0.5)


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("kind", ["SpikingBReLU", "SpikingSigmoid"])
def test_the_margin_loss_is_the_formula(kind: str, sharpness: float) -> None:
    layer = getattr(sharpen, kind)(sharpness, margin_strength=0.5, margin_width=0.2)
    x = inputs().reshape(1, -1)
    layer(x, training=True)
    distance = np.abs(x.astype(np.float64) - layer.threshold)
    expected = 0.5 * sharpness * np.maximum(0, 1 - distance / 0.2).mean()
    assert [float(numpy_of(loss)) for loss in layer.losses] == [pytest.approx(expected, rel=1e-5)]


def test_the_margin_loss_is_for_training_alone() -> None:
    layer = sharpen.SpikingBReLU(1.0, margin_strength=0.5)
    layer(inputs(), training=False)
    assert not layer.losses
    plain = sharpen.SpikingBReLU(1.0)
    plain(inputs(), training=True)
    assert not plain.losses


def test_the_margin_loss_alone_pushes_activations_off_the_threshold() -> None:
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).random((64, 8), dtype=np.float32)
    dense = keras.layers.Dense(16, bias_initializer=keras.initializers.Constant(0.5))
    spikes = sharpen.SpikingBReLU(1.0, margin_strength=1.0, margin_width=0.2)
    model = keras.Sequential([keras.Input((8,)), dense, spikes])
    model.compile(keras.optimizers.Adam(0.01), lambda y, outputs: 0.0 * keras.ops.mean(outputs))

    def share_near_threshold() -> float:
        return float((np.abs(numpy_of(dense(x)) - 0.5) < 0.1).mean())

    before = share_near_threshold()
    model.fit(x, x, epochs=60, batch_size=64, verbose=0)
    assert share_near_threshold() < before / 3 < 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"margin_strength": -1}, r"spikes: margin_strength is out of range \(got -1; need >= 0\)"),
        ({"margin_width": 0}, r"spikes: margin_width is out of range \(got 0; need > 0\)"),
        ({"margin_strength": "much"}, r"spikes: margin_strength is not a number \(got 'much'"),
    ],
)
def test_other_margins_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        sharpen.SpikingBReLU(name="spikes", **options)


def test_a_key_of_another_width_is_refused() -> None:
    text = (
        r"layer 'decode': the key does not fit its input \(got shape \(7,\) for a sample; need \(8"
    )
    with pytest.raises(sharpen.TrainingError, match=text):
        keras.Sequential(
            [keras.Input((7,)), sharpen.SoftmaxDecode([[0] * 8, [1] * 8], name="decode")]
        )


def test_flags_are_flags() -> None:
    with pytest.raises(
        sharpen.TrainingError, match=r"straight_through is no flag \(got 'no'; need"
    ):
        sharpen.SpikingBReLU(straight_through="no")
    with pytest.raises(sharpen.TrainingError, match="bottom_up is no flag"):
        sharpen.ScheduledSharpener(bottom_up="no")
    with pytest.raises(sharpen.TrainingError, match="overlapping is no flag"):
        sharpen.generate_key(2, 8, 1, overlapping="no")


def test_a_layer_inside_of_another_is_refused_before_training() -> None:
    hidden = keras.layers.Dense(4, activation=sharpen.SpikingBReLU(name="hidden"))
    model = keras.Sequential([keras.Input((4,)), hidden, sharpen.SpikingBReLU(name="seen")])
    with pytest.raises(sharpen.TrainingError, match="layer 'hidden' is inside of another layer"):
        sharpen.StepSharpener(model, start=0, stop=1)
