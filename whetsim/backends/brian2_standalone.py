"""Brian2 as a program of its own, which is compiled once.

All that a network is comes from files when the program starts: sizes of its groups are rounded up
to powers of two, so that few programs run all networks. They are kept in the user's cache folder.
Each block of samples is one call of the program, which reads the values of the input neurons step
after step until their file ends, and writes which neurons fired.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whetsim.backend import Events, Schedule
from whetsim.backends.brian2_objects import Brian2Simulation, Fired
from whetsim.backends.quiet import quiet
from whetsim.errors import WhetsimError
from whetsim.network import SpikingNetwork

__all__ = ["StandaloneSimulation"]

STEPS_AT_ONCE = 256
"""Whose input values are written together."""
LEAST_SIZE = 1024
"""Of a group; smaller networks share its program."""

# The program takes the folder of these files for Brian2's folder of results.
LOAD = """
auto load = [](const char* name, void* to, size_t bytes) {
    FILE* file = fopen((brian::results_dir + name).c_str(), "rb");
    if (!file || fread(to, 1, bytes, file) != bytes) {
        std::cerr << "cannot read " << name << std::endl;
        exit(1);
    }
    fclose(file);
};
int64_t period;
load("period", &period, sizeof(period));
load("keep", %(keep)s, sizeof(double));
load("bias", %(bias)s, %(n_neurons)d * sizeof(double));
load("bias", %(v)s, %(n_neurons)d * sizeof(double));
"""
LOAD_SYNAPSES = """
{
    int64_t size[2];
    load("%(name)s_size", size, sizeof(size));
    %(source)s.resize(size[0]);
    %(target)s.resize(size[0]);
    %(w)s.resize(size[0]);
    %(delay)s.resize(size[1]);
    load("%(name)s_source", %(source)s.data(), size[0] * sizeof(int32_t));
    load("%(name)s_target", %(target)s.data(), size[0] * sizeof(int32_t));
    load("%(name)s_weight", %(w)s.data(), size[0] * sizeof(double));
    load("%(name)s_delay", %(delay)s.data(), size[1] * sizeof(double));
}
"""
# Brian2's own loop over steps runs for one step at a time, always from time 0.
BEFORE_STEP = """
FILE* values = fopen((brian::results_dir + "values").c_str(), "rb");
FILE* spikes = fopen((brian::results_dir + "spikes").c_str(), "wb");
if (!values || !spikes) exit(1);
for (int64_t step = 0; fread(%(x)s, sizeof(double), %(n_inputs)d, values) == %(n_inputs)d; step++) {
if (period && step %% period == 0) std::fill(%(v)s, %(v)s + %(n_neurons)d, 0.0);
whetsim_network.t = 0.0;
"""
AFTER_STEP = """
const int32_t n_spikes = %(spikes)s[%(n_neurons)d];
fwrite(&n_spikes, sizeof(int32_t), 1, spikes);
fwrite(%(spikes)s, sizeof(int32_t), n_spikes, spikes);
}
fclose(values);
if (fclose(spikes)) exit(1);
"""


class StandaloneSimulation(Brian2Simulation):
    """Compiled into a program: less time in a step, but more to begin with."""

    block_values = 2**26
    """Each block loads all synapses again."""

    def __init__(self, b2: Any, network: SpikingNetwork, schedule: Schedule, threads: int) -> None:
        super().__init__(b2, network, schedule)
        self._sizes = [
            max(LEAST_SIZE, 1 << (n - 1).bit_length()) for n in (self._n_inputs, self._n_neurons)
        ]
        self._folder = tempfile.TemporaryDirectory(prefix="whetsim_brian2_")
        self._data = Path(self._folder.name) / "data"
        self._data.mkdir()
        try:
            self._write_network()
            self._program = self._compiled(threads)
        except BaseException:
            self._folder.cleanup()
            raise

    def _write_network(self) -> None:
        period = self.period if self.schedule == "sequential" else 0
        np.array([period], dtype=np.int64).tofile(self._data / "period")
        np.array([self._keep]).tofile(self._data / "keep")
        bias = np.zeros(self._sizes[1])
        bias[: self._n_neurons] = self._bias()
        bias.tofile(self._data / "bias")
        for name, from_input in (("from_input", True), ("between", False)):
            flat = self._flat(from_input)
            delays = flat.delays * 1e-3
            delays.tofile(self._data / f"{name}_delay")
            np.array([len(flat), len(delays)], np.int64).tofile(self._data / f"{name}_size")
            flat.fill(
                self._array(f"{name}_source", np.int32, len(flat)),
                self._array(f"{name}_target", np.int32, len(flat)),
                self._array(f"{name}_weight", np.float64, len(flat)),
            )

    def _array(self, name: str, dtype: Any, n: int) -> NDArray[Any]:
        """Return an array that is a file."""
        if not n:
            (self._data / name).touch()
            return np.zeros(0, dtype)
        return np.memmap(self._data / name, dtype, "w+", shape=(n,))

    def _compiled(self, threads: int) -> Path:
        """Return the program, compiled if this machine has not done so before."""
        b2, sources = self._b2, Path(self._folder.name) / "program"
        previous = b2.prefs.devices.cpp_standalone.openmp_threads
        b2.set_device("cpp_standalone", directory=str(sources), build_on_run=False)
        try:
            b2.device.reinit()
            b2.device.activate(directory=str(sources), build_on_run=False)
            b2.prefs.devices.cpp_standalone.openmp_threads = threads if threads > 1 else 0
            with quiet():
                self._write_sources(sources)
            make = b2.prefs.devices.cpp_standalone.make_cmd_unix
        finally:
            b2.prefs.devices.cpp_standalone.openmp_threads = previous
            b2.device.reinit()
            b2.set_device("runtime")
        kept = _cache_folder() / _fingerprint(sources)
        if kept.exists():
            return kept
        _call([make, "-j"], sources)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(f".{os.getpid()}")
            shutil.copy2(sources / "main", unfinished)
            # Others that compile the same see all of it or nothing.
            unfinished.replace(kept)
        except OSError:
            return sources / "main"
        return kept

    def _write_sources(self, folder: Path) -> None:
        b2, device = self._b2, self._b2.device
        n_inputs, n_neurons = self._sizes
        clock = b2.Clock(dt=1 * b2.ms, name="whetsim_clock")
        source, neurons = self._groups(clock, n_inputs, n_neurons)
        arrays = {
            key: device.get_array_name(group.variables[variable])
            for key, group, variable in (
                ("x", source, "x"),
                ("v", neurons, "v"),
                ("bias", neurons, "bias"),
                ("keep", neurons, "keep"),
                ("spikes", neurons, "_spikespace"),
            )
        }
        names = arrays | {"n_inputs": n_inputs, "n_neurons": n_neurons}
        device.insert_code("main", LOAD % names)
        objects = [source, neurons]
        for name, group in (("from_input", source), ("between", neurons)):
            synapses = self._synapses(group, neurons, None)
            synapses._connect_called = True
            vectors = {
                key: device.get_array_name(variables[variable], access_data=False)
                for key, variables, variable in (
                    ("source", synapses.variables, "_synaptic_pre"),
                    ("target", synapses.variables, "_synaptic_post"),
                    ("w", synapses.variables, "w"),
                    ("delay", synapses.pre.variables, "delay"),
                )
            }
            device.insert_code("main", LOAD_SYNAPSES % (vectors | {"name": name}))
            objects.append(synapses)
        device.insert_code("before_network_run", BEFORE_STEP % names)
        device.insert_code("after_network_run", AFTER_STEP % names)
        # Without writing all arrays, which nobody reads.
        device.insert_code("before_end", "return 0;")
        b2.Network(*objects, name="whetsim_network").run(1 * b2.ms, namespace={})
        device.build(directory=str(folder), compile=False, run=False)

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        n_steps, rows = self.n_steps(len(values)), np.zeros((STEPS_AT_ONCE, self._sizes[0]))
        with open(self._data / "values", "wb") as file:
            for first in range(0, n_steps, STEPS_AT_ONCE):
                some = rows[: n_steps - first]
                for k, x in enumerate(some):
                    self._present(first + k, values, x)
                some.tofile(file)
        _call([str(self._program), "--results_dir", f"{self._data}{os.sep}"], self._data)
        start = time.perf_counter()
        found = np.fromfile(self._data / "spikes", dtype=np.int32)
        result = self._by_population(_steps_and_neurons(found))
        self.read_s += time.perf_counter() - start
        return result

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _steps_and_neurons(found: NDArray[np.int32]) -> Fired:
    """Take apart, for each step, a number of spikes and as many neurons."""
    result: Fired = []
    position = 0
    while position < len(found):
        first, position = position + 1, position + 1 + int(found[position])
        result.append((len(result), found[first:position]))
    return result


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "whetsim/brian2")


def _fingerprint(sources: Path) -> str:
    """Return a hash of all sources and of the machine they are compiled for."""
    texts = [f"{platform.node()} {platform.machine()}"]
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        texts.append(f"{path.relative_to(sources)}\n{path.read_text()}")
    # Brian2 numbers what it generates by what else is in the process.
    plain = re.sub(r"(_codeobject)_\d+", r"\1", "\n".join(texts))
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def _call(command: Sequence[str], folder: Path) -> None:
    """Run a program; it ends with this process's Ctrl-C."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        if not code:
            return
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    reason = next((line for line in lines if "error" in line), (lines or ["no reason given"])[-1])
    raise WhetsimError(
        f"brian2: '{Path(command[0]).name}' failed with status {code} ({reason.strip()}). It "
        "needs a C++ compiler, make, and disk space for temporary files; targets 'cython' and "
        "'numpy' do not."
    )
