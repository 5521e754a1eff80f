"""Brian2 step by step from Python.

Weights, sizes and schedules are data and every object has a fixed name, so that Brian2 generates
the same code for every network: it is compiled once and comes from Brian2's cache from then on.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Events, Schedule
from whetsim.backends.brian2_objects import Brian2Simulation, Fired
from whetsim.backends.brian2_synapses import FlatSynapses
from whetsim.backends.quiet import quiet, without_noise
from whetsim.network import SpikingNetwork

__all__ = ["RuntimeSimulation"]


class RuntimeSimulation(Brian2Simulation):
    """Step by step under Python's control, with compiled (cython) or numpy code."""

    block_values = 2**26
    """Each block costs about 0.1 s before it gets going."""

    def __init__(self, b2: Any, network: SpikingNetwork, schedule: Schedule, target: str) -> None:
        super().__init__(b2, network, schedule)
        b2.set_device("runtime")
        self._target = target
        clock = b2.Clock(dt=1 * b2.ms, name="whetsim_clock")
        previous = b2.prefs.codegen.target
        # What only builds is not worth compiling.
        b2.prefs.codegen.target = "numpy"
        try:
            with quiet():
                self._build(clock)
        finally:
            b2.prefs.codegen.target = previous

    def _build(self, clock: Any) -> None:
        b2 = self._b2
        source, neurons = self._groups(clock, self._n_inputs, self._n_neurons)
        bias = self._bias()
        neurons.variables["bias"].set_value(bias)
        neurons.variables["v"].set_value(bias)
        neurons.variables["keep"].set_value(self._keep)
        objects = [source, neurons]
        for group in (source, neurons):
            flat = self._flat(group is source)
            if len(flat):
                objects.append(self._connected(group, neurons, flat))
        # Plain functions cost a few microseconds a step; they need no code of their own.
        start = b2.NetworkOperation(self._start, clock=clock, when="start", order=-1)
        note = b2.NetworkOperation(self._note, clock=clock, when="after_thresholds", order=-1)
        self._x = source.variables["x"].get_value()
        self._v = neurons.variables["v"].get_value()
        self._spikes = neurons.variables["_spikespace"].get_value()
        self._values = np.zeros((0, self.network.input.size), dtype=np.int32)
        self._step = 0
        self._fired: Fired = []
        self._net = b2.Network(*objects, start, note)
        for part in self._net.objects:
            # Else Brian2 warns of objects in no network where a simulation never ran.
            part._network = self._net.id

    def _connected(self, source: Any, neurons: Any, flat: FlatSynapses) -> Any:
        """Do what ``connect(i=..., j=...)`` does, without its copies of the arrays.

        Those are five at a time. Brian2's counts of synapses for each neuron stay 0.
        """
        delays = flat.delays * self._b2.ms
        # A number instead of an array saves memory here and in the queue of spikes.
        synapses = self._synapses(source, neurons, delays[0] if len(delays) == 1 else None)
        arrays = [synapses.variables[name] for name in ("_synaptic_pre", "_synaptic_post", "w")]
        for array in arrays[:2]:
            array.resize(len(flat))
        synapses._resize(len(flat))
        flat.fill(*(array.get_value() for array in arrays))
        synapses._connect_called = True
        if len(delays) > 1:
            synapses.delay = delays
        return synapses

    def _start(self) -> None:
        if self.schedule == "sequential" and self._step % self.period == 0:
            self._v[:] = 0.0
        self._present(self._step, self._values, self._x)

    def _note(self) -> None:
        n = self._spikes[-1]
        if n:
            self._fired.append((self._step, self._spikes[:n].copy()))
        self._step += 1
        if self._step % 256 == 0:
            self.report(min(self._step // self.period, len(self._values)))

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        b2 = self._b2
        self._values = values
        self._step, self._fired = 0, []
        previous = b2.prefs.codegen.target
        b2.prefs.codegen.target = self._target
        try:
            with without_noise():
                # In one go: each call of run() takes a good part of a second to get going.
                self._net.run(self.n_steps(len(values)) * b2.ms, namespace={})
        finally:
            b2.prefs.codegen.target = previous
        start = time.perf_counter()
        result = self._by_population(self._fired)
        self._fired = []
        self.read_s += time.perf_counter() - start
        return result
