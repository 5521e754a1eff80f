"""Backend ``nest``: PyNEST, whole arrays at a time, `iaf_psc_delta` neurons, 1 ms resolution.

One step is 1 ms. `iaf_psc_delta` adds arriving spikes after its decay and tests ``>=`` in the same
step, so that every layer takes one step with a delay of 1 ms.

Pipelined, the membrane time constant is so short that the decay factor underflows to exactly 0; a
constant current then adds exactly the bias in every step. Sequential, it is so long that the factor
is exactly 1: the literal neuron without leak, its bias a spike in its own step, its membrane set to
0 after each sample.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Backend, Capabilities, ClockedSimulation, Events, Schedule
from whetsim.backends.quiet import quiet
from whetsim.backends.support import (
    Kernel,
    advance,
    n_threads,
    need,
    package_version,
    real_synapses,
)
from whetsim.errors import UnsupportedError
from whetsim.network import SpikingNetwork

__all__ = ["KERNEL", "NestBackend"]

KERNEL = Kernel("NEST")
STEP_MS = 1.0
MEMORYLESS_MS = 0.001
"""exp(-1 ms / this) is 0 in double precision."""
NO_LEAK_MS = 1e20
"""exp(-1 ms / this) is 1 in double precision."""
MAX_THREADS = 256
"""With very many NEST ends the process."""

SYNAPSES_FOR_THREADS = 2_000_000
"""Below this, waiting for each other in every step costs threads more than they gain."""


class NestBackend(Backend):
    """NEST through its own Python interface."""

    name = "nest"
    capabilities = Capabilities()
    options: ClassVar[Mapping[str, str]] = {
        "threads": "number of threads; by default 1 for small networks, else all cores"
    }

    def versions(self) -> Mapping[str, str]:
        return {"nest-simulator": package_version("nest-simulator", self.name, "nest")}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> NestSimulation:
        small = network.n_synapses < SYNAPSES_FOR_THREADS
        threads = options.get("threads", 1 if small else n_threads())
        whole = isinstance(threads, int) and not isinstance(threads, bool)
        if not whole or not 1 <= threads <= MAX_THREADS:
            raise UnsupportedError(
                f"nest: threads must be a whole number in 1..{MAX_THREADS} (got {threads!r})."
            )
        return NestSimulation(network, schedule, threads)


class NestSimulation(ClockedSimulation):
    """A network in the NEST kernel."""

    def __init__(self, network: SpikingNetwork, schedule: Schedule, threads: int) -> None:
        super().__init__(network, schedule)
        self._nest = nest = need("nest", "nest", "nest")
        KERNEL.claim(self)
        with quiet():
            nest.verbosity = nest.VerbosityLevel.ERROR
            nest.ResetKernel()
        nest.resolution = STEP_MS
        nest.local_num_threads = threads
        self._input = nest.Create("spike_generator", max(1, network.input.size))
        first = {network.input.name: _first_id(self._input)}
        self._neurons: dict[str, Any] = {}
        self._recorders: dict[str, Any] = {}
        for population in network.populations:
            neurons = self._create(population.size)
            first[population.name] = _first_id(neurons)
            self._neurons[population.name] = neurons
            if schedule == "pipelined":
                neurons.I_e = population.real_bias
            recorder = nest.Create("spike_recorder", params={"time_in_steps": True})
            nest.Connect(neurons, recorder)
            self._recorders[population.name] = recorder
        for p in network.projections:
            for source, target, weight in real_synapses(network, p):
                self._connect(source + first[p.source], target + first[p.target], weight, p.delay)
        self._has_events = False
        self._bias = None
        if schedule == "sequential":
            self._bias = nest.Create("spike_generator", network.depth)
            for population in network.populations:
                target = np.nonzero(population.bias)[0]
                source = np.full(len(target), _first_id(self._bias) + population.depth - 1)
                weight = population.real_bias[target]
                self._connect(source, target + first[population.name], weight, 1)

    def _create(self, size: int) -> Any:
        tau = MEMORYLESS_MS if self.schedule == "pipelined" else NO_LEAK_MS
        # C_m = tau_m makes the resistance 1, so a current of I_e adds I_e to v.
        parameters = {
            "tau_m": tau,
            "C_m": tau if self.schedule == "pipelined" else 1.0,
            "E_L": 0.0,
            "V_reset": 0.0,
            "V_th": 0.5,
            "V_m": 0.0,
            "t_ref": 0.0,
        }
        return self._nest.Create("iaf_psc_delta", size, params=parameters)

    def _connect(self, source: Any, target: Any, weight: Any, delay: int) -> None:
        if len(source):
            delays = np.full(len(source), delay * STEP_MS)
            self._nest.Connect(source, target, "one_to_one", {"weight": weight, "delay": delays})

    def check_kernel(self) -> None:
        KERNEL.check(self)

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        nest = self._nest
        # Spike times must lie ahead, so step 0 of this block is the next one.
        origin = round(nest.biological_time / STEP_MS) + 1
        if self._has_events:
            # Takes longer than reading them, so a run of one block does without.
            for recorder in self._recorders.values():
                recorder.n_events = 0
        self._has_events = True
        self._set_input(values, origin)
        n_steps = self.n_steps(len(values)) + 1
        with nest.RunManager():
            if self.schedule == "pipelined":
                advance(n_steps, self._run, lambda done: self.report(min(done, len(values))))
            else:
                self._run_sequentially(len(values))
        start = time.perf_counter()
        result = {}
        for name, recorder in self._recorders.items():
            events = recorder.events
            step = np.asarray(events["times"], dtype=np.int64) - origin
            neuron = np.asarray(events["senders"], dtype=np.int64) - _first_id(self._neurons[name])
            result[name] = Events(step, neuron)
        self.read_s += time.perf_counter() - start
        return result

    def _run(self, steps: int) -> None:
        self._nest.Run(steps * STEP_MS)

    def _run_sequentially(self, n_samples: int) -> None:
        self._run(1)  # the step of the presentation is the last of this one
        for sample in range(n_samples):
            self._run(self.period)
            for neurons in self._neurons.values():
                neurons.V_m = 0.0
            self.report(sample + 1)

    def _set_input(self, values: NDArray[np.int32], origin: int) -> None:
        # By column, so that the events of one generator stand together and in order of time.
        neuron, sample = np.nonzero(values.T)
        times = (origin + sample * self.period) * STEP_MS
        ends = np.searchsorted(neuron, np.arange(1, values.shape[1]))
        parameters = [{"spike_times": t} for t in np.split(times, ends)]
        if self.network.input.is_graded:
            weights = np.split(values[sample, neuron].astype(np.float64), ends)
            for entry, weight in zip(parameters, weights, strict=True):
                entry["spike_weights"] = weight
        self._input.set(parameters)
        if self._bias is not None:
            each = origin + np.arange(len(values)) * self.period
            self._bias.set([{"spike_times": (each + d) * STEP_MS} for d in range(len(self._bias))])


def _first_id(nodes: Any) -> int:
    return int(nodes[0].global_id)
