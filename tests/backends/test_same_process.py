"""Backends do not disturb each other in one process."""

from __future__ import annotations

from typing import Any

import pytest

import whetsim
from whetsim.backend import Simulation
from whetsim.errors import BackendNotInstalledError, WhetsimError
from whetsim.testing.cases import case
from whetsim.testing.checks import check_recording

pytestmark = pytest.mark.simulator

BACKENDS = ["brian2", "nest", "pynn.brian2", "pynn.nest"]


def prepared(backend: str, **how: Any) -> Simulation:
    try:
        return whetsim.get_backend(backend).prepare(case("every_delay").network, **how)
    except BackendNotInstalledError as error:
        pytest.skip(str(error))


def check(simulation: Simulation) -> None:
    busy = case("every_delay")
    recording = simulation.run(busy.samples, record="rasters")
    check_recording(busy.expected("graded"), recording, simulation.backend.name)


@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
def test_one_after_the_other(first: str, second: str, schedule: str) -> None:
    other = "sequential" if schedule == "pipelined" else "pipelined"
    with prepared(first, schedule=schedule) as simulation:
        check(simulation)
    with prepared(second, schedule=other) as simulation:
        check(simulation)


@pytest.mark.parametrize(
    "first, second",
    [("brian2", "pynn.brian2"), ("pynn.brian2", "brian2"), ("brian2", "nest"), ("nest", "brian2")],
)
def test_both_alive(first: str, second: str) -> None:
    """Built before the other one runs, and run after it."""
    with prepared(first) as one, prepared(second) as two:
        check(two)
        check(one)
        check(two)


@pytest.mark.parametrize(
    "first, second",
    [
        ("nest", "nest"),
        ("nest", "pynn.nest"),
        ("pynn.nest", "nest"),
        ("pynn.nest", "pynn.nest"),
        ("pynn.brian2", "pynn.brian2"),
    ],
)
def test_a_simulator_that_holds_one_network_says_so(first: str, second: str) -> None:
    with prepared(first) as one, prepared(second) as two:
        for _ in range(2):
            with pytest.raises(WhetsimError, match=r"holds one network at a time.*Prepare"):
                one.run(case("every_delay").samples)
        check(two)
    with prepared(first) as again:
        check(again)


def test_native_brian2_holds_several() -> None:
    with prepared("brian2") as one, prepared("brian2", schedule="sequential") as two:
        check(one)
        check(two)
        check(one)


def test_a_users_brian2_settings_survive() -> None:
    """What a user of Brian2 set up in the same process stays as it was."""
    b2 = pytest.importorskip("brian2", exc_type=ImportError)
    previous = b2.prefs.codegen.target
    try:
        b2.prefs.codegen.target = "numpy"
        group = b2.NeuronGroup(1, "dv/dt = 1/ms : 1", threshold="v > 2.5", reset="v = 0")
        monitor = b2.SpikeMonitor(group)
        net = b2.Network(group, monitor)
        b2.prefs.codegen.target = "cython"
        with prepared("brian2", target="numpy") as simulation:
            assert b2.prefs.codegen.target == "cython"
            check(simulation)
        dt = b2.defaultclock.dt
        with prepared("pynn.brian2") as simulation:
            check(simulation)
        assert b2.defaultclock.dt == dt
        assert b2.prefs.codegen.target == "cython"
        b2.prefs.codegen.target = "numpy"
        net.run(10 * b2.ms)
        assert monitor.num_spikes >= 3
    finally:
        b2.prefs.codegen.target = previous


@pytest.mark.parametrize("backend", ["brian2", "pynn.brian2"])
def test_a_standalone_device_is_no_obstacle(backend: str) -> None:
    b2 = pytest.importorskip("brian2", exc_type=ImportError)
    try:
        b2.set_device("cpp_standalone", build_on_run=False)
        with prepared(backend) as simulation:
            check(simulation)
    finally:
        b2.device.reinit()
        b2.set_device("runtime")
