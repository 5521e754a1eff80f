"""Backends ``pynn.nest`` and ``pynn.brian2``: one PyNN script, one small adapter per simulator.

Populations and projections are PyNN's own (`IF_curr_delta` cells, `SpikeSourceArray` sources,
signed into excitatory and inhibitory projections), and a PyNN user can go on with them. Only three
things go past PyNN's portable interface, because it handles them one object at a time: connecting
whole arrays, reading spikes, setting membranes. Those, and a simulator's order of events within a
step, are what an adapter is.

One step is 1 ms. Biases are spikes of a source that fires in each neuron's own step. Thresholds
are half a grid step low, a value that no sum takes, so that ``>`` and ``>=`` decide alike and a
little rounding does no harm.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Backend, Capabilities, ClockedSimulation, Events, Schedule, Simulation
from whetsim.backends import nest as native_nest
from whetsim.backends.quiet import quiet, without_noise
from whetsim.backends.support import Kernel, advance, need, package_version, real_synapses
from whetsim.network import SpikingNetwork

__all__ = ["PyNNBrian2Backend", "PyNNNestBackend"]

STEP_MS = 1.0
NO_LEAK_MS = 1e20
LEAD_STEPS = 4
"""Steps between building (or the last block) and the first sample; PyNN wants times ahead."""

Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


class Adapter(ABC):
    """What differs between simulators below PyNN."""

    module: ClassVar[str]
    extra: ClassVar[str]
    timestep_ms: ClassVar[float]
    setup: ClassVar[Mapping[str, Any]] = {}
    kernel: ClassVar[Kernel]
    memoryless_ms: ClassVar[float]
    """Membrane time constant with which nothing is left of v a step later."""
    gain: ClassVar[float] = 1.0
    """Weights are this much larger when pipelined, to make up for a decay before the test."""
    delay_offset_ms: ClassVar[float] = 0.0
    """What a delay lacks of whole steps because of the order of events in a time step."""

    def __init__(self) -> None:
        self.sim = self.start()

    @abstractmethod
    def start(self) -> Any:
        """Import the PyNN module."""

    def stop(self) -> None:  # noqa: B027
        """Put back what `start` changed for everybody in the process."""

    @abstractmethod
    def connector(self, arrays: Arrays, delay_ms: float) -> Any:
        """Return a PyNN connector that makes synapses ``source, target, weight`` all at once."""

    def set_times(self, source: Any, times: Sequence[NDArray[Any]]) -> None:
        """Give each cell of a source the times in ms at which it spikes."""
        from pyNN.parameters import Sequence as Times

        source.set(spike_times=np.array([Times(t) for t in times], dtype=object))

    @abstractmethod
    def clear_membrane(self, population: Any) -> None:
        """Set v of all cells to 0, now."""

    def advance_clearing(
        self, n_periods: int, period: int, populations: list[Any], done: Callable[[int], None]
    ) -> None:
        """Simulate the lead and periods of `period` steps, membranes set to 0 at each start."""
        self.advance(LEAD_STEPS, lambda steps: None)
        for i in range(n_periods):
            for population in populations:
                self.clear_membrane(population)
            self.advance(period, lambda steps: None)
            done(i + 1)

    @abstractmethod
    def take_spikes(self, population: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return times in ms and indices of all spikes so far, and forget them."""

    @abstractmethod
    def advance(self, n_steps: int, done: Callable[[int], None]) -> None:
        """Simulate `n_steps` steps and call `done` with the steps so far now and then."""


class NestAdapter(Adapter):
    """NEST: a spike is added after the decay and tested in the same step."""

    module = "pyNN.nest"
    extra = "nest,pynn"
    timestep_ms = STEP_MS
    # Otherwise PyNN builds iaf_psc_delta_ps, which refuses a refractory period of 0.
    setup: ClassVar[Mapping[str, Any]] = {"spike_precision": "on_grid"}
    kernel = native_nest.KERNEL
    memoryless_ms = native_nest.MEMORYLESS_MS

    def start(self) -> Any:
        self._nest = need("nest", "pynn.nest", "nest")
        return need(self.module, "pynn.nest", self.extra)

    def connector(self, arrays: Arrays, delay_ms: float) -> Any:
        return _connector(partial(self._connect, arrays=arrays, delay_ms=delay_ms))

    def _connect(self, projection: Any, arrays: Arrays, delay_ms: float) -> None:
        source, target, weight = arrays
        first_source = projection.pre.node_collection[0].global_id
        first_target = projection.post.node_collection[0].global_id
        how = {
            "synapse_model": projection.nest_synapse_model,
            "synapse_label": projection.nest_synapse_label,
            "weight": weight,
            "delay": np.full(len(weight), delay_ms),
        }
        self._nest.Connect(source + first_source, target + first_target, "one_to_one", how)
        # So that projection.get() and len(projection) know of them.
        projection._sources.update((np.unique(source) + first_source).tolist())
        projection._simulator.state.stale_connection_cache = True

    def clear_membrane(self, population: Any) -> None:
        population.node_collection.V_m = 0.0

    def take_spikes(self, population: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        device = population.recorder._spike_detector.device
        events = device.events
        times, ids = np.array(events["times"]), np.array(events["senders"])
        device.n_events = 0
        return times, ids - population.node_collection[0].global_id

    def advance(self, n_steps: int, done: Callable[[int], None]) -> None:
        advance(n_steps, lambda steps: self.sim.run(steps * STEP_MS), done)


class Brian2Adapter(Adapter):
    """Brian2: a step is decay, threshold, synapses, reset.

    What arrives in one tick is tested in the next, and a reset wipes what arrived in its own tick.
    With two ticks a step, spikes arrive half way between two tests. Pipelined, the decay before the
    test is e^-36 and weights are e^36 times as large; a tick later less than one part in 2^51 of
    the sum is left.
    """

    module = "pyNN.brian2"
    extra = "brian2,pynn"
    timestep_ms = STEP_MS / 2
    kernel = Kernel("PyNN's Brian2")
    memoryless_ms = STEP_MS / 2 / 36
    gain = math.exp(36)
    delay_offset_ms = -STEP_MS / 2

    def start(self) -> Any:
        self._b2 = b2 = need("brian2", "pynn.brian2", "brian2")
        b2.BrianLogger.suppress_hierarchy("brian2.stateupdaters.base.method_choice")
        self._before = (b2.defaultclock.dt, b2.prefs.codegen.target)
        b2.prefs.core.stop_on_keyboard_interrupt = False
        b2.set_device("runtime")
        # Spike sources take Brian2's default clock, whatever PyNN was set up with.
        b2.defaultclock.dt = self.timestep_ms * b2.ms
        # PyNN numbers its objects, so compiled code would hardly ever come from the cache.
        b2.prefs.codegen.target = "numpy"
        return need(self.module, "pynn.brian2", self.extra)

    def stop(self) -> None:
        self._b2.defaultclock.dt, self._b2.prefs.codegen.target = self._before

    def connector(self, arrays: Arrays, delay_ms: float) -> Any:
        return _connector(partial(self._connect, arrays=arrays, delay_ms=delay_ms))

    def _connect(self, projection: Any, arrays: Arrays, delay_ms: float) -> None:
        source, target, weight = arrays
        synapses = projection._brian2_synapses[0][0]
        start = len(synapses)
        synapses.connect(i=source, j=target)
        weights = synapses.variables["weight"].get_value()
        weights[start:] = weight * 1e-3  # mV in SI units
        delays = synapses.pre.variables["delay"].get_value()
        delays[start:] = delay_ms * 1e-3
        projection._n_connections += len(weight)

    def clear_membrane(self, population: Any) -> None:
        population.brian2_group.variables["v"].get_value()[:] = 0.0

    def take_spikes(self, population: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        monitor = population.recorder._devices["spikes"]
        times, index = np.array(monitor.t_) * 1e3, np.array(monitor.i)
        monitor.resize(0)
        # Its count stays otherwise, and the arrays grow back to it.
        monitor.variables["N"].set_value(0)
        return times, index

    def advance(self, n_steps: int, done: Callable[[int], None]) -> None:
        # In one go: each call takes a good part of a second to get going.
        self.sim.run(n_steps * STEP_MS)
        done(n_steps)

    def advance_clearing(
        self, n_periods: int, period: int, populations: list[Any], done: Callable[[int], None]
    ) -> None:
        state = self.sim.simulator.state
        per_step = round(STEP_MS / self.timestep_ms)
        ticks = period * per_step
        tick = -LEAD_STEPS * per_step

        def clear() -> None:
            nonlocal tick
            if tick >= 0 and tick % ticks == 0:
                for population in populations:
                    self.clear_membrane(population)
                done(tick // ticks)
            tick += 1

        operation = self._b2.NetworkOperation(clear, clock=state.network.clock, when="start")
        state.network.add(operation)
        self.advance(LEAD_STEPS + n_periods * period, lambda steps: done(n_periods))
        state.network.remove(operation)


class _PyNNBackend(Backend):
    adapter: ClassVar[type[Adapter]]
    packages: ClassVar[tuple[str, ...]]

    def versions(self) -> Mapping[str, str]:
        extra = self.adapter.extra
        return {p: package_version(p, self.name, extra) for p in self.packages}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        with quiet():
            return PyNNSimulation(network, schedule, self.adapter)


class PyNNNestBackend(_PyNNBackend):
    """NEST through PyNN."""

    name = "pynn.nest"
    capabilities = Capabilities(encodings=("bitplane", "binary"))
    adapter = NestAdapter
    packages = ("PyNN", "nest-simulator")


class PyNNBrian2Backend(_PyNNBackend):
    """Brian2 through PyNN; it computes in volts, so sums are rounded a little."""

    name = "pynn.brian2"
    capabilities = Capabilities(encodings=("bitplane", "binary"), rounds=True)
    adapter = Brian2Adapter
    packages = ("PyNN", "brian2")


class PyNNSimulation(ClockedSimulation):
    """The portable script.

    Attributes
    ----------
    sim : module
        The PyNN module of the simulator.
    populations : dict
        Name to PyNN population, ``"input"`` among them.
    projections : list
        PyNN projections, one for each sign of weights.
    """

    def __init__(self, network: SpikingNetwork, schedule: Schedule, adapter: type[Adapter]) -> None:
        super().__init__(network, schedule)
        self._adapter = adapter()
        self.sim = sim = self._adapter.sim
        adapter.kernel.claim(self)
        longest = max((p.delay for p in network.projections), default=1)
        sim.setup(
            timestep=adapter.timestep_ms,
            min_delay=adapter.timestep_ms,
            max_delay=longest * STEP_MS,
            **adapter.setup,
        )
        pipelined = schedule == "pipelined"
        tau = adapter.memoryless_ms if pipelined else NO_LEAK_MS
        self._gain = adapter.gain if pipelined else 1.0
        # A source of a single cell does not work on Brian2.
        self.populations = {network.input.name: self._source(max(2, network.input.size), "input")}
        for population in network.populations:
            cell = sim.IF_curr_delta(
                v_rest=0.0,
                v_reset=0.0,
                v_thresh=0.5 - population.half_grid_step,
                tau_m=tau,
                cm=1.0,
                tau_refrac=0.0,
                i_offset=0.0,
            )
            cells = sim.Population(population.size, cell, label=population.name)
            # PyNN's own initialize() does nothing on NEST, and says so for every population.
            self._adapter.clear_membrane(cells)
            cells.record("spikes")
            self.populations[population.name] = cells
        self.projections: list[Any] = []
        for p in network.projections:
            pre, post = self.populations[p.source], self.populations[p.target]
            for arrays in real_synapses(network, p):
                self._project(pre, post, arrays, p.delay)
        self._bias = self._source(max(2, network.depth), "bias")
        for population in network.populations:
            target = np.nonzero(population.bias)[0]
            source = np.full(len(target), population.depth - 1)
            arrays = (source, target, population.real_bias[target])
            self._project(self._bias, self.populations[population.name], arrays, 1)

    def _source(self, size: int, label: str) -> Any:
        return self.sim.Population(size, self.sim.SpikeSourceArray(spike_times=[]), label=label)

    def _project(self, pre: Any, post: Any, arrays: Arrays, delay: int) -> None:
        source, target, weight = arrays
        delay_ms = delay * STEP_MS + self._adapter.delay_offset_ms
        for receptor, mine in (("excitatory", weight > 0), ("inhibitory", weight < 0)):
            if mine.any():
                part = (source[mine], target[mine], weight[mine] * self._gain)
                connector = self._adapter.connector(part, delay_ms)
                self.projections.append(
                    self.sim.Projection(pre, post, connector, receptor_type=receptor)
                )

    def check_kernel(self) -> None:
        self._adapter.kernel.check(self)

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        adapter = self._adapter
        # The simulator's own time: a PyNN user may have gone on with it since the last run.
        now_ms = math.ceil(self.sim.get_current_time() / STEP_MS) * STEP_MS
        origin_ms = now_ms + LEAD_STEPS * STEP_MS
        with without_noise():
            self._set_input(values, origin_ms)
            if self.schedule == "pipelined":
                n_steps = LEAD_STEPS + self.n_steps(len(values)) + 2
                adapter.advance(n_steps, lambda done: self.report(min(done, len(values))))
            else:
                self._run_sequentially(len(values))
        start = time.perf_counter()
        result = {}
        for population in self.network.populations:
            times, neuron = adapter.take_spikes(self.populations[population.name])
            step = np.rint((times - origin_ms) / STEP_MS).astype(np.int64)
            result[population.name] = Events(step, np.asarray(neuron, dtype=np.int64))
        self.read_s += time.perf_counter() - start
        return result

    def _run_sequentially(self, n_samples: int) -> None:
        cells = [self.populations[p.name] for p in self.network.populations]
        self._adapter.advance_clearing(n_samples, self.period, cells, self.report)

    def _set_input(self, values: NDArray[np.int32], origin_ms: float) -> None:
        neuron, sample = np.nonzero(values.T)
        times = origin_ms + sample * self.period * STEP_MS
        source = self.populations[self.network.input.name]
        ends = np.searchsorted(neuron, np.arange(1, source.size))
        self._adapter.set_times(source, np.split(times, ends))
        first = origin_ms + np.arange(len(values)) * self.period * STEP_MS
        self._adapter.set_times(self._bias, [first + d * STEP_MS for d in range(self._bias.size)])

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._adapter.stop()
            self.populations.clear()
            self.projections.clear()


def _connector(connect: Callable[[Any], None]) -> Any:
    """Return a PyNN connector that hands its projection to a function, not one cell at a time."""
    from pyNN.connectors import Connector

    class ArrayConnector(Connector):  # type: ignore[misc]
        parameter_names = ()

        def connect(self, projection: Any) -> None:
            connect(projection)

    return ArrayConnector()
