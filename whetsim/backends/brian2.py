"""Backend ``brian2``: the whole network in one neuron group and two sets of synapses.

One step is 1 ms. In a Brian2 step thresholds come before synapses, so a spike that is delivered
without delay is tested in the next step: a projection of d steps has a synaptic delay of d - 1.

Weights, sizes and schedules are data and every object has a fixed name, so that Brian2 generates
the same code for every network: it is compiled once and comes from Brian2's cache from then on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Backend, Capabilities, ClockedSimulation, Events, Schedule, Simulation
from whetsim.backends.quiet import quiet, without_noise
from whetsim.backends.support import need, package_version, real_synapses
from whetsim.errors import UnsupportedError, WhetsimError, did_you_mean
from whetsim.network import SpikingNetwork

__all__ = ["Brian2Backend"]

TARGETS = ("auto", "cython", "numpy", "cpp_standalone")

EQUATIONS = """
v : 1
bias : 1 (constant)
keep : 1 (shared)
"""
# A neuron that fired starts from 0. Pipelined, keep is 0 and every neuron starts from its bias;
# sequential, keep is 1 and the bias arrives as a spike.
RENEW = "v = keep * v * int(v < 0.5) + bias"


class Brian2Backend(Backend):
    """Brian2 through its own interface."""

    name = "brian2"
    capabilities = Capabilities()
    options: ClassVar[Mapping[str, str]] = {
        "target": "'auto', 'cython' (compiled once), 'numpy' (no compiler needed) or "
        "'cpp_standalone' (compiled for this network, again for each block of samples)",
        "threads": "OpenMP threads, with cpp_standalone; 1 by default",
    }

    def versions(self) -> Mapping[str, str]:
        return {"brian2": package_version("brian2", self.name, "brian2")}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        target = options.get("target", "auto")
        if target not in TARGETS:
            raise UnsupportedError(
                f"brian2: no target {target!r}; it has: {', '.join(TARGETS)}."
                f"{did_you_mean(target, TARGETS)}"
            )
        threads = options.get("threads", 1)
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise UnsupportedError(
                f"brian2: threads must be a whole number of at least 1 (got {threads!r})."
            )
        if threads > 1 and target != "cpp_standalone":
            raise UnsupportedError("brian2: threads need target='cpp_standalone'.")
        b2 = need("brian2", "brian2", "brian2")
        # Otherwise Brian2 answers Ctrl-C by ending the run early as if nothing had happened.
        b2.prefs.core.stop_on_keyboard_interrupt = False
        if target == "cpp_standalone":
            return _StandaloneSimulation(b2, network, schedule, threads)
        return _RuntimeSimulation(b2, network, schedule, _resolve(b2, target))


def _resolve(b2: Any, target: str) -> str:
    if target != "auto":
        return target
    from brian2.codegen.runtime.cython_rt import CythonCodeObject

    with quiet():
        return "cython" if CythonCodeObject.is_available() else "numpy"


def _drop_reset(group: Any) -> None:
    """Take the empty reset out: without it Brian2 warns, with it compiles and runs nothing."""
    group.resetter["spike"].active = False


class _Brian2Simulation(ClockedSimulation):
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

    def _source_values(self, values: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the value of every input neuron in every step, ``(n_steps, n_inputs)``."""
        n_steps = self.n_steps(len(values))
        table = np.zeros((n_steps, self._n_inputs))
        first = np.arange(len(values)) * self.period
        for delay, start in self._input_start.items():
            table[first + delay - 1, start : start + values.shape[1]] = values
        for d in range(self._n_bias):
            table[first + d, self._bias_start + d] = 1.0
        return table

    def _input_group(self, clock: Any) -> Any:
        group = self._b2.NeuronGroup(
            self._n_inputs,
            "x : 1",
            threshold="x != 0",
            reset="",
            clock=clock,
            name="whetsim_input",
        )
        _drop_reset(group)
        return group

    def _neurons(self, clock: Any) -> Any:
        group = self._b2.NeuronGroup(
            self._n_neurons,
            EQUATIONS,
            threshold="v >= 0.5",
            reset="",
            clock=clock,
            name="whetsim_neurons",
        )
        group.run_regularly(RENEW, clock=clock, when="after_thresholds", name="whetsim_renew")
        _drop_reset(group)
        return group

    def _set_state(self, neurons: Any) -> None:
        pipelined = self.schedule == "pipelined"
        bias = np.zeros(self._n_neurons)
        if pipelined:
            for population in self.network.populations:
                start = self._offset[population.name]
                bias[start : start + population.size] = population.real_bias
        neurons.variables["bias"].set_value(bias)
        neurons.variables["v"].set_value(bias)
        neurons.variables["keep"].set_value(0.0 if pipelined else 1.0)

    def _synapses(self, source: Any, neurons: Any, clock: Any) -> list[Any]:
        """Return the synapses that start at a group, in a list that is empty if there are none."""
        b2, from_input = self._b2, source is not neurons
        effect = "v_post += w * x_pre" if from_input else "v_post += w"
        name = "whetsim_from_input" if from_input else "whetsim_between"
        synapses = None
        weights: list[NDArray[np.float64]] = []
        delays: list[NDArray[np.float64]] = []
        for i, j, weight, delay in self._blocks(from_input):
            if synapses is None:
                synapses = b2.Synapses(
                    source, neurons, "w : 1 (constant)", on_pre=effect, clock=clock, name=name
                )
            synapses.connect(i=i, j=j)
            weights.append(weight)
            delays.append(np.full(len(weight), float(delay)))
        if synapses is None:
            return []
        synapses.variables["w"].set_value(np.concatenate(weights))
        delay_of_each = np.concatenate(delays)
        if delay_of_each.any():
            synapses.delay = delay_of_each * b2.ms
        return [synapses]

    def _blocks(self, from_input: bool) -> Iterator[tuple[Any, Any, NDArray[np.float64], int]]:
        """Yield ``source, target, weight, synaptic delay in steps`` of the synapses."""
        network = self.network
        for p in network.projections:
            if (p.source == network.input.name) != from_input:
                continue
            start = self._input_start[p.delay] if from_input else self._offset[p.source]
            for source, target, weight in real_synapses(network, p):
                delay = 0 if from_input else p.delay - 1
                yield source + start, target + self._offset[p.target], weight, delay
        if from_input:
            for population in network.populations if self._n_bias else ():
                target = np.nonzero(population.bias)[0]
                if len(target):
                    source = np.full(len(target), self._bias_start + population.depth - 1)
                    weight = population.real_bias[target]
                    yield source, target + self._offset[population.name], weight, 0

    def _by_population(self, step: NDArray[Any], neuron: NDArray[Any]) -> dict[str, Events]:
        result = {}
        for population in self.network.populations:
            start = self._offset[population.name]
            mine = (neuron >= start) & (neuron < start + population.size)
            result[population.name] = Events(
                step[mine].astype(np.int64), neuron[mine].astype(np.int64) - start
            )
        return result


class _RuntimeSimulation(_Brian2Simulation):
    """Step by step under Python's control, with compiled (cython) or numpy code."""

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
        source, neurons = self._input_group(clock), self._neurons(clock)
        self._set_state(neurons)
        objects = [source, neurons]
        for group in (source, neurons):
            objects += self._synapses(group, neurons, clock)
        # Plain functions cost a few microseconds a step; they need no code of their own.
        present = b2.NetworkOperation(self._present, clock=clock, when="start", order=-1)
        note = b2.NetworkOperation(self._note, clock=clock, when="after_thresholds", order=-1)
        self._x = source.variables["x"].get_value()
        self._v = neurons.variables["v"].get_value()
        self._spikes = neurons.variables["_spikespace"].get_value()
        self._table = np.zeros((0, self._n_inputs))
        self._step = 0
        self._fired: list[tuple[int, NDArray[np.int32]]] = []
        self._net = b2.Network(*objects, present, note)

    def _present(self) -> None:
        if self.schedule == "sequential" and self._step % self.period == 0:
            self._v[:] = 0.0
        if self._step < len(self._table):
            self._x[:] = self._table[self._step]
        else:
            self._x[:] = 0.0

    def _note(self) -> None:
        n = self._spikes[-1]
        if n:
            self._fired.append((self._step, self._spikes[:n].copy()))
        self._step += 1
        if self._step % 256 == 0:
            self.report(min(self._step // self.period, len(self._table) // self.period))

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        b2 = self._b2
        self._table = self._source_values(values)
        self._step, self._fired = 0, []
        previous = b2.prefs.codegen.target
        b2.prefs.codegen.target = self._target
        try:
            with without_noise():
                # In one go: each call of run() takes a good part of a second to get going.
                self._net.run(len(self._table) * b2.ms, namespace={})
        finally:
            b2.prefs.codegen.target = previous
        start = time.perf_counter()
        counts = [len(neurons) for _, neurons in self._fired]
        step = np.repeat(np.array([s for s, _ in self._fired], dtype=np.int64), counts)
        neuron = (
            np.concatenate([n for _, n in self._fired]) if counts else np.zeros(0, dtype=np.int32)
        )
        result = self._by_population(step, neuron)
        self.read_s += time.perf_counter() - start
        return result


class _StandaloneSimulation(_Brian2Simulation):
    """Compiled into a program of its own, for this network; worth it for long runs."""

    block_values = 2**25

    def __init__(self, b2: Any, network: SpikingNetwork, schedule: Schedule, threads: int) -> None:
        super().__init__(b2, network, schedule)
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="whetsim_brian2_")
        self._built_steps = 0

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        b2 = self._b2
        table = self._source_values(values)
        n_steps = len(table)
        b2.set_device("cpp_standalone", directory=self._folder.name, build_on_run=False)
        try:
            b2.device.reinit()
            b2.device.activate(directory=self._folder.name, build_on_run=False)
            b2.prefs.devices.cpp_standalone.openmp_threads = (
                self._threads if self._threads > 1 else 0
            )
            with quiet():
                monitor = self._simulate(table, n_steps)
            start = time.perf_counter()
            step = np.rint(np.asarray(monitor.t / b2.ms)).astype(np.int64)
            result = self._by_population(step, np.asarray(monitor.i))
            self.read_s += time.perf_counter() - start
            return result
        finally:
            b2.device.reinit()
            b2.set_device("runtime")

    def _simulate(self, table: NDArray[np.float64], n_steps: int) -> Any:
        b2 = self._b2
        clock = b2.Clock(dt=1 * b2.ms, name="whetsim_clock")
        samples = b2.TimedArray(table, dt=1 * b2.ms, name="whetsim_samples")
        source = self._input_group(clock)
        source.run_regularly("x = whetsim_samples(t, i)", clock=clock, when="start")
        neurons = self._neurons(clock)
        self._set_state(neurons)
        objects = [source, neurons]
        if self.schedule == "sequential":
            neurons.run_regularly("v = 0", dt=self.period * b2.ms, when="start")
        for group in (source, neurons):
            objects += self._synapses(group, neurons, clock)
        monitor = b2.SpikeMonitor(neurons, name="whetsim_monitor")
        net = b2.Network(*objects, monitor)
        net.run(n_steps * b2.ms, namespace={"whetsim_samples": samples})
        b2.device.build(directory=self._folder.name, compile=False, run=False)
        self._compile(b2.prefs.devices.cpp_standalone.make_cmd_unix)
        b2.device.run(self._folder.name, with_output=False)
        return monitor

    def _compile(self, make: str) -> None:
        """Run make; Brian2 itself would wait for it deaf to Ctrl-C."""
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [make, "-j"],
                cwd=self._folder.name,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            if code:
                log.seek(0)
                lines = log.read().decode(errors="replace").splitlines()
                reason = next((line for line in lines if "error" in line), "no reason given")
                raise WhetsimError(
                    f"brian2: compiling the network failed ({reason.strip()}). Install a C++ "
                    "compiler and make, or use target='cython' or 'numpy'."
                )

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
