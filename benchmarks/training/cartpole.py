"""CartPole-v1 for a spiking agent: observations as bytes, and episodes in lockstep.

Needs gymnasium (the extra `rl`), no Keras. All episodes go on side by side, so that one
`simulation.run` decides one step of every episode that is still going on.

    python benchmarks/training/cartpole.py [--network FILE] [--backend NAME] [--episodes N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import whetsim
from whetsim.backend import Simulation

ENVIRONMENT = "CartPole-v1"
NETWORK = Path(__file__).resolve().parents[1] / "networks" / "cartpole.safetensors"

NAMES = ("position_m", "velocity_m_s", "angle_rad", "angular_velocity_rad_s")
LIMITS = (2.4, 3.0, 0.21, 3.0)
"""Largest magnitude of each number of an observation that its byte can tell; the environment ends
an episode at 2.4 m and 0.209 rad, and velocities beyond 3 are rare."""
HIGH = 255
"""Largest value of a byte; the network is trained on bytes divided by it."""

LONGEST = 500
"""Steps after which the environment ends an episode."""

TEST_SEEDS = range(10_000, 10_100)
"""First states of the 100 episodes that a network is judged by; training never sees them."""

Policy = Callable[[NDArray[np.uint8]], NDArray[np.int64]]
"""From encoded observations, shape (n, 4), to actions, shape (n,)."""


def encode(observations: ArrayLike) -> NDArray[np.uint8]:
    """Return observations as bytes: -limit is 0, limit is 255, linear between, clipped beyond.

    Parameters
    ----------
    observations : array_like of float, shape (n, 4)
        As CartPole-v1 gives them, in metres, radians and seconds.

    Returns
    -------
    ndarray of uint8, shape (n, 4)
        Samples for the network.

    Examples
    --------
    >>> encode([[-2.4, 3.0, 0.0, 99.0]])
    array([[  0, 255, 128, 255]], dtype=uint8)
    """
    parts = np.asarray(observations, dtype=np.float64) / LIMITS  # -1 to 1
    return np.rint((np.clip(parts, -1.0, 1.0) + 1.0) * (HIGH / 2)).astype(np.uint8)


def encoding() -> dict[str, Any]:
    """Return the encoding in words and numbers, for a file's metadata."""
    return {
        "formula": "round_half_even((clip(observation / limit, -1, 1) + 1) * high / 2) as uint8",
        "names": list(NAMES),
        "limit": list(LIMITS),
        "high": HIGH,
    }


@dataclass(frozen=True, eq=False)
class Played:
    """Episodes that were played to their end.

    Parameters
    ----------
    lengths : ndarray of int64, shape (n_episodes,)
        Steps of each, which is also its reward; at most `LONGEST`.
    observations : ndarray of uint8, shape (n_steps, 4)
        All encoded observations that were decided on, episodes interleaved.
    """

    lengths: NDArray[np.int64]
    observations: NDArray[np.uint8]


def play(policy: Policy, seeds: Sequence[int]) -> Played:
    """Play one episode per seed, all side by side.

    Parameters
    ----------
    policy : callable
        Called once per step with the observations of all episodes that still go on.
    seeds : sequence of int
        Seed of each episode's first state; nothing else is random.

    Returns
    -------
    Played

    Raises
    ------
    ImportError
        If gymnasium is missing.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(
            "cartpole: gymnasium is not installed. Run: pip install 'whetsim[rl]'"
        ) from error
    environments = [gymnasium.make(ENVIRONMENT, disable_env_checker=True) for _ in seeds]
    state = np.array([e.reset(seed=s)[0] for e, s in zip(environments, seeds, strict=True)])
    lengths = np.zeros(len(environments), dtype=np.int64)
    alive = np.arange(len(environments))
    seen = []
    while len(alive):
        seen.append(encode(state[alive]))
        actions = policy(seen[-1])
        ended = np.zeros(len(alive), dtype=bool)
        for place, (index, action) in enumerate(zip(alive, actions, strict=True)):
            state[index], _, fell, timed_out, _ = environments[index].step(int(action))
            ended[place] = fell or timed_out
        lengths[alive] += 1
        alive = alive[~ended]
    return Played(lengths, np.concatenate(seen))


def spiking_policy(simulation: Simulation) -> Policy:
    """Return the policy of a prepared spiking network: the class that its output spikes decode to.

    Parameters
    ----------
    simulation : Simulation
        Of any backend; prepared once, run at every step.
    """
    return lambda observations: simulation.run(observations).predictions


def play_spiking(path: str | Path, seeds: Sequence[int], backend: str = "exact") -> Played:
    """Play one episode per seed with a stored network that runs as a spiking network."""
    network = whetsim.map_to_spikes(whetsim.load(path))
    with whetsim.get_backend(backend).prepare(network) as simulation:
        return play(spiking_policy(simulation), seeds)


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", type=Path, default=NETWORK)
    parser.add_argument("--backend", default="exact", help="see 'whetsim backends'")
    parser.add_argument("--episodes", type=int, default=len(TEST_SEEDS))
    parser.add_argument("--first-seed", type=int, default=TEST_SEEDS[0])
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.episodes)
    began = time.perf_counter()
    played = play_spiking(arguments.network, seeds, arguments.backend)
    seconds = time.perf_counter() - began
    lengths = played.lengths
    print(
        f"{arguments.backend}: {len(lengths)} episodes, length mean {lengths.mean():.1f}, "
        f"min {lengths.min()}, {(lengths == LONGEST).sum()} of full length; "
        f"{len(played.observations)} steps in {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
