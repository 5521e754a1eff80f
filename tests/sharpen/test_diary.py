"""The diary of a training: what it writes, when, and that training does not notice it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sharpen = pytest.importorskip(
    "whetsim.sharpen",
    reason="needs keras and torch: pip install 'whetsim[train]'",
    exc_type=ImportError,
)

import keras  # noqa: E402

from whetsim.errors import FormatError  # noqa: E402
from whetsim.report.diary_file import read_diary  # noqa: E402
from whetsim.sharpen.dead_units import DeadUnitWarning  # noqa: E402
from whetsim.sharpen.diary import Diary  # noqa: E402
from whetsim.sharpen.observe import QUANTILES, observe  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    # These trainings are short.
    pytest.mark.filterwarnings("ignore::whetsim.sharpen.dead_units.DeadUnitWarning"),
    pytest.mark.filterwarnings("ignore:.*training ended before layer"),
]

KEY_WIDTH = 16
N, BATCH = 96, 16  # six batches an epoch


def tiny_data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((N, 8), dtype=np.float32)
    return x, (x[:, :4].sum(axis=1) > x[:, 4:].sum(axis=1)).astype(np.int64)


X, Y = tiny_data()


def tiny_model(*, decode: bool = True) -> keras.Model:
    keras.utils.set_random_seed(3)
    layers: list[Any] = [keras.Input((8,))]
    for number, units in enumerate((12, KEY_WIDTH), start=1):
        layers += [
            keras.layers.Dense(units),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Dropout(0.1),
            sharpen.SpikingBReLU(name=f"spikes_{number}"),
        ]
    key = sharpen.generate_key(2, KEY_WIDTH, seed=1)
    layers += [sharpen.SoftmaxDecode(key, 4.0)] if decode else []
    model = keras.Sequential(layers, name="tiny")
    loss = "sparse_categorical_crossentropy" if decode else "mse"
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    return model


def fit(model: keras.Model, *callbacks: Any, y: Any = Y, epochs: int = 5, **options: Any) -> Any:
    data = {"x": X, "y": y, "batch_size": BATCH, **options}
    return model.fit(**data, epochs=epochs, verbose=0, callbacks=list(callbacks))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines_of(path)]


def arrays(model: keras.Model) -> list[np.ndarray]:
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def test_training_does_not_notice_the_diary(tmp_path: Path) -> None:
    plain, watched = tiny_model(), tiny_model()
    with_diary = []
    for model in (plain, watched):
        callbacks: list[Any] = [sharpen.ScheduledSharpener(0.2, 0.7)]
        keras.utils.set_random_seed(11)
        if model is watched:
            callbacks.append(Diary(tmp_path / "d.jsonl", (X, Y), (X, Y), sharpness_step=0.1))
        with_diary.append(fit(model, *callbacks, validation_data=(X[:20], Y[:20])).history)
    assert with_diary[0] == with_diary[1]
    for one, other in zip(arrays(plain), arrays(watched), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(lines_of(tmp_path / "d.jsonl")) > 12


def test_entries_say_what_the_network_did(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "d.jsonl"
    model = tiny_model()
    last = Diary(path, (X, Y), (X[:10], Y[:10]), n_samples=50)
    fit(model, sharpen.ScheduledSharpener(0.0, 0.9), last, validation_data=(X, Y), epochs=2)
    header, *entries = lines_of(path)
    assert header == {
        "whetsim_diary": 1,
        "layers": ["spikes_1", "spikes_2"],
        "units": [12, 16],
        "score_name": "accuracy",
        "n_samples": 50,
        "margin_quantiles": list(QUANTILES),
    }
    entry = entries[-1]
    assert (entry["kind"], entry["epoch"], entry["straight_through"]) == ("epoch", 2.0, True)
    assert entry["sharpness"] == {"spikes_1": 1.0, "spikes_2": 1.0}
    assert set(entry["logs"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    seen = observe(model, X[:50], sharp=True)
    accuracy = float((seen.outputs.argmax(axis=1) == Y[:50]).mean())
    assert entry["validation"] == {"as_is": accuracy, "spiking": accuracy}
    first_ten = float((seen.outputs.argmax(axis=1) == Y[:50])[:10].mean())
    assert entry["train"]["spiking"] == pytest.approx(first_ten)
    for name, layer in seen.layers.items():
        assert entry["spikes_per_sample"][name] == layer.spikes_per_sample
        assert entry["never"][name] == len(layer.never)
        assert entry["always"][name] == len(layer.always)
        assert entry["margins"][name] == pytest.approx(list(layer.margins.values()), rel=1e-5)
    soft = entries[0]
    assert not all(value == 1 for value in soft["sharpness"].values())
    assert soft["validation"].keys() == {"as_is", "spiking"}
    diary = read_diary(path)
    assert [e.epoch for e in diary.entries] == [e["epoch"] for e in entries]


def test_a_soft_network_is_scored_both_ways(tmp_path: Path) -> None:
    model = tiny_model()
    fit(model, Diary(tmp_path / "d.jsonl", (X, Y)), epochs=1)
    entry = lines_of(tmp_path / "d.jsonl")[-1]
    assert "train" not in entry
    for sharp, key in ((False, "as_is"), (True, "spiking")):
        outputs = observe(model, X, sharp=sharp).outputs
        assert entry["validation"][key] == float((outputs.argmax(axis=1) == Y).mean())


def test_entries_within_an_epoch_follow_the_sharpness(tmp_path: Path) -> None:
    # 12 batches in all: each layer gains 1/6 with each batch of its turn.
    sharpener = sharpen.ScheduledSharpener(0.0, 1.0)
    fit(tiny_model(), sharpener, Diary(tmp_path / "d.jsonl", (X, Y)), epochs=2)
    _, *entries = lines_of(tmp_path / "d.jsonl")
    kinds = [(e["kind"], round(e["epoch"] * 6)) for e in entries]
    step, end = "step", "epoch"
    assert kinds == [(step, 2), (step, 4), (end, 6), (step, 8), (step, 10), (end, 12)]
    gained = [e["sharpness"]["spikes_1"] for e in entries]
    np.testing.assert_allclose(gained, [1 / 3, 2 / 3, 1, 1, 1, 1], rtol=1e-6)
    fit(tiny_model(), sharpener, Diary(tmp_path / "e.jsonl", (X, Y), sharpness_step=2), epochs=2)
    assert [e["epoch"] for e in lines_of(tmp_path / "e.jsonl")[1:]] == [1.0, 2.0]


def test_a_generator_without_length_is_timed_by_its_first_epoch(tmp_path: Path) -> None:
    model, diary = tiny_model(), Diary(tmp_path / "d.jsonl", (X, Y))
    diary.set_model(model)
    diary.set_params({"steps": None, "epochs": 2})
    diary.on_train_begin()
    for epoch in range(2):
        diary.on_epoch_begin(epoch)
        for batch in range(6):
            sharpen.set_sharpness(model, (epoch * 6 + batch + 1) / 12)
            diary.on_train_batch_end(batch)
        diary.on_epoch_end(epoch)
    entries = lines_of(tmp_path / "d.jsonl")[1:]
    assert [e["epoch"] for e in entries] == [1.0, 1.5, 2.0]


def test_equal_trainings_write_equal_diaries(tmp_path: Path) -> None:
    for name in "ab":
        model = tiny_model()
        fit(model, sharpen.ScheduledSharpener(), Diary(tmp_path / name, (X, Y)), epochs=3)
    assert without_seconds(tmp_path / "a") == without_seconds(tmp_path / "b")


def test_a_training_that_goes_on_continues_the_diary(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    fit(tiny_model(), sharpen.ScheduledSharpener(0, 0.9), Diary(whole, (X, Y)), epochs=4)
    model = tiny_model()

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3 and self.epoch == 3:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch
            if epoch == 3:
                self.saved = arrays(self.model)

    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        fit(model, sharpen.ScheduledSharpener(0, 0.9), Diary(parts, (X, Y)), stop, epochs=4)
    before = without_seconds(parts)
    assert before == without_seconds(whole)[: len(before)]
    assert before[-1]["epoch"] > 3
    with parts.open("a") as file:  # as a crash while writing leaves it
        file.write('{"epoch": 3.7, "kin')
    assert read_diary(parts).truncated
    for variable, value in zip(model.variables, stop.saved, strict=False):
        variable.assign(value)
    diary = Diary(parts, (X, Y))
    fit(model, sharpen.ScheduledSharpener(0, 0.9), diary, epochs=4, initial_epoch=3)
    after = without_seconds(parts)
    kept = [line for line in before if line.get("epoch", 0) <= 3]
    assert after[: len(kept)] == kept
    assert [line.get("epoch") for line in after] == [e.get("epoch") for e in lines_of(whole)]
    seconds = [entry.seconds for entry in read_diary(parts).entries]
    assert seconds == sorted(seconds)


def test_a_training_from_the_start_begins_anew(tmp_path: Path) -> None:
    diary = Diary(tmp_path / "d.jsonl", (X, Y))
    for _ in range(2):
        fit(tiny_model(), diary, epochs=2)
        assert len(lines_of(tmp_path / "d.jsonl")) == 3
    fit(tiny_model(), Diary(tmp_path / "new.jsonl", (X, Y)), epochs=2, initial_epoch=1)
    assert [line.get("epoch") for line in lines_of(tmp_path / "new.jsonl")] == [None, 2.0]
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_is_no_diary_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text('{"mine": 1}\n')
    for initial_epoch in (0, 1):
        with pytest.raises(sharpen.TrainingError, match="is there and is no diary, so it is not"):
            fit(tiny_model(), Diary(path, (X, Y)), epochs=2, initial_epoch=initial_epoch)
    assert path.read_text() == '{"mine": 1}\n'


def test_a_diary_of_another_training_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    fit(tiny_model(), Diary(path, (X, Y)), epochs=1)
    before = path.read_text()
    path.write_text(before.replace("spikes_2", "other"))
    text = r"another training: layers differ \(got \['spikes_1', 'other'\]; need \['spikes_1', 'spi"
    with pytest.raises(sharpen.TrainingError, match=text):
        fit(tiny_model(), Diary(path, (X, Y)), epochs=2, initial_epoch=1)
    path.write_text(before)
    with pytest.raises(sharpen.TrainingError, match=r"n_samples differ \(got 96; need 50\)"):
        fit(tiny_model(), Diary(path, (X, Y), n_samples=50), epochs=2, initial_epoch=1)
    assert path.read_text() == before
    path.write_text(before.replace('"kind": "epoch"', '"kind": 3'))
    with pytest.raises(FormatError, match="line 2: 'kind' is 3"):
        fit(tiny_model(), Diary(path, (X, Y)), epochs=2, initial_epoch=1)


def test_scores_of_labels_one_hot_labels_and_maps(tmp_path: Path) -> None:
    maps = (np.random.default_rng(5).random((N, KEY_WIDTH)) > 0.5).astype("float32")
    one_hot = np.eye(2)[Y]
    cases = [(True, one_hot, Y), (True, Y[:, None], Y), (True, Y.astype("uint8"), Y)]
    cases += [(False, maps, None), (False, maps.reshape(N, 4, 4), None)]
    for decode, y, labels in cases:
        model = tiny_model(decode=decode)
        target = Y if decode else maps
        fit(model, Diary(tmp_path / "d.jsonl", (X, y), n_samples=30), y=target, epochs=1)
        outputs = observe(model, X[:30]).outputs
        if labels is not None:
            expected = (outputs.argmax(axis=1) == labels[:30]).mean()
        else:
            expected = ((outputs >= 0.5) == (maps[:30] >= 0.5)).mean()
        assert lines_of(tmp_path / "d.jsonl")[-1]["validation"]["as_is"] == float(expected)


def test_own_score(tmp_path: Path) -> None:
    told = []

    def score(y: np.ndarray, outputs: np.ndarray) -> Any:
        told.append((y.shape, outputs.shape))
        return np.float32(-2.5) if len(told) % 2 else float("nan")

    diary = Diary(tmp_path / "d.jsonl", (X, X), n_samples=7, score=score, score_name="minus loss")
    fit(tiny_model(), diary, epochs=1)
    assert told == [((7, 8), (7, 2))] * 2
    header, entry = lines_of(tmp_path / "d.jsonl")
    assert header["score_name"] == "minus loss"
    assert entry["validation"] == {"as_is": -2.5, "spiking": None}
    bad = Diary(tmp_path / "d.jsonl", (X, Y), score=lambda y, outputs: "good")
    with pytest.raises(sharpen.TrainingError, match=r"score returned no number \(got 'good'"):
        fit(tiny_model(), bad, epochs=1)


def test_dead_outputs_are_told_at_the_end_of_a_sharp_training(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)], name="net")
    model.add(sharpen.SpikingBReLU(name="out"))
    model.layers[0].set_weights([np.zeros((8, 3)), np.array([0.0, 1.0, 1.0])])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    maps = np.tile([1.0, 0.0, 1.0], (N, 1))
    maps[0] = [0.0, 0.0, 1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeadUnitWarning)
        fit(model, Diary(tmp_path / "d.jsonl", (X, maps)), y=maps, epochs=1)
        sharpen.set_sharpness(model, 1.0)
        with pytest.raises(DeadUnitWarning, match="'out': 1 never fire and 1 always fire, of 3"):
            fit(model, Diary(tmp_path / "d.jsonl", (X, maps)), y=maps, epochs=1)
    with pytest.warns(DeadUnitWarning, match="'out': 1 never fire and 2 always fire, of 3"):
        fit(model, Diary(tmp_path / "d.jsonl", (X, np.eye(3)[Y])), y=maps, epochs=1)


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    model = tiny_model()
    nan = np.full_like(X, np.nan)
    fit(model, Diary(tmp_path / "d.jsonl", (X, Y)), epochs=1, x=nan)
    entry = read_diary(tmp_path / "d.jsonl").entries[-1]
    assert entry.logs["loss"] is None
    assert entry.margins["spikes_1"] == (None,) * 4
    assert entry.never["spikes_1"] == 12


def test_another_thread_is_refused(tmp_path: Path) -> None:
    import concurrent.futures

    diary = Diary(tmp_path / "d.jsonl", (X, Y))
    fit(tiny_model(), diary, epochs=1)
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        pytest.raises(sharpen.TrainingError, match=r"another thread\. Give `fit` a list"),
    ):
        pool.submit(diary.on_train_batch_end, 0).result()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"path": 3}, r"path is no path \(got 3"),
        ({"path": "."}, r"path is a folder \(got '.'"),
        ({"validation": None}, r"validation is no pair \(got NoneType; need \(x, y\)\)"),
        ({"validation": (X,)}, r"validation is no pair"),
        ({"validation": (X, Y[:-1])}, r"x and y of validation differ in length \(got 96 and 95"),
        ({"validation": (X[:0], Y[:0])}, r"x of validation is empty"),
        ({"validation": (X, ["a"] * N)}, r"y of validation is not an array of numbers"),
        ({"train": X}, r"train is no pair \(got ndarray"),
        ({"train": (X, Y[:1])}, r"x and y of train differ in length"),
        ({"n_samples": 0}, r"n_samples is too small \(got 0; need >= 1"),
        ({"sharpness_step": 0}, r"sharpness_step is out of range \(got 0; need > 0"),
        ({"score": "accuracy"}, r"score is no function \(got 'accuracy'"),
        ({"score_name": "a\nb"}, r"score_name is no name"),
        ({"batch_size": 1.5}, r"batch_size is not an integer"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(sharpen.TrainingError, match=f"^Diary: {text}") as raised:
        Diary(**{"path": "d.jsonl", "validation": (X, Y), **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("validation", "text"),
    [
        ((X, Y + 1), r"labels of validation are out of range \(got 1 to 2; need 0 to 1"),
        ((X, Y - 1), r"labels of validation are out of range \(got -1 to 0"),
        ((X, np.zeros((N, 3))), r"y of validation does not fit .* \(got shape \(3,\) and float64"),
        ((X, Y * 0.5), r"y of validation does not fit .* need integer labels or shape \(2,\)"),
        ((X[:, :5], Y), r"'tiny' does not run on these samples \(one has shape \(5,\)"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_training(
    tmp_path: Path, validation: Any, text: str
) -> None:
    model = tiny_model()
    before = arrays(model)
    with pytest.raises(sharpen.TrainingError, match=text):
        fit(model, Diary(tmp_path / "d.jsonl", validation), epochs=1)
    for old, new in zip(before, arrays(model), strict=False):
        np.testing.assert_array_equal(old, new)
    assert not (tmp_path / "d.jsonl").exists()


def test_a_model_without_spikes_and_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)], name="plain")
    model.compile(loss="mse")
    with pytest.raises(sharpen.TrainingError, match="Diary: model 'plain' has no layer that can"):
        fit(model, Diary(tmp_path / "d.jsonl", (X, Y)), y=np.eye(2)[Y])
    (tmp_path / "file").write_text("")
    with pytest.raises(sharpen.TrainingError, match=r"cannot be written \(.*\)\. Give another"):
        fit(tiny_model(), Diary(tmp_path / "file" / "d.jsonl", (X, Y)), epochs=1)
