"""The Brian2 objects of a network: one neuron group, input neurons, two sets of synapses.

One step is 1 ms. In a Brian2 step thresholds come before synapses, so a spike that is delivered
without delay is tested in the next step: a projection of d steps has a synaptic delay of d - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import ClockedSimulation, Events, Schedule
from whetsim.backends.brian2_synapses import FlatSynapses, Part
from whetsim.connectivity import Dense, narrow
from whetsim.network import SpikingNetwork

__all__ = ["Brian2Simulation", "Fired"]

EQUATIONS = """
v : 1
bias : 1 (constant)
keep : 1 (shared)
"""
Fired = list[tuple[int, NDArray[np.int32]]]
"""Steps, and which neurons fired in them, counted through all populations."""

# A neuron that fired starts from 0. Pipelined, keep is 0 and every neuron starts from its bias;
# sequential, keep is 1 and the bias arrives as a spike.
RENEW = "v = keep * v * int(v < 0.5) + bias"


class Brian2Simulation(ClockedSimulation):
    """The objects that both ways of running share."""

    def __init__(self, b2: Any, network: SpikingNetwork, schedule: Schedule) -> None:
        super().__init__(network, schedule)
        self._b2 = b2
        sizes = [p.size for p in network.populations]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._offset = dict(zip((p.name for p in network.populations), offsets, strict=False))
        # The value of an input event is read when the event arrives. So none may be under way:
        # each delay of d steps has input neurons of its own, which send d - 1 steps later.
        into = (p for p in network.projections if p.source == network.input.name)
        delays = sorted({p.delay for p in into})
        self._input_start = {d: i * network.input.size for i, d in enumerate(delays)}
        # Sequential, one more input neuron for each depth sends the biases of that depth.
        self._bias_start = len(delays) * network.input.size
        self._n_bias = network.depth if schedule == "sequential" else 0
        # Brian2 has no empty groups.
        self._n_inputs = max(1, self._bias_start + self._n_bias)
        self._n_neurons = max(1, network.n_neurons)

    def _present(self, step: int, values: NDArray[np.int32], x: NDArray[np.float64]) -> None:
        """Write the value of every input neuron in a step into `x`."""
        for delay, start in self._input_start.items():
            sample, rest = divmod(step - delay + 1, self.period)
            shown = rest == 0 and 0 <= sample < len(values)
            x[start : start + values.shape[1]] = values[sample] if shown else 0
        if self._n_bias:
            x[self._bias_start : self._bias_start + self._n_bias] = 0
            if step % self.period < self._n_bias:
                x[self._bias_start + step % self.period] = 1

    def _groups(self, clock: Any, n_inputs: int, n_neurons: int) -> tuple[Any, Any]:
        """Return the group of input neurons and the group of all others."""
        b2 = self._b2
        source = b2.NeuronGroup(
            n_inputs, "x : 1", threshold="x != 0", reset="", clock=clock, name="whetsim_input"
        )
        neurons = b2.NeuronGroup(
            n_neurons,
            EQUATIONS,
            threshold="v >= 0.5",
            reset="",
            clock=clock,
            name="whetsim_neurons",
        )
        neurons.run_regularly(RENEW, clock=clock, when="after_thresholds", name="whetsim_renew")
        for group in (source, neurons):
            # Without the empty reset Brian2 warns, with it compiles and runs nothing.
            group.resetter["spike"].active = False
        return source, neurons

    def _synapses(self, source: Any, neurons: Any, delay: Any) -> Any:
        """Return the synapses from a group, none made yet; `delay` if it is the same for all."""
        from_input = source is not neurons
        return self._b2.Synapses(
            source,
            neurons,
            "w : 1 (constant)",
            on_pre="v_post += w * x_pre" if from_input else "v_post += w",
            delay=delay,
            clock=neurons.clock,
            name="whetsim_from_input" if from_input else "whetsim_between",
        )

    @property
    def _keep(self) -> float:
        return 0.0 if self.schedule == "pipelined" else 1.0

    def _bias(self) -> NDArray[np.float64]:
        """Return the bias with which each neuron starts a step."""
        bias = np.zeros(self._n_neurons)
        if self.schedule == "pipelined":
            for population in self.network.populations:
                start = self._offset[population.name]
                bias[start : start + population.size] = population.real_bias
        return bias

    def _flat(self, from_input: bool) -> FlatSynapses:
        """Return the synapses that start at input neurons, or all others."""
        network = self.network
        parts: list[Part] = []
        for p in network.projections:
            if (p.source == network.input.name) == from_input:
                start = self._input_start[p.delay] if from_input else self._offset[p.source]
                delay = 0 if from_input else p.delay - 1
                target = network[p.target]
                parts.append(Part(p.connectivity, target, start, self._offset[p.target], delay))
        for population in network.populations if from_input and self._n_bias else ():
            one = Dense(narrow(population.bias[None, :]))
            source = self._bias_start + population.depth - 1
            parts.append(Part(one, population, source, self._offset[population.name], 0))
        return FlatSynapses(parts)

    def _by_population(self, fired: Fired) -> dict[str, Events]:
        steps = np.array([step for step, _ in fired], dtype=np.int64)
        starts = np.array([*self._offset.values(), self.network.n_neurons])
        # Neurons are in order in each step, so those of a population stand together.
        cuts = [np.searchsorted(neurons, starts).tolist() for _, neurons in fired]
        result = {}
        for k, (name, start) in enumerate(self._offset.items()):
            mine = [n[cut[k] : cut[k + 1]] for (_, n), cut in zip(fired, cuts, strict=True)]
            neuron = np.concatenate([np.zeros(0, np.int64), *mine])
            neuron -= start
            result[name] = Events(np.repeat(steps, [len(m) for m in mine]), neuron)
        return result
