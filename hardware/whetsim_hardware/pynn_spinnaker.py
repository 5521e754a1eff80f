"""Backend ``pynn.spinnaker``: the portable PyNN script on a SpiNNaker machine, or on none.

With a board (a ``.spynnaker.cfg`` of the user's own) it runs. Without one, the virtual board runs
the real tool chain (partition, place, route, data generation) up to loading: `accept` says what it
made of the network, and asking for spikes is refused, since there are none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.backend import Backend, Capabilities, Events, Schedule, Simulation
from whetsim.backends.pynn import STEP_MS, Adapter, Arrays, PyNNSimulation
from whetsim.backends.quiet import quiet
from whetsim.backends.support import Kernel, need, package_version
from whetsim.coding import encode_samples, to_integers
from whetsim.errors import UnsupportedError
from whetsim.network import SpikingNetwork
from whetsim_hardware.place import place

__all__ = ["Acceptance", "PyNNSpinnakerBackend", "SpinnakerSimulation"]

NAME = "pynn.spinnaker"
BOARD_VERSION = 5
"""A board of 48 chips."""


@dataclass(frozen=True)
class Acceptance:
    """What SpiNNaker's tool chain made of a network.

    Parameters
    ----------
    cores : mapping of str to int
        Application cores of each population and source (``"input"``, ``"bias"``).
    chips : int
        Chips on which they are.
    routing_entries : int
        Entries in all routing tables, before compression.
    largest_table : int
        Entries of the fullest one; a router has 1,023 for applications.
    ring_buffer_shifts : mapping of str to tuple of int
        For each population the left shift of its excitatory and inhibitory weights.
    placed : mapping of str to int
        Cores of each population in this package's own placement, to be compared.
    is_virtual : bool
        Whether no board was there.
    """

    cores: Mapping[str, int]
    chips: int
    routing_entries: int
    largest_table: int
    ring_buffer_shifts: Mapping[str, tuple[int, ...]]
    placed: Mapping[str, int]
    is_virtual: bool

    @property
    def n_cores(self) -> int:
        """Application cores in all."""
        return sum(self.cores.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "n_cores": self.n_cores}

    def __str__(self) -> str:
        board = "virtual board" if self.is_virtual else "board"
        lines = [
            f"SpiNNaker tool chain ({board}): {self.n_cores} cores on {self.chips} chips, "
            f"{self.routing_entries} routing entries (fullest table {self.largest_table} of 1023)"
        ]
        for name, cores in self.cores.items():
            shifts = self.ring_buffer_shifts.get(name)
            shown = "" if shifts is None else f", ring-buffer shifts {'/'.join(map(str, shifts))}"
            ours = f" ({self.placed[name]} in our placement)" if name in self.placed else ""
            lines.append(f"  {name}: {cores} cores{ours}{shown}")
        return "\n".join(lines)


class SpinnakerAdapter(Adapter):
    """SpiNNaker: input is added after the decay and tested with >= in the same step."""

    module = "pyNN.spiNNaker"
    extra = "spinnaker"
    timestep_ms = STEP_MS
    kernel = Kernel("sPyNNaker")
    memoryless_ms = 0.001
    """exp(-1000) is 0 in the 32 fraction bits of a decay."""

    def start(self) -> Any:
        return need(self.module, NAME, self.extra)

    def connector(self, arrays: Arrays, delay_ms: float) -> Any:
        source, target, weight = arrays
        delay = np.full(len(weight), delay_ms)
        return self.sim.FromListConnector(np.stack([source, target, weight, delay], axis=1))

    def set_times(self, source: Any, times: Sequence[NDArray[Any]]) -> None:
        if not any(len(t) for t in times):
            source.set(spike_times=[])
            return
        source.set(spike_times=[t.tolist() for t in times])
        # sPyNNaker 7.4 keeps a list here, and then indexes it like an array.
        ticks = np.empty(len(times), dtype=object)
        ticks[:] = source._vertex.send_buffer_times
        source._vertex.send_buffer_times = ticks

    def clear_membrane(self, population: Any) -> None:
        population.initialize(v=0.0)

    def take_spikes(self, population: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        found = population.spinnaker_get_data("spikes")
        return found[:, 1].astype(float), found[:, 0].astype(np.int64)

    def advance(self, n_steps: int, done: Callable[[int], None]) -> None:
        # In one go: the machine runs in real time, and every pause loads it again.
        self.sim.run(n_steps * STEP_MS)
        done(n_steps)


class PyNNSpinnakerBackend(Backend):
    """SpiNNaker through PyNN."""

    name = NAME
    # Membranes have 31 bits and a sign. sPyNNaker itself rounds weights to 16 bits, so that a
    # network which was not quantized may decide a neuron differently.
    capabilities = Capabilities(
        encodings=("bitplane", "binary"), schedules=("pipelined",), sum_bits=31, kind="hardware"
    )
    options: ClassVar[Mapping[str, str]] = {
        "board": "'auto' (the one that your .spynnaker.cfg names, else virtual) or 'virtual'"
    }

    def versions(self) -> Mapping[str, str]:
        return {p: package_version(p, self.name, "spinnaker") for p in ("PyNN", "sPyNNaker")}

    def build(self, network: SpikingNetwork, schedule: Schedule, **options: Any) -> Simulation:
        board = options.get("board", "auto")
        if board not in ("auto", "virtual"):
            raise UnsupportedError(f"{NAME}: no board {board!r}; it has: auto, virtual.")
        need("spynnaker", NAME, "spinnaker")
        is_virtual = board == "virtual" or not _user_has_a_board()
        with quiet(), _virtual_board() if is_virtual else quiet():
            return SpinnakerSimulation(network, schedule, is_virtual)


class SpinnakerSimulation(PyNNSimulation):
    """The portable script, and what SpiNNaker's tool chain says of it.

    Attributes
    ----------
    is_virtual : bool
        Whether no board is there, so that it gives no spikes.
    """

    def __init__(self, network: SpikingNetwork, schedule: Schedule, is_virtual: bool) -> None:
        self.is_virtual = is_virtual
        super().__init__(network, schedule, SpinnakerAdapter)

    def events(self, values: NDArray[np.int32]) -> dict[str, Events]:
        if self.is_virtual:
            raise UnsupportedError(
                f"{NAME}: no board is configured, and a virtual one gives no spikes. accept() says "
                "what the tool chain makes of the network; for spikes name a board in "
                "~/.spynnaker.cfg, or use backend 'spinnaker', which emulates the arithmetic."
            )
        with quiet():
            return super().events(values)

    def accept(self, samples: ArrayLike) -> Acceptance:
        """Run the tool chain on the network and samples, and return what it made of them.

        Parameters
        ----------
        samples : integer array (n_samples, ...)
            One sample a millisecond; on a board they are run, too.

        Raises
        ------
        WhetsimError
            If the tool chain refuses the network; the text has its reason.
        """
        self.check_kernel()
        integers = to_integers(samples, self.network.input)
        values = encode_samples(integers, self.network.input)
        with quiet():
            self._set_input(values, STEP_MS)
            self.sim.run((self.n_steps(len(values)) + 1) * STEP_MS)
            return self._acceptance()

    def close(self) -> None:
        if not self._closed:
            with quiet():
                self.sim.end()
        super().close()

    def _acceptance(self) -> Acceptance:
        from spynnaker.pyNN.data.spynnaker_data_view import SpynnakerDataView as View

        named = {id(p._vertex): name for name, p in self.populations.items()}
        named[id(self._bias._vertex)] = "bias"
        cores = dict.fromkeys(named.values(), 0)
        chips = set()
        for placement in View.iterate_placemements():
            name = named.get(id(placement.vertex.app_vertex))
            if name is not None:
                cores[name] += 1
                chips.add((placement.x, placement.y))
        entries = [table.number_of_entries for table in View.get_uncompressed()]
        shifts = {
            p.name: tuple(int(s) for s in self.populations[p.name]._vertex.get_ring_buffer_shifts())
            for p in self.network.populations
        }
        return Acceptance(
            cores,
            len(chips),
            sum(entries),
            max(entries, default=0),
            shifts,
            _placed(self.network),
            self.is_virtual,
        )


def _placed(network: SpikingNetwork) -> dict[str, int]:
    """Return the cores of each population in the placement of this package."""
    placement = place(network, "spinnaker")
    return {p.name: len(placement.cores_of(p.name)) for p in network.populations}


def _user_has_a_board() -> bool:
    from spinn_utilities import config_holder

    return config_holder._user_cfg() is not None


@contextmanager
def _virtual_board() -> Iterator[None]:
    """Let sPyNNaker find a configuration with a virtual board, without touching the user's home.

    It looks in the home folder alone, and writes a file there if it finds none.
    """
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="whetsim_spinnaker_") as folder:
        reports = Path(tempfile.gettempdir()) / "whetsim_spinnaker_reports"
        reports.mkdir(exist_ok=True)
        Path(folder, ".spynnaker.cfg").write_text(
            f"[Machine]\nversion = {BOARD_VERSION}\nvirtual_board = True\n"
            f"[Reports]\ndefault_report_file_path = {reports}\n"
        )
        os.environ.update(dict.fromkeys(names, str(Path(folder, "none"))), HOME=folder)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
