"""The Brian2 backend passes the suite, compiled and not."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import whetsim
from whetsim.backend import Simulation
from whetsim.errors import BackendNotInstalledError, UnsupportedError, WhetsimError
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


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")

RUN = """
import sys
import whetsim
from whetsim.testing.cases import case

whetsim.get_backend("brian2").versions()
from brian2.codegen.runtime.cython_rt import extension_manager

if sys.argv[2] == "compiled":
    extension_manager.Cython_Build.cythonize = lambda *args, **options: sys.exit("compiles again")
which = case(sys.argv[1])
whetsim.run(which.network, which.samples, backend="brian2", target="cython")
"""


@needs_compiler
def test_another_process_compiles_nothing_for_another_network() -> None:
    prepared(case("smallest")).close()
    for name, state in (("smallest", "any"), ("every_delay", "compiled")):
        done = subprocess.run(
            [sys.executable, "-c", RUN, name, state], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_simulation_that_never_runs(capfd: pytest.CaptureFixture[str]) -> None:
    prepared(case("smallest"), target="numpy").close()
    gc.collect()
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of compiled programs, empty at first."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "whetsim" / "brian2"


@needs_compiler
@pytest.mark.parametrize("schedule", ["pipelined", "sequential"])
@pytest.mark.parametrize("name", ["every_delay", "smallest"])
def test_standalone(schedule: str, name: str, programs: Path) -> None:
    """The suite would take too long; one program runs both networks in both schedules."""
    which = case(name)
    expected = which.expected("graded")
    with prepared(which, schedule=schedule, target="cpp_standalone") as simulation:
        watched = Watched(simulation)
        recording = simulation.run(which.samples, record="rasters")
        check_recording(expected, recording, "cpp_standalone")
        check_events(expected, simulation, watched, "cpp_standalone")
        simulation.block_values = 3 * (which.network.input.size + which.network.n_neurons)
        recording = simulation.run(which.samples, record="rasters")
    check_recording(expected, recording, "cpp_standalone, in blocks")
    assert len(list(programs.iterdir())) == 1
    # Others still run, and as before.
    with prepared(which, target="numpy") as simulation:
        recording = simulation.run(which.samples, record="rasters")
    check_recording(expected, recording, "numpy, after cpp_standalone")


@needs_compiler
def test_standalone_with_threads(programs: Path) -> None:
    which = case("every_delay")
    with prepared(which, target="cpp_standalone", threads=2) as simulation:
        recording = simulation.run(which.samples, record="rasters")
    check_recording(which.expected("graded"), recording, "cpp_standalone, two threads")


@needs_compiler
def test_program_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho error: no space left\nexit 2\n")
    make.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = r"^brian2: 'make' failed with status 2 \(error: no space left\)"
    with pytest.raises(WhetsimError, match=text):
        prepared(case("smallest"), target="cpp_standalone")
    assert not list(tmp_path.rglob("brian2/*"))


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
