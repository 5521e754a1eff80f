"""One timed run of whetsim in a process of its own, reported like the hand-written scripts.

    python whetsim_run.py NETWORK data.npz --backend nest [--samples N] [--threads N]

`throughput.py` calls it. The time of importing a simulator is left out on both sides; mapping the
network, which a hand-written script does not have to do, is counted as building.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import numpy as np

import whetsim
from whetsim.backends.support import need

SIMULATORS = {
    "nest": ("nest",),
    "brian2": ("brian2",),
    "pynn.nest": ("nest", "pyNN.nest"),
    "pynn.brian2": ("brian2", "pyNN.brian2"),
}


def main() -> None:
    """Run, then compare with the exact backend."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("data", help=".npz with images")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--samples", type=int, default=1000, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N", help="for the backends that have them")
    arguments = parser.parse_args()
    with np.load(arguments.data) as file:
        images = file["images"][: arguments.samples]
    model = whetsim.load(arguments.network)
    map_to_spikes = whetsim.map_to_spikes  # imported here, before the clock runs
    backend = whetsim.get_backend(arguments.backend)
    for module in SIMULATORS.get(arguments.backend, ()):
        need(module, arguments.backend, arguments.backend.partition(".")[0])
    options: dict[str, Any] = {}
    if arguments.threads and arguments.backend == "nest":
        options["threads"] = arguments.threads

    start, start_cpu = time.perf_counter(), time.process_time()
    network = map_to_spikes(model)
    mapped = time.perf_counter()
    with backend.prepare(network, **options) as simulation:
        recording = simulation.run(images)
    total, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    exact = whetsim.run(network, images, backend="exact")
    # A digest is a fingerprint of all spikes of a sample, so equal digests are equal rasters.
    wrong = {
        p.name: int((exact.digests[p.name] != recording.digests[p.name]).sum())
        for p in network.populations
    }
    timing = recording.timing
    print(
        json.dumps(
            {
                "build_s": round(mapped - start + timing.build_s, 6),
                "run_s": round(timing.run_s, 6),
                "read_s": round(timing.read_s, 6),
                "total_s": round(total, 6),
                "cpu_s": round(cpu, 6),
                "peak_mb": round(peak, 1),
                "samples": recording.n_samples,
                "spikes": [int(recording.spike_counts[p.name].sum()) for p in network.populations],
                "n_different_samples": max(wrong.values()),
                "exact": not any(wrong.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
