"""Backend ``nest``: PyNEST, whole arrays at a time, `iaf_psc_delta` neurons, 1 ms resolution.

One step is 1 ms. `iaf_psc_delta` adds arriving spikes after its decay and tests ``>=`` in the same
step, so that a spike with a delay of d ms is in time for the test d steps later.

Pipelined, the membrane time constant is so short that the decay factor underflows to exactly 0; a
constant current then adds exactly the bias in every step. Sequential, it is so long that the factor
is exactly 1: the literal neuron without leak, its bias a spike in its own step, its membrane set to
0 after each sample.

NEST exchanges spikes, and its threads wait for each other, once in the shortest delay. Pipelined,
a layer therefore takes several steps instead of one: samples follow each other in every step all
the same, each sum gets the same spikes, and only a sample's way through the network is longer.
"""

from __future__ import annotations

import math
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
from whetsim.network import Population, SpikingNetwork

__all__ = ["KERNEL", "NestBackend"]

KERNEL = Kernel("NEST")
STEP_MS = 1.0
MEMORYLESS_MS = 0.001
"""exp(-1 ms / this) is 0 in double precision."""
NO_LEAK_MS = 1e20
"""exp(-1 ms / this) is 1 in double precision."""
LAYER_STEPS = 8
"""Steps that a layer takes at most; more make NEST hardly faster."""
WAY_STEPS = 48
"""Steps from input to output that deep networks are kept to; a run begins and ends with so many."""
MAX_THREADS = 256
"""With very many NEST ends the process."""

WORK_OF_A_THREAD = 20_000
"""A thread must have this much to do between two exchanges, counted in neurons and in hundreds of
synapses, to gain more than it costs."""

COMPACT = "static_synapse_hpc"
"""16 bytes with its full double weight, but it counts no more than this many nodes a thread."""
COMPACT_NODES = 65_534
PLAIN = "static_synapse"
"""32 bytes."""
TO_RECORDER = "static_synapse_hom_w_hpc"
"""8 bytes. NEST makes room for 1,024 synapses to devices for each neuron, so it matters."""


class NestBackend(Backend):
    """NEST through its own Python interface."""

    name = "nest"
    capabilities = Capabilities()
    options: ClassVar[Mapping[str, str]] = {
        "threads": "number of threads; by default as many cores as the network keeps busy"
    }

    def versions(self) -> Mapping[str, str]:
        return {"nest-simulator": package_version("nest-simulator", self.name, "nest")}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> NestSimulation:
        threads = options.get("threads")
        if threads is None:
            threads = _threads_for(network, schedule)
        whole = isinstance(threads, int) and not isinstance(threads, bool)
        if not whole or not 1 <= threads <= MAX_THREADS:
            raise UnsupportedError(
                f"nest: threads must be a whole number in 1..{MAX_THREADS} (got {threads!r})."
            )
        return NestSimulation(network, schedule, threads)


def _layer_steps(network: SpikingNetwork, schedule: Schedule) -> int:
    """Return how many steps a layer takes, which is what NEST does between two exchanges."""
    if schedule == "sequential":
        return 1
    return max(1, min(LAYER_STEPS, WAY_STEPS // max(1, network.depth)))


def _threads_for(network: SpikingNetwork, schedule: Schedule) -> int:
    """Return how many threads have enough to do between two waits for each other."""
    work = _layer_steps(network, schedule) * (network.n_neurons + network.n_synapses // 100)
    return max(1, min(n_threads(), work // WORK_OF_A_THREAD, MAX_THREADS))


class NestSimulation(ClockedSimulation):
    """A network in the NEST kernel."""

    def __init__(self, network: SpikingNetwork, schedule: Schedule, threads: int) -> None:
        super().__init__(network, schedule)
        self._nest = nest = need("nest", "nest", "nest")
        _check_one_process(nest)
        KERNEL.claim(self)
        with quiet():
            nest.verbosity = nest.VerbosityLevel.ERROR
            nest.ResetKernel()
        nest.resolution = STEP_MS
        nest.local_num_threads = threads
        nest.keep_source_table = False
        self._layer_steps = _layer_steps(network, schedule)
        # Recorders come first: compact synapses reach no nodes with high numbers.
        self._recorders = {
            p.name: nest.Create("spike_recorder", params={"time_in_steps": True})
            for p in network.populations
        }
        self._bias = nest.Create("spike_generator", max(1, network.depth))
        self._input = nest.Create("spike_generator", max(1, network.input.size))
        n_devices = len(self._input) + len(self._bias) + len(self._recorders)
        compact = n_devices + -(-network.n_neurons // threads) <= COMPACT_NODES
        self._synapse = COMPACT if compact else PLAIN
        self._set_defaults()
        self._neurons = {p.name: nest.Create("iaf_psc_delta", p.size) for p in network.populations}
        for name, neurons in self._neurons.items():
            how = {"synapse_model": TO_RECORDER}
            nest.Connect(neurons, self._recorders[name], "all_to_all", how)
        self._connect_all()
        self._has_events = False

    def _set_defaults(self) -> None:
        # Much quicker than setting neurons one by one.
        memoryless = self.schedule == "pipelined"
        parameters = {
            "tau_m": MEMORYLESS_MS if memoryless else NO_LEAK_MS,
            # C_m = tau_m makes the resistance 1, so a current of I_e adds I_e to v.
            "C_m": MEMORYLESS_MS if memoryless else 1.0,
            "E_L": 0.0,
            "V_reset": 0.0,
            "V_th": 0.5,
            "V_m": 0.0,
            "t_ref": 0.0,
        }
        self._nest.SetDefaults("iaf_psc_delta", parameters)
        for model in (COMPACT, PLAIN, TO_RECORDER):
            self._nest.SetDefaults(model, {"delay": self._layer_steps * STEP_MS})

    def _connect_all(self) -> None:
        network = self.network
        first = {name: _first_id(neurons) for name, neurons in self._neurons.items()}
        first[network.input.name] = _first_id(self._input)
        for p in network.projections:
            for source, target, weight in real_synapses(network, p):
                self._connect(source + first[p.source], target + first[p.target], weight, p.delay)
        for population in network.populations:
            bias = population.real_bias
            if self.schedule == "pipelined":
                currents = [{"I_e": value} for value in bias.tolist()]
                self._set(self._neurons[population.name], currents)
            else:
                target = np.nonzero(bias)[0]
                source = np.full(len(target), _first_id(self._bias) + population.depth - 1)
                self._connect(source, target + first[population.name], bias[target], 1)

    def _connect(self, source: Any, target: Any, weight: Any, delay: int) -> None:
        if not len(source):
            return
        how = {"synapse_model": self._synapse, "weight": weight}
        if delay > 1:
            how["delay"] = np.full(len(source), delay * self._layer_steps * STEP_MS)
        self._nest.Connect(source, target, "one_to_one", how)

    def _set(self, nodes: Any, parameters: list[dict[str, Any]]) -> None:
        # NodeCollection.set asks each node first whether it is local, which takes ten times as
        # long as setting it.
        if len(nodes):
            self._nest.ll_api.nestkernel.llapi_set_nc_status(nodes._datum, parameters)

    def check_kernel(self) -> None:
        KERNEL.check(self)

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        nest = self._nest
        # Spike times must lie ahead, so step 0 of this block is the next one.
        origin = round(nest.biological_time / STEP_MS) + 1
        self._set_recorders(len(values), origin)
        self._set_input(values, origin)
        with nest.RunManager():
            if self.schedule == "pipelined":
                self._run_pipelined(len(values))
            else:
                self._run_sequentially(len(values))
        start = time.perf_counter()
        result = {}
        for population in self.network.populations:
            events = self._recorders[population.name].events
            step = np.asarray(events["times"], dtype=np.int64) - origin - self._late(population)
            first = _first_id(self._neurons[population.name])
            neuron = np.asarray(events["senders"], dtype=np.int64) - first
            result[population.name] = Events(step, neuron)
        self.read_s += time.perf_counter() - start
        return result

    def _late(self, population: Population) -> int:
        """Return by how many steps the way to `population` is longer than one step a layer."""
        return (self._layer_steps - 1) * population.depth

    def _set_recorders(self, n_samples: int, origin: int) -> None:
        # Neurons that fire without input do so before the first and after the last sample, too.
        last = (n_samples - 1) * self.period
        for population in self.network.populations:
            first = origin + population.depth + self._late(population)
            when = {"start": (first - 1) * STEP_MS, "stop": (first + last) * STEP_MS}
            # Forgetting takes longer than reading, so a run of one block does without.
            forget = {"n_events": 0} if self._has_events else {}
            self._set(self._recorders[population.name], [when | forget])
        self._has_events = True

    def _run(self, steps: int) -> None:
        self._nest.Run(steps * STEP_MS)

    def _run_pipelined(self, n_samples: int) -> None:
        each = self._layer_steps
        way = each * self.network.depth + 1  # the step of the presentation is the last of this one
        advance(
            math.ceil((n_samples + way) / each),
            lambda n: self._run(n * each),
            lambda done: self.report(max(0, min(done * each - way, n_samples))),
        )

    def _run_sequentially(self, n_samples: int) -> None:
        self._run(1)  # the step of the presentation is the last of this one
        for sample in range(n_samples):
            self._run(self.period)
            for neurons in self._neurons.values():
                self._set(neurons, [{"V_m": 0.0}])
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
        self._set(self._input, parameters)
        if self.schedule == "sequential":
            each = origin + np.arange(len(values)) * self.period
            depths = range(len(self._bias))
            self._set(self._bias, [{"spike_times": (each + d) * STEP_MS} for d in depths])


def _check_one_process(nest: Any) -> None:
    if nest.num_processes > 1:
        raise UnsupportedError(
            f"nest: NEST runs in {nest.num_processes} MPI processes, which cannot connect arrays "
            "and see no more than their own spikes (need 1). Start it without mpirun; more cores: "
            "option threads; more machines: --shards with --scheduler."
        )


def _first_id(nodes: Any) -> int:
    return int(nodes[0].global_id)
