"""Train an agent for CartPole-v1 whose network becomes exact steps; write cartpole.safetensors.

Proximal policy optimisation (PPO) with a policy network that is sharpened while it learns: the
sharpness follows the count of updates. The agent then plays 100 new episodes as a spiking network.
Needs the extras `train` and `rl`. About five minutes on one core.

    python benchmarks/training/train_cartpole.py [--out FILE] [--seed N] [--steps N]
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from cartpole import (
    ENVIRONMENT,
    HIGH,
    NETWORK,
    TEST_SEEDS,
    Policy,
    encode,
    encoding,
    play,
    play_spiking,
    spiking_policy,
)
from common import versions
from numpy.typing import NDArray

import whetsim
from whetsim import sharpen

import keras  # isort: skip  # after whetsim.sharpen, which finds a backend for it
import torch
from keras import layers

HIDDEN = (64, 64)
WIDTH = 21  # odd, so that two classes never tie
TEMPERATURE = 5.0
KEY_SEED = 1
DIARY_SEEDS = range(1_000, 1_020)
DIARY_EVERY = 10  # updates

METHOD = (
    "PPO with a real-valued critic; bounded ReLU policy without batch norm, every unit centred on "
    "its step at the start, sharpened layer by layer from the input up by the count of updates, "
    "then straight-through fine-tuning; Adam, learning rate falling linearly to 0"
)


@dataclass(frozen=True)
class Recipe:
    """How the agent is trained; every value ends up in the file's metadata."""

    seed: int
    steps: int
    """Steps in the environment, all copies together."""
    copies: int = 32
    """Environments side by side."""
    horizon: int = 64
    """Steps of each copy between two updates."""
    passes: int = 6
    batch_size: int = 256
    learning_rate: float = 2e-3
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.005
    largest_gradient: float = 0.5
    start: float = 0.25
    stop: float = 0.6

    @property
    def updates(self) -> int:
        """Number of updates: rollouts, each learned from in several passes."""
        return self.steps // (self.copies * self.horizon)


@dataclass(frozen=True, eq=False)
class Rollout:
    """What all copies saw and did between two updates; one row per step that counts."""

    observations: torch.Tensor
    actions: torch.Tensor
    log_probabilities: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield all rows once, shuffled."""
        for chosen in torch.randperm(len(self.actions)).split(size):
            yield tuple(getattr(self, name)[chosen] for name in self.__dataclass_fields__)


def build_policy() -> keras.Model:
    """Return the untrained policy; the names of the steps become names of populations."""
    parts: list[Any] = [keras.Input((4,))]
    # Inputs vary by a tenth or two, zeros and ones by a half.
    spreads = (1.5, *(0.8 / n**0.5 for n in HIDDEN))
    for number, (units, spread) in enumerate(zip((*HIDDEN, WIDTH), spreads, strict=True), start=1):
        kernel = keras.initializers.RandomNormal(stddev=spread)
        parts.append(layers.Dense(units, kernel_initializer=kernel, name=f"dense_{number}"))
        parts.append(sharpen.SpikingBReLU(name=f"spikes_{number}"))
    key = sharpen.generate_key(2, WIDTH, seed=KEY_SEED)
    net = keras.Sequential([*parts, sharpen.SoftmaxDecode(key, temperature=TEMPERATURE)])
    for layer in net.layers:
        if isinstance(layer, layers.Dense):
            # Inputs around 0.5 give sums around 0.5, where a step has its gradient. In place of
            # a batch norm, which learns badly from observations that change with the policy.
            layer.bias.assign(0.5 - 0.5 * keras.ops.sum(layer.kernel, axis=0))
    return net


def build_critic() -> keras.Model:
    """Return the untrained critic, an ordinary network that only training needs."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Rescaling(4.0, offset=-2.0),
            layers.Dense(64, activation="tanh"),
            layers.Dense(64, activation="tanh"),
            layers.Dense(1),
        ]
    )


def to_float(encoded: NDArray[np.uint8]) -> torch.Tensor:
    """Return what the networks read; the same product as in `whetsim.reference`."""
    return torch.from_numpy(encoded.astype(np.float32) * np.float32(1 / HIGH))


class Agent:
    """A policy, its critic, and the environments they learn in."""

    def __init__(self, recipe: Recipe) -> None:
        import gymnasium

        keras.utils.set_random_seed(recipe.seed)
        self.recipe = recipe
        self.policy = build_policy()
        self._critic = build_critic()
        nets = (self.policy, self._critic)
        self._weights = [[v.value for v in net.trainable_variables] for net in nets]
        self._optimizer = torch.optim.Adam([w for weights in self._weights for w in weights])
        self._environments = gymnasium.make_vec(
            ENVIRONMENT, recipe.copies, vectorization_mode="vector_entry_point"
        )
        state, _ = self._environments.reset(seed=recipe.seed)
        self._observation = to_float(encode(state))
        self._ended = torch.zeros(recipe.copies, dtype=torch.bool)

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Play for a while with actions drawn from the policy."""
        rows = []
        for _ in range(self.recipe.horizon):
            log_p = self.policy(self._observation).log()
            action = torch.distributions.Categorical(logits=log_p).sample()
            state, reward, fell, timed_out, _ = self._environments.step(action.numpy())
            following = to_float(encode(state))
            rows.append(
                (
                    self._observation,
                    action,
                    log_p.gather(1, action[:, None])[:, 0],
                    torch.as_tensor(reward, dtype=torch.float32),
                    torch.as_tensor(fell),
                    self._ended,  # a step after the end starts the next episode, whatever is done
                )
            )
            self._ended = torch.as_tensor(fell | timed_out)
            self._observation = following
        observation, action, log_p, reward, fell, starts = (
            torch.stack(column) for column in zip(*rows, strict=True)
        )
        states = torch.cat([observation, self._observation[None]])
        value = self._critic(states.reshape(-1, 4)).reshape(states.shape[:2])
        advantage = self._advantages(reward, value, fell, starts)
        counts = ~starts
        return Rollout(
            observation[counts],
            action[counts],
            log_p[counts],
            advantage[counts],
            (advantage + value[:-1])[counts],
        )

    def _advantages(
        self, reward: torch.Tensor, value: torch.Tensor, fell: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """Generalised advantage estimates; the last state is worth 0 only if the pole fell."""
        r = self.recipe
        # Rewards of 1 - discount: what can be won is between 0 and 1.
        surprise = (1 - r.discount) * reward + r.discount * value[1:] * ~fell - value[:-1]
        ended = torch.cat([starts[1:], self._ended[None]])
        result = torch.zeros_like(reward)
        running = torch.zeros(r.copies)
        for t in reversed(range(r.horizon)):
            running = surprise[t] + r.discount * r.gae_lambda * running * ~ended[t]
            result[t] = running
        return result

    def learn(self, rollout: Rollout, learning_rate: float) -> None:
        """Improve policy and critic by what was collected."""
        r = self.recipe
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        for _ in range(r.passes):
            for observation, action, old_log_p, advantage, returns in rollout.batches(r.batch_size):
                p = self.policy(observation)
                log_p = p.log()
                ratio = (log_p.gather(1, action[:, None])[:, 0] - old_log_p).exp()
                scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - r.clip, 1 + r.clip)
                gain = torch.minimum(ratio * scaled, clipped * scaled).mean()
                entropy = -(p * log_p).sum(dim=1).mean()
                error = (self._critic(observation)[:, 0] - returns).square().mean()
                self._optimizer.zero_grad()
                (error - gain - r.entropy * entropy).backward()
                for weights in self._weights:
                    torch.nn.utils.clip_grad_norm_(weights, r.largest_gradient)
                self._optimizer.step()


def network_policy(net: keras.Model) -> Policy:
    """Return the policy of a Keras network that always takes the likelier action."""

    @torch.no_grad()
    def act(observations: NDArray[np.uint8]) -> NDArray[np.int64]:
        actions: NDArray[np.int64] = net(to_float(observations)).argmax(dim=1).numpy()
        return actions

    return act


def as_spikes(net: keras.Model, seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return lengths of episodes played by a network as it is now, if all were steps, in spikes."""
    activations = sharpen.spiking_layers(net)
    before = [layer.sharpness for layer in activations]
    sharpen.set_sharpness(net, 1.0)
    try:
        model = sharpen.to_model(net, input_scale=1 / HIGH, input_range=(0, HIGH))
    finally:
        for layer, sharpness in zip(activations, before, strict=True):
            layer.sharpness = sharpness
    network = whetsim.map_to_spikes(model)
    with whetsim.get_backend("exact").prepare(network) as simulation:
        return play(spiking_policy(simulation), seeds).lengths


def train(recipe: Recipe, diary: Path) -> tuple[keras.Model, dict[str, Any]]:
    """Train an agent.

    Parameters
    ----------
    recipe : Recipe
    diary : Path
        File for one JSON line every few updates: steps, sharpness of each layer, mean length of
        20 episodes played as is and as a spiking network.

    Returns
    -------
    keras.Model, dict
        The sharp policy of the last update, and lengths of the test episodes before training,
        before sharpening and just after it.
    """
    agent = Agent(recipe)
    net, updates = agent.policy, recipe.updates
    start, stop = round(recipe.start * updates), round(recipe.stop * updates)
    sharpener = sharpen.StepSharpener(net, start=start, stop=stop)
    moments = {0: "untrained", start: "before_sharpening", stop: "just_sharp"}
    milestones: dict[str, Any] = {}
    diary.parent.mkdir(parents=True, exist_ok=True)
    with diary.open("w", encoding="utf-8") as lines:
        for update in range(updates + 1):
            if (name := moments.get(update)) is not None:
                milestones[name] = summary(play(network_policy(net), TEST_SEEDS).lengths)
                print(f"{name}: {milestones[name]}", flush=True)
            if update % DIARY_EVERY == 0 or update == updates:
                line = {
                    "steps": update * recipe.copies * recipe.horizon,
                    "sharpness": [round(s, 3) for s in sharpener.sharpness],
                    "length": play(network_policy(net), DIARY_SEEDS).lengths.mean(),
                    "length_spiking": as_spikes(net, DIARY_SEEDS).mean(),
                }
                print(json.dumps(line), file=lines, flush=True)
                print(json.dumps(line), flush=True)
            if update < updates:
                # One sharpness for acting and learning: the ratio of PPO compares the two.
                sharpener.step()
                agent.learn(agent.collect(), recipe.learning_rate * (1 - update / updates))
    return net, milestones


def summary(lengths: NDArray[np.int64]) -> dict[str, float]:
    """Return mean and smallest length."""
    return {"mean": float(lengths.mean()), "min": int(lengths.min())}


def spikes_per_step(path: Path, observations: NDArray[np.uint8]) -> dict[str, float]:
    """Return mean spikes of each population for the observations of played episodes."""
    network = whetsim.map_to_spikes(whetsim.load(path))
    counts = whetsim.run(network, observations).spikes_per_sample
    return {name: round(mean, 2) for name, mean in counts.items()}


def main() -> None:
    """Train, write, play."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=NETWORK, help="file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200_000, help="steps in the environment")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are too small for more
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps)
    path: Path = arguments.out
    began = time.perf_counter()
    net, milestones = train(recipe, path.with_suffix(".lengths.jsonl"))
    seconds = time.perf_counter() - began

    written = {"input_scale": 1 / HIGH, "input_range": (0, HIGH), "name": path.stem}
    sharpen.export(net, path, **written)
    played = play_spiking(path, TEST_SEEDS)
    results = {**milestones, "fine_tuned": summary(play(network_policy(net), TEST_SEEDS).lengths)}
    metadata = {
        "environment": ENVIRONMENT,
        "episodes": len(TEST_SEEDS),
        "episode_seeds": [TEST_SEEDS.start, TEST_SEEDS.stop - 1],
        "actions": ["push left", "push right"],
        "observation_encoding": encoding(),
        **{f"length_{name}": result for name, result in results.items()},
        "length_spiking": summary(played.lengths),
        "spikes_per_step": spikes_per_step(path, played.observations),
        "training": {
            "script": "benchmarks/training/train_cartpole.py",
            "method": METHOD,
            **asdict(recipe),
            "updates": recipe.updates,
            "hidden": list(HIDDEN),
            "width": WIDTH,
            "temperature": TEMPERATURE,
            "seconds": round(seconds),
            "date": datetime.date.today().isoformat(),
            "versions": {**versions(), "gymnasium": version("gymnasium")},
        },
    }
    sharpen.export(net, path, **written, metadata=metadata)
    for key, value in metadata.items():
        print(f"{key}: {value}")
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
