"""The Brian2 backend passes the suite, compiled and not."""

from __future__ import annotations

import shutil
from typing import Any, ClassVar

import pytest

import whetsim
from whetsim.backend import Simulation
from whetsim.errors import BackendNotInstalledError, UnsupportedError
from whetsim.testing.cases import Case, case
from whetsim.testing.checks import Watched, check_events, check_recording
from whetsim.testing.conformance import BackendConformance

pytestmark = pytest.mark.simulator


class TestBrian2(BackendConformance):
    backend = "brian2"
    max_examples = 12
    shrink = False


class TestBrian2WithoutCompiler(BackendConformance):
    backend = "brian2"
    options: ClassVar = {"target": "numpy"}
    max_examples = 6
    shrink = False


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
def test_standalone(schedule: str) -> None:
    """The suite would compile for half an hour; one network, with all delays, takes 15 s."""
    busy = case("every_delay")
    expected = busy.expected("graded")
    with prepared(busy, schedule=schedule, target="cpp_standalone") as simulation:
        watched = Watched(simulation)
        recording = simulation.run(busy.samples, record="rasters")
    check_recording(expected, recording, "cpp_standalone")
    check_events(expected, simulation, watched, "cpp_standalone")
    # Others still run, and as before.
    with prepared(busy, target="numpy") as simulation:
        recording = simulation.run(busy.samples, record="rasters")
    check_recording(expected, recording, "numpy, after cpp_standalone")


def prepared(which: Case, **how: Any) -> Simulation:
    try:
        return whetsim.get_backend("brian2").prepare(which.network, **how)
    except BackendNotInstalledError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"target": "cyton"},
            "no target 'cyton'; it has: auto, cython, numpy, cpp_standalone. Did",
        ),
        ({"threads": 2}, "threads need target='cpp_standalone'"),
        ({"threads": 0}, r"threads must be a whole number of at least 1 \(got 0\)"),
        ({"threads": True}, r"at least 1 \(got True\)"),
        ({"threads": 1.5}, r"at least 1 \(got 1.5\)"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^brian2: .*{text}"):
        prepared(case("smallest"), **options)
