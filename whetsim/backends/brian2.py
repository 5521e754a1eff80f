"""Backend ``brian2``: the whole network in one neuron group and two sets of synapses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from whetsim.backend import Backend, Capabilities, Schedule, Simulation
from whetsim.backends.brian2_runtime import RuntimeSimulation
from whetsim.backends.brian2_standalone import StandaloneSimulation
from whetsim.backends.quiet import quiet
from whetsim.backends.support import need, package_version
from whetsim.errors import UnsupportedError, did_you_mean
from whetsim.network import SpikingNetwork

__all__ = ["Brian2Backend"]

TARGETS = ("auto", "cython", "numpy", "cpp_standalone")


class Brian2Backend(Backend):
    """Brian2 through its own interface."""

    name = "brian2"
    capabilities = Capabilities()
    options: ClassVar[Mapping[str, str]] = {
        "target": "'auto', 'cython' (compiled once), 'numpy' (no compiler needed) or "
        "'cpp_standalone' (a program of its own, compiled once)",
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
            return StandaloneSimulation(b2, network, schedule, threads)
        return RuntimeSimulation(b2, network, schedule, _resolve(b2, target))


def _resolve(b2: Any, target: str) -> str:
    # Never cpp_standalone. It saves some 35 us of Python in a step, and its queue of spikes costs
    # more for each synop. Measured on 2 cores, run alone: mnist_dense, 10,000 images, 1.2 s by
    # cython and 0.9 s by it; mnist_conv, 1,000 images, 6.7 s and 6.8 s. It takes 0.3 s more to
    # begin with and 5 s to compile, so the small network gains from 10,000 images on if it is
    # compiled, else from 170,000; the other never. Threads do not change that: Brian2 2.9
    # delivers spikes on one.
    if target != "auto":
        return target
    from brian2.codegen.runtime.cython_rt import CythonCodeObject

    with quiet():
        return "cython" if CythonCodeObject.is_available() else "numpy"
