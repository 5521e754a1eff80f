"""`BackendConformance`: the tests that a backend must pass. A whole test file for one is

    from whetsim.testing.conformance import BackendConformance


    class TestMine(BackendConformance):
        backend = "mine"

Tests are made for every schedule and encoding that its capabilities declare. What they do not
declare must be refused; nothing is skipped, but for a simulator that is not installed.
Needs pytest and hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from whetsim.backend import Backend, Capabilities, Schedule, Simulation
from whetsim.coding import encode_network
from whetsim.errors import BackendNotInstalledError, SampleError, UnsupportedError, WhetsimError
from whetsim.network import ENCODINGS, Encoding, SpikingNetwork
from whetsim.recording import Recording
from whetsim.registry import get_backend
from whetsim.testing.cases import (
    CASES,
    Case,
    Spikes,
    case,
    on_coarsest_grid,
    true_spikes,
    widest_sums,
)
from whetsim.testing.checks import Watched, check_events, check_recording
from whetsim.testing.number_formats import Fate, at_the_limits, beyond_the_limits, fate_of
from whetsim.testing.random_cases import random_cases

__all__ = ["BackendConformance"]

SCHEDULES: tuple[Schedule, ...] = ("pipelined", "sequential")
FINE_SUM_BITS = 48
"""What the sums of random networks on a fine grid take at most, roundings included."""


class BackendConformance:
    """Tests of one backend; subclass it as ``Test...`` and name the backend.

    Attributes
    ----------
    backend : str or type
        Registered name, or the class of a `Backend`.
    options : mapping
        Passed to `Backend.prepare`.
    max_examples : int
        Random networks for each schedule; fewer for a slow simulator.
    shrink : bool
        Make a random network that fails as small as it gets; that takes hundreds of runs.
    """

    backend: ClassVar[str | type[Backend]]
    options: ClassVar[Mapping[str, Any]] = {}
    max_examples: ClassVar[int] = 30
    shrink: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test for every schedule, encoding and network."""
        can = _engine(self.backend).capabilities
        wanted = set(metafunc.fixturenames)
        if "schedule" in wanted:
            metafunc.parametrize("schedule", can.schedules)
        if "encoding" in wanted:
            pairs = [(n, e) for n in CASES for e in _different(case(n), can.encodings)]
            metafunc.parametrize("name, encoding", pairs)

    @pytest.fixture
    def engine(self) -> Backend:
        """The backend; tests are skipped, with the reason, if its simulator is not installed."""
        engine = _engine(self.backend)
        try:
            engine.versions()
        except BackendNotInstalledError as error:
            pytest.skip(str(error))
        return engine

    def prepare(self, engine: Backend, network: SpikingNetwork, **how: Any) -> Simulation:
        """Return a simulation with the options of this class."""
        return engine.prepare(network, **how, **self.options)

    def check(self, engine: Backend, case: Case, schedule: Schedule, encoding: Encoding) -> None:
        """Check that a case gives the spikes of the oracle, each in its step.

        If the backend's sums are too narrow for it, it runs on the coarsest grid that loses
        nothing, or, if that is too fine still, must be refused. If it declares registers, their
        format says what must become of the case.
        """
        can, network = engine.capabilities, case.network
        if not _fits(can, network, encoding):
            network = on_coarsest_grid(network)
        if not _fits(can, network, encoding):
            assert not case.is_coarse, f"{engine.name}: not even sums of small integers fit"
            self._refused(engine, network, ["bits"], schedule=schedule, encoding=encoding)
            return
        fate = _fate(can, network, encoding)
        if fate == "refused":
            words = ["population", "needs", "has"]
            self._refused(engine, network, words, schedule=schedule, encoding=encoding)
            return
        with self.prepare(engine, network, schedule=schedule, encoding=encoding) as simulation:
            watched = Watched(simulation)
            recording = simulation.run(case.samples, record="rasters")
        if fate == "inexact":
            assert simulation.effects is not None, f"{engine.name}: does not say what happened"
            if simulation.effects.total():
                return
        where = f"{engine.name}, {schedule}, {encoding}"
        expected = case.expected(encoding)
        check_recording(expected, recording, where)
        check_events(expected, simulation, watched, where)
        assert (recording.backend, recording.schedule) == (engine.name, schedule)

    def _refused(
        self, engine: Backend, network: SpikingNetwork, words: Iterable[str], **how: Any
    ) -> None:
        """Check that `prepare` raises `UnsupportedError` with the backend's name and `words`."""
        with pytest.raises(UnsupportedError) as caught:
            self.prepare(engine, network, **how).close()
        for word in (engine.name, *words):
            assert word in str(caught.value)

    # Spikes

    def test_spikes_equal_the_oracle(
        self, engine: Backend, name: str, schedule: Schedule, encoding: Encoding
    ) -> None:
        self.check(engine, case(name), schedule, encoding)

    def test_random_networks(self, engine: Backend, schedule: Schedule) -> None:
        can = engine.capabilities
        phases = [Phase.generate, *([Phase.shrink] if self.shrink else [])]
        fine = can.sum_bits >= FINE_SUM_BITS and can.integers is None

        @settings(
            phases=phases,
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(random_cases(fine=fine), st.sampled_from(can.encodings))
        def check(case: Case, encoding: Encoding) -> None:
            self.check(engine, case, schedule, encoding)

        check()

    def test_sums_as_wide_as_declared(self, engine: Backend, schedule: Schedule) -> None:
        fan_in = widest_sums(53).network.max_fan_in
        self.check(
            engine,
            widest_sums(_room(engine.capabilities, fan_in)),
            schedule,
            engine.capabilities.encodings[0],
        )

    def test_registers_hold_what_is_declared(self, engine: Backend, schedule: Schedule) -> None:
        numbers, encoding = engine.capabilities.integers, engine.capabilities.encodings[0]
        if numbers is None:
            return
        for what, limit in at_the_limits(numbers).items():
            assert fate_of(numbers, limit.network) == "exact", what
            self.check(engine, limit, schedule, encoding)

    def test_what_registers_cannot_hold_is_refused(self, engine: Backend) -> None:
        numbers = engine.capabilities.integers
        if numbers is None:
            return
        for what, limit in beyond_the_limits(numbers).items():
            assert fate_of(numbers, limit.network) == "refused", what
            self._refused(engine, limit.network, ["population", "needs", "has"])

    def test_schedules_agree(self, engine: Backend) -> None:
        busy = case("stored_dense_binary")
        digests = [
            self._run(engine, busy.network, busy.samples, schedule).digests
            for schedule in engine.capabilities.schedules
        ]
        for other in digests[1:]:
            for name, digest in digests[0].items():
                assert np.array_equal(digest, other[name]), name

    def test_defaults_are_declared_first(self, engine: Backend) -> None:
        can = engine.capabilities
        with self._ready(engine, case("every_delay").network, None) as (simulation, _):
            assert simulation.schedule == can.schedules[0]
            assert simulation.network.input.encoding == can.encodings[0]

    # One simulation, several runs

    def test_blocks_change_nothing(self, engine: Backend, schedule: Schedule) -> None:
        busy = case("stored_dense_binary")
        with self._ready(engine, busy.network, schedule) as (simulation, watched):
            simulation.block_values = 6 * (simulation.network.input.size + busy.network.n_neurons)
            recording = simulation.run(busy.samples, record="rasters")
        expected = busy.expected("graded")
        check_recording(expected, recording, engine.name)
        check_events(expected, simulation, watched, engine.name)
        assert [n for n, _ in watched.blocks] in ([6, 4], [])

    def test_runs_leave_no_trace(self, engine: Backend, schedule: Schedule) -> None:
        busy, encoding = case("every_delay"), engine.capabilities.encodings[0]
        with self._ready(engine, busy.network, schedule) as (simulation, watched):
            for samples in (busy.samples, 0 * busy.samples[:3], busy.samples[:0], busy.samples):
                recording = simulation.run(samples, record="rasters")
                expected = true_spikes(busy.network, samples, encoding)
                check_recording(expected, recording, engine.name)
                check_events(expected, simulation, watched, engine.name)
                watched.blocks.clear()

    def test_counts_are_those_of_the_rasters(self, engine: Backend) -> None:
        busy = case("stored_dense_binary")
        with self._ready(engine, busy.network, None) as (simulation, _):
            counted = simulation.run(busy.samples)
            recorded = simulation.run(busy.samples, record="rasters")
        assert recorded.has_rasters and not counted.has_rasters
        for name in busy.expected("graded"):
            for kind in ("spike_counts", "synops", "digests"):
                one, other = getattr(counted, kind)[name], getattr(recorded, kind)[name]
                assert np.array_equal(one, other), f"{kind} of {name!r}"

    def test_bad_samples_are_refused_and_nothing_else(self, engine: Backend) -> None:
        busy = case("stored_dense_binary")
        with self._ready(engine, busy.network, None) as (simulation, _):
            with pytest.raises(SampleError, match="the network reads"):
                simulation.run(busy.samples + 7)
            recording = simulation.run(busy.samples, record="rasters")
        check_recording(busy.expected("graded"), recording, engine.name)

    def test_a_run_that_was_stopped_spoils_nothing(
        self, engine: Backend, schedule: Schedule
    ) -> None:
        busy = case("stored_dense_binary")
        samples = np.tile(busy.samples, (5, 1))
        expected = true_spikes(busy.network, samples)

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with self._ready(engine, busy.network, schedule) as (simulation, _):
            with pytest.raises(KeyboardInterrupt):
                simulation.run(samples, progress=stop)
            self._right_or_refused(engine, simulation, samples, expected, "stopped|again")

    def test_progress_reaches_all_samples(self, engine: Backend, schedule: Schedule) -> None:
        busy = case("stored_dense_binary")
        calls: list[tuple[int, int]] = []
        with self._ready(engine, busy.network, schedule) as (simulation, _):
            simulation.run(busy.samples, progress=lambda done, total: calls.append((done, total)))
        assert calls == sorted(calls)
        assert calls[-1] == (len(busy.samples), len(busy.samples))
        assert {total for _, total in calls} == {len(busy.samples)}

    # Other simulations beside it

    def test_a_second_network_gives_no_wrong_spikes(
        self, engine: Backend, schedule: Schedule
    ) -> None:
        """The first may be refused from then on, with a text that says what to do."""
        one, two = case("stored_dense_binary"), case("large_biases")
        with (
            self._ready(engine, one.network, schedule) as (first, _),
            self._ready(engine, two.network, schedule) as (second, _),
        ):
            expected = one.expected("graded")
            self._right_or_refused(engine, first, one.samples, expected, "one network at a time")
            recording = second.run(two.samples, record="rasters")
            check_recording(two.expected("graded"), recording, f"{engine.name}, second")

    def test_a_closed_simulation_refuses_to_run(self, engine: Backend) -> None:
        busy = case("smallest")
        simulation = self.prepare(engine, busy.network)
        simulation.run(busy.samples)
        simulation.close()
        simulation.close()
        with pytest.raises(WhetsimError, match="closed"):
            simulation.run(busy.samples)

    def test_nothing_is_printed(
        self, engine: Backend, schedule: Schedule, capfd: pytest.CaptureFixture[str]
    ) -> None:
        busy = case("stored_dense_binary")
        capfd.readouterr()
        self._run(engine, busy.network, busy.samples, schedule)
        assert tuple(capfd.readouterr()) == ("", "")

    # What it cannot do

    def test_unknown_options_are_refused(self, engine: Backend) -> None:
        words = ["no_such_option", *(engine.options or ["none"])]
        self._refused(engine, case("smallest").network, words, no_such_option=1)

    def test_undeclared_schedules_are_refused(self, engine: Backend) -> None:
        can = engine.capabilities.schedules
        for schedule in ("sideways", *(s for s in SCHEDULES if s not in can)):
            self._refused(engine, case("smallest").network, [schedule, *can], schedule=schedule)

    def test_undeclared_encodings_are_refused(self, engine: Backend) -> None:
        can = engine.capabilities.encodings
        for encoding in ("morse", *(e for e in ENCODINGS if e not in can)):
            self._refused(
                engine, case("stored_dense_grey").network, [encoding, *can], encoding=encoding
            )

    def test_sums_wider_than_declared_are_refused(self, engine: Backend) -> None:
        room = _room(engine.capabilities, widest_sums(53).network.max_fan_in)
        for bits in range(room + 1, 54):
            words = [f"{bits} bits", f"{room} bits", "exact"]
            self._refused(engine, widest_sums(bits).network, words)

    # What it says of itself

    def test_it_says_what_it_is(self, engine: Backend) -> None:
        if isinstance(self.backend, str):
            assert engine.name == self.backend
        can = engine.capabilities
        assert can.kind in ("reference", "simulated", "emulated", "hardware")
        assert can.encodings and set(can.encodings) <= set(ENCODINGS)
        assert can.schedules and set(can.schedules) <= set(SCHEDULES)
        assert 1 <= can.sum_bits <= 53
        assert all(engine.versions().values())
        assert all(isinstance(text, str) and text for text in engine.options.values())

    # Helpers

    def _run(
        self, engine: Backend, network: SpikingNetwork, samples: Any, schedule: Schedule
    ) -> Recording:
        with self._ready(engine, network, schedule) as (simulation, _):
            return simulation.run(samples)

    @contextmanager
    def _ready(
        self, engine: Backend, network: SpikingNetwork, schedule: Schedule | None
    ) -> Iterator[tuple[Simulation, Watched]]:
        with self.prepare(engine, on_coarsest_grid(network), schedule=schedule) as simulation:
            yield simulation, Watched(simulation)

    def _right_or_refused(
        self, engine: Backend, simulation: Simulation, samples: Any, expected: Spikes, match: str
    ) -> None:
        try:
            recording = simulation.run(samples, record="rasters")
        except WhetsimError as error:
            with pytest.raises(WhetsimError, match=match):
                raise error
        else:
            check_recording(expected, recording, engine.name)


def _engine(backend: str | type[Backend]) -> Backend:
    return get_backend(backend) if isinstance(backend, str) else backend()


def _different(case: Case, encodings: tuple[Encoding, ...]) -> tuple[Encoding, ...]:
    """Return the encodings that make a difference: one is as good as another for 0/1 inputs."""
    return encodings if case.network.input.is_graded else encodings[:1]


def _room(can: Capabilities, fan_in: int) -> int:
    """Return how many bits the sums of `fan_in` synapses may take."""
    return min(can.sum_bits, 52 - (fan_in + 1).bit_length()) if can.rounds else can.sum_bits


def _fate(can: Capabilities, network: SpikingNetwork, encoding: Encoding) -> Fate:
    """Return what must become of a network whose sums are not too wide."""
    if can.integers is None:
        return "exact"
    return fate_of(can.integers, encode_network(network, encoding))


def _fits(can: Capabilities, network: SpikingNetwork, encoding: Encoding) -> bool:
    encoded = encode_network(network, encoding)
    return encoded.sum_bits <= _room(can, encoded.max_fan_in)
