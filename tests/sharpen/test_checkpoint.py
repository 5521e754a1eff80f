"""A training that is interrupted and taken up again ends as if nothing had happened."""

from __future__ import annotations

import json
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

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:.*training ended before:UserWarning"),
]

EPOCHS = 8
BACKEND = keras.backend.backend()
DROPOUT = 0.2 if BACKEND == "torch" else 0.0  # elsewhere Keras does not save its random state


class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
    """Ctrl-C in the second batch of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch, self.now = epoch, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.now = epoch == self.epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.now and batch == 1:
            raise KeyboardInterrupt


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((96, 6, 6, 1), dtype=np.float32)
    return x, (x[:, :3].sum(axis=(1, 2, 3)) > x[:, 3:].sum(axis=(1, 2, 3))).astype(np.int64)


def build() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(momentum=0.9),
            sharpen.SpikingBReLU(margin_strength=0.1, name="spikes_1"),
            keras.layers.Flatten(),
            keras.layers.Dropout(DROPOUT),
            keras.layers.Dense(12),
            keras.layers.BatchNormalization(momentum=0.9),
            sharpen.SpikingBReLU(name="spikes_2"),
            sharpen.SoftmaxDecode(sharpen.generate_key(2, 12, seed=1), 4.0),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 50)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


SHARPENERS = {
    "simple": lambda: sharpen.SimpleSharpener(1, 2),
    "scheduled": lambda: sharpen.ScheduledSharpener(0.2, 0.8),
    "adaptive": lambda: sharpen.AdaptiveSharpener(rate=0.4, critical_rate=0.2, min_epochs=2),
}


def train(
    folder: Path,
    kind: str,
    *others: Any,
    seed: int = 1,
    epochs: int = EPOCHS,
    run: dict[str, Any] | None = None,
    n_samples: int = 96,
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = build()
    sharpener = SHARPENERS[kind]()
    best = sharpen.KeepBestSharp("loss", mode="min", path=folder / "best.weights.h5")
    saver = sharpen.Checkpoint(folder, sharpener, best, run=run)
    x, y = data()
    callbacks = [sharpener, best, *others, saver]
    fit = {"epochs": epochs, "batch_size": 16, "verbose": 0, "callbacks": callbacks}
    model.fit(x[:n_samples], y[:n_samples], **fit)
    return model


@pytest.mark.parametrize("kind", SHARPENERS)
def test_a_training_goes_on_as_if_it_had_not_been_interrupted(kind: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", kind)
    for epoch in (2, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            # Another seed: everything that matters comes from the checkpoint.
            train(tmp_path / "parts", kind, Interrupt(epoch), seed=1 if epoch == 2 else epoch)
    parts = train(tmp_path / "parts", kind, seed=99)
    assert sharpen.is_fully_sharp(parts)
    for one, other in zip(whole.weights, parts.weights, strict=True):
        a, b = (np.asarray(keras.ops.convert_to_numpy(w)) for w in (one, other))
        if BACKEND != "tensorflow":  # which shuffles with a generator that is not saved
            np.testing.assert_array_equal(a, b, err_msg=one.path)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first = train(tmp_path, "scheduled")
    again = train(tmp_path, "scheduled", seed=5)
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(list(tmp_path.glob("checkpoint_epoch_*"))) == 1


def test_a_later_fit_begins_where_it_wants(tmp_path: Path) -> None:
    model = train(tmp_path, "scheduled")
    x, y = data()
    assert model.fit(x, y, epochs=2, verbose=0).epoch == [0, 1]


def test_an_interrupted_training_leaves_no_trace_in_the_model(tmp_path: Path) -> None:
    model, (x, y) = build(), data()

    def fit(epoch: int) -> None:
        sharpener = sharpen.ScheduledSharpener(0.2, 0.8)
        callbacks = [sharpener, Interrupt(epoch), sharpen.Checkpoint(tmp_path, sharpener)]
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, epochs=6, batch_size=16, verbose=0, callbacks=callbacks)

    fit(2)  # leaves a checkpoint of two epochs
    fit(3)  # goes on behind it, and is interrupted again
    assert model.fit(x, y, epochs=1, verbose=0).epoch == [0]


def test_only_its_own_files_are_removed(tmp_path: Path) -> None:
    other = tmp_path / "epoch_1.weights.h5"
    other.write_bytes(b"not ours")
    train(tmp_path, "scheduled", epochs=3)
    assert other.read_bytes() == b"not ours"
    assert [p.name for p in tmp_path.glob("checkpoint_epoch_*")] == [
        "checkpoint_epoch_3.weights.h5"
    ]


def test_a_missing_file_of_best_weights_is_named_before_training(tmp_path: Path) -> None:
    train(tmp_path, "simple")
    (tmp_path / "best.weights.h5").unlink()
    refusal(tmp_path, "KeepBestSharp: the best weights are missing", kind="simple")


def refusal(folder: Path, text: str, **options: Any) -> None:
    with pytest.raises(sharpen.TrainingError, match=text) as caught:
        train(folder, **{"kind": "scheduled", **options})
    assert "\n" not in str(caught.value)


def test_what_does_not_belong_to_the_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path, "scheduled", epochs=2)
    refusal(tmp_path, r"is one of a training over 2 epochs \(got 3\)", epochs=3)
    refusal(
        tmp_path,
        r"has other parts \(got SimpleSharpener, KeepBestSharp; need ScheduledSharpener, Keep",
        kind="simple",
        epochs=2,
    )
    refusal(tmp_path, r"with 6 batches an epoch \(got 3\)", epochs=2, n_samples=48)
    refusal(tmp_path, r"another training: seed is None \(got 7\)", epochs=2, run={"seed": 7})
    manifest = json.loads((tmp_path / "checkpoint.json").read_text())
    manifest["parts"][0]["state"]["settings"]["stop"] = 0.5
    (tmp_path / "checkpoint.json").write_text(json.dumps(manifest))
    refusal(tmp_path, r"another schedule: stop is 0.5 \(got 0.8\)", epochs=2)
    manifest["model"][0][1][0] += 1
    (tmp_path / "checkpoint.json").write_text(json.dumps(manifest))
    refusal(tmp_path, "is one of another model. Take another folder", epochs=2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.pop("epoch"), "no 'epoch'"),
        (lambda m: m.update(epoch=-2), "epoch -2"),
        (lambda m: m.update(epoch=2), "epoch 2"),
        (lambda m: m.update(parts=[3]), "not subscriptable"),
        (lambda m: m["random"].pop("numpy"), "random: 'numpy'"),
        (lambda m: m["random"].update(python=[3, [1], None]), "random: "),
        (lambda m: m.update(weights="../other.weights.h5"), "weights outside of the folder"),
        (lambda m: m.update(weights="missing.weights.h5"), "No such file"),
        (lambda m: m.update(whetsim_checkpoint=7), "version 7, need 1"),
        (lambda m: m.update(sha256="0"), "has another checksum"),
    ],
)
def test_a_damaged_checkpoint_is_refused(change: Any, text: str, tmp_path: Path) -> None:
    train(tmp_path, "scheduled", epochs=1)
    path = tmp_path / "checkpoint.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    refusal(tmp_path, f"checkpoint.json: the checkpoint is damaged .*{text}.*begin anew", epochs=1)


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "[" * 5000])
def test_a_file_that_is_no_checkpoint_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(content)
    refusal(tmp_path, "the checkpoint is damaged")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    train(tmp_path, "scheduled", epochs=1)
    (weights,) = tmp_path.glob("checkpoint_epoch_*")
    weights.write_bytes(weights.read_bytes()[:1000])
    refusal(tmp_path, "has another checksum", epochs=1)


def test_parts_without_a_state_are_refused(tmp_path: Path) -> None:
    with pytest.raises(sharpen.TrainingError, match=r"a part has no state \(got object; need meth"):
        sharpen.Checkpoint(tmp_path, object())
    saver = sharpen.Checkpoint(tmp_path, sharpen.KeepBestSharp("loss", "min"))
    model = build()
    with pytest.raises(sharpen.TrainingError, match="its weights are in memory"):
        model.fit(*data(), verbose=0, callbacks=[saver])
