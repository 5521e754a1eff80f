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


class Notes(keras.callbacks.Callback):  # type: ignore[misc]
    """Note the sharpness of all layers at the end of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness: list[list[float]] = []
        self.straight_through: list[list[bool]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        layers = sharpen.spiking_layers(self.model)
        self.sharpness.append([layer.sharpness for layer in layers])
        self.straight_through.append([layer.straight_through for layer in layers])


def fit(model: keras.Model, *callbacks: Any, epochs: int = 10, **options: Any) -> Any:
    x, y = tiny_data()
    return model.fit(
        x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )


def test_layers_are_sharpened_one_after_another_from_the_input_up() -> None:
    notes = Notes()
    fit(tiny_model(), sharpen.ScheduledSharpener(0.2, 0.6), notes)
    first, second = np.array(notes.sharpness).T
    assert len(first) == 40
    assert (np.diff(first) >= 0).all()
    assert (np.diff(second) >= 0).all()
    assert not first[:8].any()
    assert first[8] > 0
    assert (first[15:] == 1).all()
    assert (second[:16] < 1e-12).all()
    assert (second[23:] == 1).all()
    assert notes.straight_through == (np.array(notes.sharpness) == 1).tolist()


def test_the_values_of_the_schedule_are_exact() -> None:
    notes = Notes()
    fit(tiny_model(), sharpen.ScheduledSharpener(0.0, 1.0), notes, epochs=2)
    np.testing.assert_allclose(np.array(notes.sharpness)[:, 0], [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(np.array(notes.sharpness)[:, 1], [0, 0, 0, 0, 0.25, 0.5, 0.75, 1])


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
    notes = Notes()
    fit(tiny_model(), sharpen.ScheduledSharpener(straight_through=False), notes, epochs=4)
    assert not np.any(notes.straight_through)
    assert notes.sharpness[-1] == [1, 1]


def test_a_training_that_goes_on_is_where_the_schedule_was() -> None:
    model, notes = tiny_model(), Notes()
    fit(model, sharpen.ScheduledSharpener(0.0, 1.0), notes, epochs=4, initial_epoch=2)
    np.testing.assert_allclose(np.array(notes.sharpness)[:, 1], np.arange(1, 9) / 8)


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


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    model = tiny_model()
    sharpen.set_sharpness(model, 1.0)
    best = sharpen.KeepBestSharp("pretended", "min")
    fit(model, Losses([float("nan"), 2.0, 3.0]), best, epochs=3)
    assert (best.best, best.best_epoch) == (2.0, 1)


def test_keeping_the_best_warns_if_no_epoch_was_sharp() -> None:
    with pytest.warns(UserWarning, match="no epoch ended fully sharp"):
        fit(tiny_model(), sharpen.KeepBestSharp(monitor="accuracy"), epochs=1)


def test_keeping_the_best_names_a_missing_entry() -> None:
    model = tiny_model()
    sharpen.set_sharpness(model, 1.0)
    text = r"the logs have no 'val_accuracy' \(got accuracy, loss\)"
    with pytest.raises(sharpen.TrainingError, match=text):
        fit(model, sharpen.KeepBestSharp(), epochs=1)


def sharpness_per_batch(sharpener: Any, *, epochs: int = 10, **options: Any) -> np.ndarray:
    """Return sharpness, shape (n_batches, n_layers); four batches are an epoch."""
    notes = Notes()
    fit(tiny_model(), sharpener, notes, epochs=epochs, **options)
    return np.array(notes.sharpness)


def test_layers_can_be_sharpened_all_at_once() -> None:
    seen = sharpness_per_batch(sharpen.ScheduledSharpener(0.0, 1.0, bottom_up=False), epochs=2)
    np.testing.assert_allclose(seen, np.repeat(np.arange(1, 9)[:, None] / 8, 2, axis=1))


def test_an_intermission_lies_between_two_layers() -> None:
    seen = sharpness_per_batch(sharpen.ScheduledSharpener(0.0, 1.0, intermission=0.5), epochs=2)
    np.testing.assert_allclose(seen[:, 0], [0.5, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(seen[:, 1], [0, 0, 0, 0, 0, 0, 0.5, 1])


def test_each_layer_can_have_its_own_times() -> None:
    times = {"spikes_2": (0.0, 0.5), "spikes_1": (0.5, 1.0)}
    seen = sharpness_per_batch(sharpen.ScheduledSharpener(schedule=times), epochs=2)
    np.testing.assert_allclose(seen[:, 0], [0, 0, 0, 0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(seen[:, 1], [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_simple_sharpening_makes_equal_increments_per_epoch() -> None:
    seen = sharpness_per_batch(sharpen.SimpleSharpener(start=1, steps=2), epochs=6)[::4]
    np.testing.assert_array_equal(seen[:, 0], [0, 0.5, 1, 1, 1, 1])
    np.testing.assert_array_equal(seen[:, 1], [0, 0, 0, 0.5, 1, 1])
    seen = sharpness_per_batch(sharpen.SimpleSharpener(1, 2, bottom_up=False), epochs=3)[::4]
    np.testing.assert_array_equal(seen, [[0, 0], [0.5, 0.5], [1, 1]])


def test_simple_sharpening_makes_equal_increments_per_batch() -> None:
    seen = sharpness_per_batch(sharpen.SimpleSharpener(start=1, steps=4, per="batch"), epochs=3)
    np.testing.assert_array_equal(seen[:, 0], [0] * 4 + [0.25, 0.5, 0.75, 1] + [1] * 4)
    np.testing.assert_array_equal(seen[:, 1], [0] * 8 + [0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: sharpen.SimpleSharpener(2, 1),
        lambda: sharpen.SimpleSharpener(2, 3, per="batch"),
        lambda: sharpen.ScheduledSharpener(0.3, 0.9, intermission=0.1),
    ],
)
def test_fixed_schedules_go_on_with_initial_epoch(make: Any) -> None:
    whole = sharpness_per_batch(make(), epochs=5)
    rest = sharpness_per_batch(make(), epochs=5, initial_epoch=2)
    np.testing.assert_array_equal(rest, whole[8:])


@pytest.mark.filterwarnings("error")
def test_straight_through_starts_when_a_layer_is_sharp() -> None:
    notes = Notes()
    fit(tiny_model(), sharpen.SimpleSharpener(start=0, steps=1), notes, epochs=3)
    assert notes.straight_through == [[True, False]] * 4 + [[True, True]] * 8


def test_a_schedule_that_makes_a_layer_softer_again_warns() -> None:
    model = tiny_model()
    fit(model, sharpen.SimpleSharpener(0, 1), epochs=2)
    with pytest.warns(UserWarning, match="layer 'spikes_1' was sharper already .sharpness 1, now"):
        fit(model, sharpen.ScheduledSharpener(0.5, 1.0), epochs=2)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras has no steps_per_execution with torch"
)
def test_several_batches_in_one_call_end_sharp() -> None:
    for sharpener in (
        sharpen.ScheduledSharpener(0.0, 1.0),
        sharpen.SimpleSharpener(0, 3, per="batch"),
        sharpen.AdaptiveSharpener(deadline=1.0),
    ):
        model = tiny_model()
        model.compile(loss="sparse_categorical_crossentropy", steps_per_execution=4)
        fit(model, sharpener, epochs=2)
        assert sharpen.is_fully_sharp(model)


def test_a_model_without_such_layers_is_not_sharp() -> None:
    assert not sharpen.is_fully_sharp(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))


def test_a_training_that_ends_too_early_warns() -> None:
    text = "SimpleSharpener: training ended before layer 'spikes_2' was sharp .sharpness 0.5."
    with pytest.warns(UserWarning, match=text):
        fit(tiny_model(), sharpen.SimpleSharpener(start=0, steps=2), epochs=3)


class Losses(keras.callbacks.Callback):  # type: ignore[misc]
    """Pretend a course of the loss; stands before the sharpener."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        logs["pretended"] = self.values[epoch]


def adaptive(losses: list[float], **options: Any) -> np.ndarray:
    """Return sharpness at the end of each epoch."""
    settings: dict[str, Any] = {"rate": 0.5, "critical_rate": 0.5, "deadline": 1.0, **options}
    sharpener = sharpen.AdaptiveSharpener("pretended", **settings)
    notes = Notes()
    fit(tiny_model(), Losses(losses), sharpener, notes, epochs=len(losses))
    return np.array(notes.sharpness)[3::4]


def test_adaptive_sharpening_waits_until_the_loss_stops_falling() -> None:
    losses = [8.0, 4.0, 2.0, 1.0, 1.0] + [1.0] * 15
    seen = adaptive(losses)
    assert not seen[:5].any()
    np.testing.assert_allclose(seen[5:9], [[0.5, 0], [1, 0], [1, 0.5], [1, 1]], atol=1e-6)
    later = adaptive(losses, min_epochs=8)
    assert not later[:8].any()
    assert later[8, 0] > 0


def test_adaptive_sharpening_pauses_while_the_loss_is_high() -> None:
    # Sharpened in epochs 3 and 4 (counted from 0); the loss jumps at the end of 4, falls in 5 and
    # 6, does not in 7.
    losses = [4.0, 2.0, 2.0, 2.1, 4.0, 3.0, 2.5, 2.5] + [2.5] * 20
    seen = adaptive(losses, rate=0.25, critical_rate=0.25)
    np.testing.assert_allclose(seen[:10, 0], [0, 0, 0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.75, 1])


def test_adaptive_sharpening_is_slower_in_the_critical_zone() -> None:
    seen = adaptive([1.0] * 24, critical=0.5, critical_rate=0.125)
    np.testing.assert_allclose(seen[:9, 0], [0, 0, 0.5, 0.625, 0.75, 0.875, 1, 1, 1], atol=1e-6)
    assert (seen[-1] == 1).all()


def test_adaptive_sharpening_meets_the_deadline_whatever_the_loss_does() -> None:
    for losses in ([2.0**-n for n in range(10)], [2.0**n for n in range(10)]):
        seen = adaptive(losses, rate=0.1, critical_rate=0.01, deadline=0.5)
        assert (seen[4:] == 1).all()
        assert (np.diff(seen, axis=0) >= 0).all()


@pytest.mark.parametrize("deadline", [0.4, 0.55, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("rate", [0.25, 0.5, 2.0])
def test_adaptive_sharpening_is_in_time_with_any_rate(deadline: float, rate: float) -> None:
    losses = [1.0, 1.0, 5.0, 4.0, 3.0, 2.0, 9.0, 8.0, 7.0]
    seen = adaptive(losses, rate=rate, critical_rate=rate / 2, deadline=deadline)
    assert (seen[int(np.ceil(deadline * len(losses))) - 1 :] == 1).all()


def test_adaptive_sharpening_watches_negative_losses_too() -> None:
    seen = adaptive([-1.0, -2.0, -4.0, -4.0, -4.1] + [-4.1] * 10, deadline=1.0)
    assert not seen[:4].any()
    assert seen[4, 0] == 0.5
    falling = adaptive([-1.0, -1.0, -0.5, -0.6, -0.7, -0.7] + [-0.7] * 10, deadline=1.0)
    np.testing.assert_allclose(falling[:7, 0], [0, 0, 0.5, 0.5, 0.5, 0.5, 1])


def test_adaptive_sharpening_all_at_once() -> None:
    seen = adaptive([1.0] * 8, bottom_up=False)
    np.testing.assert_allclose(seen[:5], [[0, 0], [0, 0], [0.5, 0.5], [1, 1], [1, 1]], atol=1e-6)


def test_adaptive_sharpening_names_a_missing_or_bad_loss() -> None:
    with pytest.raises(sharpen.TrainingError, match=r"no 'val_loss' \(got accuracy, loss\)"):
        fit(tiny_model(), sharpen.AdaptiveSharpener("val_loss"), epochs=1)
    with pytest.raises(sharpen.TrainingError, match=r"'pretended' is not finite \(got nan\)"):
        adaptive([float("nan")])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda s: s.SimpleSharpener(start=-1), r"SimpleSharpener: start is too small \(got -1"),
        (lambda s: s.SimpleSharpener(steps=0), r"steps is too small \(got 0; need >= 1\)"),
        (lambda s: s.SimpleSharpener(per="day"), r"per is unknown \(got 'day'; need 'epoch' or"),
        (lambda s: s.ScheduledSharpener(intermission=2), r"intermission is out of range \(got 2;"),
        (
            lambda s: s.ScheduledSharpener(schedule={"a": (0.5, 0.2)}),
            r"ScheduledSharpener: layer 'a': start and stop are not in order",
        ),
        (lambda s: s.ScheduledSharpener(schedule={"a": 1}), "layer 'a': its times are no pair"),
        (lambda s: s.AdaptiveSharpener(rate=0), r"rate is out of range \(got 0; need > 0\)"),
        (lambda s: s.AdaptiveSharpener(critical=1.5), r"critical is out of range \(got 1.5;"),
        (lambda s: s.AdaptiveSharpener(critical_rate=-1), "critical_rate is out of range"),
        (lambda s: s.AdaptiveSharpener(increase=-1), r"increase is out of range \(got -1;"),
        (lambda s: s.AdaptiveSharpener(decrease=2), "decrease is out of range"),
        (lambda s: s.AdaptiveSharpener(patience=0), r"patience is too small \(got 0;"),
        (lambda s: s.AdaptiveSharpener(min_epochs=1.5), "min_epochs is not an integer"),
        (lambda s: s.AdaptiveSharpener(deadline=float("nan")), "deadline is not a number"),
        (lambda s: s.AdaptiveSharpener().restore({"best": 1}), "this is not a state of it"),
        (lambda s: s.SimpleSharpener().restore({}), "this is not a state of it"),
        (
            lambda s: s.SimpleSharpener(3).restore(s.SimpleSharpener(2).state()),
            r"another schedule: start is 2 \(got 3\)",
        ),
        (lambda s: s.ScheduledSharpener(schedule=[1]), r"schedule is no mapping \(got \[1\]; need"),
        (lambda s: s.StepSharpener(tiny_model(), start=5, stop=5), r"stop is too small \(got 5;"),
        (
            lambda s: s.StepSharpener(tiny_model(), start=0, stop=10, intermission=10),
            r"intermission leaves no time to sharpen 2 layers \(got 10; need < 10\)",
        ),
        (
            lambda s: s.StepSharpener(keras.Sequential([keras.Input((1,))]), start=0, stop=1),
            "no layer that can be sharpened",
        ),
    ],
)
def test_other_parameters_are_refused(make: Any, text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        make(sharpen)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"schedule": {"spikes_1": (0, 1)}}, "leaves out layer 'spikes_2'"),
        (
            {"schedule": {"spike_1": (0, 1)}},
            r"got 'spike_1'; need one of spikes_1, spikes_2.*Did you mean 'spikes_1'",
        ),
        (
            {"intermission": 0.5},
            r"intermission leaves no time to sharpen 2 layers \(got 0.5; need <",
        ),
    ],
)
def test_schedules_that_do_not_fit_the_model_are_refused(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(sharpen.TrainingError, match=text):
        fit(tiny_model(), sharpen.ScheduledSharpener(**options), epochs=1)


def test_steps_are_counted_outside_of_fit() -> None:
    model = tiny_model()
    sharpener = sharpen.StepSharpener(model, start=2, stop=10)
    seen = [sharpener.sharpness]
    while not sharpener.done:
        sharpener.step(2)
        seen.append(sharpener.sharpness)
    assert seen == [(0, 0), (0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1)]
    assert sharpener.count == 10
    assert all(layer.straight_through for layer in sharpen.spiking_layers(model))
    again = sharpen.StepSharpener(tiny_model(), start=2, stop=10)
    again.restore(sharpener.state())
    assert again.done
    with pytest.raises(sharpen.TrainingError, match=r"n is too small \(got -1; need >= 0\)"):
        sharpener.step(-1)
    with pytest.raises(sharpen.TrainingError, match="count of the state is not an integer"):
        sharpener.restore({})


def test_steps_with_intermission_and_all_at_once() -> None:
    sharpener = sharpen.StepSharpener(tiny_model(), start=0, stop=10, intermission=2)
    sharpener.step(5)
    assert sharpener.sharpness == (1, 0)
    sharpener.step(3)
    assert sharpener.sharpness == (1, 0.5)
    at_once = sharpen.StepSharpener(tiny_model(), start=0, stop=4, bottom_up=False)
    at_once.step()
    assert at_once.sharpness == (0.25, 0.25)


SHARPENERS = {
    "simple": lambda: sharpen.SimpleSharpener(start=1, steps=1),
    "simple per batch": lambda: sharpen.SimpleSharpener(start=1, steps=3, per="batch"),
    "scheduled": lambda: sharpen.ScheduledSharpener(0.2, 0.9),
    "uniform": lambda: sharpen.ScheduledSharpener(0.2, 0.9, bottom_up=False),
    "adaptive": lambda: sharpen.AdaptiveSharpener(rate=0.1, critical_rate=0.05),
}


@pytest.mark.parametrize("seed", range(20))
def test_every_seed_ends_fully_sharp(seed: int) -> None:
    kind = list(SHARPENERS)[seed % len(SHARPENERS)]
    keras.utils.set_random_seed(seed)
    model = tiny_model()
    fit(model, SHARPENERS[kind](), epochs=5)
    assert sharpen.is_fully_sharp(model)
    x, _ = tiny_data()
    inside = keras.Model(model.inputs, [s.output for s in sharpen.spiking_layers(model)])
    for values in inside.predict(x, verbose=0):
        assert set(np.unique(values)) <= {0.0, 1.0}
    network = sharpen.to_model(model, input_scale=1.0)
    assert network.readout is not None
