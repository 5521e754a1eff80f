"""The schedule, and a tiny training that ends fully sharp."""

from __future__ import annotations

from typing import Any

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

KEY_WIDTH = 16


def tiny_model() -> keras.Model:
    layers: list[Any] = [keras.Input((8,))]
    for number, units in enumerate((12, KEY_WIDTH), start=1):
        layers += [
            keras.layers.Dense(units, name=f"dense_{number}"),
            keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{number}"),
            sharpen.SpikingBReLU(name=f"spikes_{number}"),
        ]
    layers.append(sharpen.SoftmaxDecode(sharpen.generate_key(2, KEY_WIDTH, seed=1), 4.0))
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(0.02),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def tiny_data() -> tuple[np.ndarray, np.ndarray]:
    """Return vectors labelled by whether the first half has the larger sum."""
    x = np.random.default_rng(0).random((256, 8), dtype=np.float32)
    return x, (x[:, :4].sum(axis=1) > x[:, 4:].sum(axis=1)).astype(np.int64)


class Diary(keras.callbacks.Callback):  # type: ignore[misc]
    """Note the sharpness of all layers at the end of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness: list[list[float]] = []
        self.straight_through: list[bool] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        layers = sharpen.spiking_layers(self.model)
        self.sharpness.append([layer.sharpness for layer in layers])
        self.straight_through.append(all(layer.straight_through for layer in layers))


def fit(model: keras.Model, *callbacks: Any, epochs: int = 10, **options: Any) -> Any:
    x, y = tiny_data()
    return model.fit(
        x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )


def test_layers_are_sharpened_one_after_another_from_the_input_up() -> None:
    diary = Diary()
    fit(tiny_model(), sharpen.ScheduledSharpener(0.2, 0.6), diary)
    first, second = np.array(diary.sharpness).T
    assert len(first) == 40
    assert (np.diff(first) >= 0).all()
    assert (np.diff(second) >= 0).all()
    assert not first[:8].any()
    assert first[8] > 0
    assert (first[15:] == 1).all()
    assert (second[:16] < 1e-12).all()
    assert (second[23:] == 1).all()
    assert diary.straight_through == [False] * 23 + [True] * 17


def test_the_values_of_the_schedule_are_exact() -> None:
    diary = Diary()
    fit(tiny_model(), sharpen.ScheduledSharpener(0.0, 1.0), diary, epochs=2)
    np.testing.assert_allclose(np.array(diary.sharpness)[:, 0], [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(np.array(diary.sharpness)[:, 1], [0, 0, 0, 0, 0.25, 0.5, 0.75, 1])


def test_training_ends_fully_sharp_and_learns_while_sharp() -> None:
    keras.utils.set_random_seed(1)
    model = tiny_model()
    x, y = tiny_data()
    fit(model, sharpen.ScheduledSharpener(), epochs=40)
    assert sharpen.is_fully_sharp(model)
    _, accuracy = model.evaluate(x, y, verbose=0)
    assert accuracy > 0.85
    spikes = keras.Model(model.inputs, model.get_layer("spikes_2").output).predict(x, verbose=0)
    assert set(np.unique(spikes)) <= {0.0, 1.0}


def test_straight_through_can_be_left_off() -> None:
    diary = Diary()
    fit(tiny_model(), sharpen.ScheduledSharpener(straight_through=False), diary, epochs=4)
    assert not any(diary.straight_through)


def test_a_training_that_goes_on_is_where_the_schedule_was() -> None:
    model, diary = tiny_model(), Diary()
    fit(model, sharpen.ScheduledSharpener(0.0, 1.0), diary, epochs=4, initial_epoch=2)
    np.testing.assert_allclose(np.array(diary.sharpness)[:, 1], np.arange(1, 9) / 8)


def test_inner_models_are_sharpened_too() -> None:
    inner = keras.Sequential([keras.Input((4,)), sharpen.SpikingBReLU(name="inside")])
    model = keras.Sequential([keras.Input((4,)), inner, sharpen.SpikingBReLU(name="outside")])
    assert [layer.name for layer in sharpen.spiking_layers(model)] == ["inside", "outside"]


@pytest.mark.parametrize(
    ("start", "stop"), [(0.6, 0.25), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.5), (0.1, float("nan"))]
)
def test_a_schedule_out_of_order_is_refused(start: float, stop: float) -> None:
    with pytest.raises(sharpen.TrainingError, match=r"ScheduledSharpener: .*\(got .*; need "):
        sharpen.ScheduledSharpener(start, stop)


def test_a_model_without_spikes_is_refused() -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)], name="plain")
    model.compile(loss="mse")
    with pytest.raises(sharpen.TrainingError, match="model 'plain' has no layer that can be sharp"):
        fit(model, sharpen.ScheduledSharpener())


def test_the_best_sharp_epoch_is_kept_and_no_soft_one() -> None:
    keras.utils.set_random_seed(1)
    model = tiny_model()
    best = sharpen.KeepBestSharp()
    data = tiny_data()
    history = fit(model, sharpen.ScheduledSharpener(), best, epochs=12, validation_data=data)
    sharp_epochs = history.history["val_accuracy"][7:]  # 0.6 * 12 = 7.2: sharp in the eighth
    assert best.best == max(sharp_epochs)
    assert best.best_epoch == 7 + int(np.argmax(sharp_epochs))
    assert sharpen.is_fully_sharp(model)
    assert model.evaluate(*data, verbose=0)[1] == pytest.approx(best.best)


def test_keeping_the_best_warns_if_no_epoch_was_sharp() -> None:
    with pytest.warns(UserWarning, match="no epoch ended fully sharp"):
        fit(tiny_model(), sharpen.KeepBestSharp(monitor="accuracy"), epochs=1)


def test_keeping_the_best_names_a_missing_entry() -> None:
    model = tiny_model()
    sharpen.set_sharpness(model, 1.0)
    text = r"the logs have no 'val_accuracy' \(got accuracy, loss\)"
    with pytest.raises(sharpen.TrainingError, match=text):
        fit(model, sharpen.KeepBestSharp(), epochs=1)
