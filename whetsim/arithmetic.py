"""What a target that computes in few bits holds, and what its arithmetic did to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whetsim.errors import UnknownNameError, did_you_mean, quote

__all__ = ["EmulationEffects", "IntegerFormat"]


@dataclass(frozen=True)
class IntegerFormat:
    """Whole numbers that a target's registers hold.

    They are those of the smallest integers with which a neuron decides: it fires iff the sum of
    ``weight * spike`` is at least its threshold, with the greatest common divisor of its weights
    taken out and the threshold moved to where sums can be (from the sum of its negative weights to
    one more than the sum of its positive ones). A convolution has one divisor for each channel.

    A network beyond what the registers hold is refused. One that the registers hold runs; it is
    exact where sums stay within `positive_sum`, `negative_sum` and `membrane_max`.

    Parameters
    ----------
    weight_min, weight_max : int
        Range of a weight.
    weight_shift : int
        All weights that leave one source in one projection (one input channel, of a convolution)
        may together be shifted left by up to so many bits.
    weight_values : int, optional
        n weights of its own for each neuron: it has no more than n different ones, or all are in
        ``-2^(n-1) .. 2^(n-1) - 1`` (sums of 1, 2, 4, ... and ``-2^(n-1)``). A population uses the
        smallest n that serves all its neurons, and a synapse counts n times for `fan_in`.
    threshold_min, threshold_max : int
    fan_in : int, optional
        Synapses onto one neuron.
    positive_sum, negative_sum : int, optional
        Largest sum of a neuron's positive weights, and of the sizes of its negative ones, that it
        adds up without error whatever spikes arrive.
    membrane_max : int, optional
        The threshold (at least 1) and the sum of the sizes of all negative weights are at most
        this, or a membrane that knows no negative numbers may stop at 0.
    """

    weight_min: int
    weight_max: int
    threshold_min: int
    threshold_max: int
    weight_shift: int = 0
    weight_values: int | None = None
    fan_in: int | None = None
    positive_sum: int | None = None
    negative_sum: int | None = None
    membrane_max: int | None = None


@dataclass(frozen=True, eq=False)
class EmulationEffects:
    """How often the arithmetic of a target did something else than add up, in one run.

    Parameters
    ----------
    n_samples : int
    counts : mapping of str to mapping of str to int64 array (n_neurons,)
        What happened (``accumulator wraps``), population, and how often to each neuron: in so many
        samples, or, for ``extra spikes``, so many spikes.
    """

    n_samples: int
    counts: Mapping[str, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)

    def total(self, effect: str | None = None) -> int:
        """Return how often an effect happened, or all of them.

        Raises
        ------
        UnknownNameError
            If the target counts no such effect.
        """
        if effect is not None and effect not in tuple(self.counts):
            raise UnknownNameError(
                f"effects: none named {quote(effect)}; there are: "
                f"{', '.join(self.counts) or 'none'}.{did_you_mean(effect, self.counts)}"
            )
        kinds = self.counts if effect is None else (effect,)
        return sum(int(n.sum()) for kind in kinds for n in self.counts[kind].values())

    def __str__(self) -> str:
        if not self.total():
            return f"no effects in {self.n_samples:,} samples"
        lines = [f"effects in {self.n_samples:,} samples:"]
        for effect, populations in self.counts.items():
            for name, counts in populations.items():
                if counts.any():
                    lines.append(
                        f"  {effect}, {name}: {int(counts.sum()):,} at "
                        f"{np.count_nonzero(counts):,} of {len(counts):,} neurons, "
                        f"most at neuron {int(counts.argmax())} ({int(counts.max()):,})"
                    )
        return "\n".join(lines)
