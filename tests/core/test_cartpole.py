"""The agent that balances a pole: its encoding, the lockstep of episodes, and that it can do it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import whetsim
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
GYMNASIUM = "needs gymnasium: pip install 'whetsim[rl]'"

cartpole = load_script("cartpole")


def push_to_the_fall(observations: np.ndarray) -> np.ndarray:
    """Push in the direction in which the pole falls; lasts some dozens of steps."""
    return (observations[:, 2] >= 128).astype(np.int64)


def test_zero_is_the_middle_and_limits_are_the_ends() -> None:
    limits = np.array(cartpole.LIMITS)
    encoded = cartpole.encode([-limits, 0 * limits, limits, 2 * limits, -2 * limits])
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[v] * 4 for v in (0, 128, 255, 255, 0)]


def test_a_value_is_half_a_byte_step_off_at_most() -> None:
    rng = np.random.default_rng(1)
    limits = np.array(cartpole.LIMITS)
    observations = rng.uniform(-limits, limits, (1000, 4))
    decoded = (cartpole.encode(observations) / 127.5 - 1) * limits
    assert (np.abs(decoded - observations) <= limits / 255 + 1e-12).all()


def test_single_and_double_precision_are_encoded_alike() -> None:
    observations = np.random.default_rng(2).normal(0, 1, (1000, 4)).astype(np.float32)
    assert np.array_equal(
        cartpole.encode(observations), cartpole.encode(observations.astype(np.float64))
    )


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install 'whetsim\[rl\]'"):
        cartpole.play(push_to_the_fall, [1])


def test_episodes_side_by_side_are_those_played_alone() -> None:
    pytest.importorskip("gymnasium", reason=GYMNASIUM)
    seeds = [5, 6, 7, 8]
    together = cartpole.play(push_to_the_fall, seeds)
    alone = [cartpole.play(push_to_the_fall, [seed]).lengths[0] for seed in seeds]
    assert together.lengths.tolist() == alone
    assert len(set(alone)) > 1, "episodes end at different times"
    assert together.observations.shape == (sum(alone), 4)


def test_the_file_says_how_observations_are_encoded() -> None:
    model = whetsim.load(cartpole.NETWORK)
    assert model.metadata["observation_encoding"] == json.loads(json.dumps(cartpole.encoding()))
    assert (model.input.shape, model.input.low, model.input.high) == ((4,), 0, cartpole.HIGH)
    assert model.input.scale == pytest.approx(1 / cartpole.HIGH)


def test_the_file_is_small_and_described() -> None:
    assert cartpole.NETWORK.stat().st_size < 50_000
    metadata = whetsim.load(cartpole.NETWORK).metadata
    assert (ROOT / metadata["training"]["script"]).is_file()
    assert {"method", "steps", "seed", "versions", "date"} <= set(metadata["training"])
    for moment in ("untrained", "before_sharpening", "just_sharp", "fine_tuned", "spiking"):
        assert 0 < metadata[f"length_{moment}"]["mean"] <= cartpole.LONGEST
    seeds = cartpole.TEST_SEEDS
    assert metadata["episode_seeds"] == [seeds[0], seeds[-1]]
    assert metadata["training"]["seed"] not in seeds


def test_the_diary_ends_sharp() -> None:
    lines = cartpole.NETWORK.with_suffix(".lengths.jsonl").read_text(encoding="utf-8").splitlines()
    diary = [json.loads(line) for line in lines]
    assert [entry["steps"] for entry in diary] == sorted(entry["steps"] for entry in diary)
    assert set(diary[0]["sharpness"]) == {0.0}
    assert set(diary[-1]["sharpness"]) == {1.0}
    assert diary[-1]["length"] == diary[-1]["length_spiking"]


def test_the_actions_are_never_tied() -> None:
    readout = whetsim.load(cartpole.NETWORK).readout
    assert readout is not None
    assert readout.n_outputs % 2 == 1
    assert np.array_equal(readout.matrix[:, 0], -readout.matrix[:, 1])


def test_the_stored_network_balances_the_pole_in_spikes() -> None:
    pytest.importorskip("gymnasium", reason=GYMNASIUM)
    lengths = cartpole.play_spiking(cartpole.NETWORK, cartpole.TEST_SEEDS[:20]).lengths
    assert lengths.mean() >= 450
