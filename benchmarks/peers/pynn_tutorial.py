"""A layered network on PyNN the way its tutorials do it: one run for each sample, then read.

    python pynn_tutorial.py data.npz --simulator nest|brian2 [--samples N]

Connections come from lists, spikes from `get_data`. PyNN's cells know no graded input, so pixels
are black or white here: one spike where the value is at least half of the largest. What a tutorial
does not say, but without which nothing or the wrong neurons fire, is marked below.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from harness import Data, Floats, Raster, Stopwatch, parser, peak_mb, read, report

NO_LEAK_MS = 1e6
FIRST_MS = 2.0
"""NEST refuses spikes at a time of 0 or within the first delay."""
STEP_MS = {"nest": 1.0, "brian2": 2.0}
"""How long a layer takes at a time step and a delay of 1 ms."""


def black_and_white(data: Data) -> Data:
    """Return the same network for pixels that are 0 or 1."""
    largest = int(data.images.max())
    first = replace(data.layers[0], weight=data.layers[0].weight * largest)
    return Data(2 * data.images >= largest, [first, *data.layers[1:]], data.decoder)


def connect(sim: Any, source: Any, target: Any, weight: Floats) -> None:
    """Connect from a list, positive and negative weights one after the other."""
    for sign, receptor in ((1, "excitatory"), (-1, "inhibitory")):
        i, j = np.nonzero(weight * sign > 0)
        if len(i):
            table = np.column_stack([i, j, weight[i, j], np.ones(len(i))])
            sim.Projection(source, target, sim.FromListConnector(table), receptor_type=receptor)


class Tutorial:
    """The network and one run for each sample."""

    def __init__(self, sim: Any, name: str, data: Data) -> None:
        self.sim, self.name, self.data = sim, name, data
        precise = {"spike_precision": "on_grid"} if name == "nest" else {}
        sim.setup(timestep=1.0, min_delay=1.0, max_delay=10.0, **precise)
        self.sample_ms = FIRST_MS + (len(data.layers) + 2) * STEP_MS[name]
        self.pixels = sim.Population(data.images.shape[1], sim.SpikeSourceArray(spike_times=[]))
        # A constant current would charge a neuron without leak in every step of a sample, so the
        # biases are spikes, in phase with the layer they belong to.
        self.bias = sim.Population(
            max(2, len(data.layers)), sim.SpikeSourceArray(spike_times=[FIRST_MS])
        )
        self.layers, source = [], self.pixels
        for k, dense in enumerate(data.layers):
            bias = dense.bias
            layer = sim.Population(len(bias), self._cell())
            connect(sim, source, layer, dense.weight)
            rows = np.zeros((self.bias.size, len(bias)))
            rows[k] = bias
            connect(sim, self.bias, layer, rows)
            layer.record("spikes")
            self.layers.append(layer)
            source = layer
        self._discharge()
        if name == "nest":
            # Spike times set after a first run are never played, so all are set before it.
            starts = np.arange(len(data.images), dtype=np.float64) * self.sample_ms + FIRST_MS
            self._present(data.images, starts)

    def _cell(self) -> Any:
        return self.sim.IF_curr_delta(
            v_rest=0.0, v_reset=0.0, v_thresh=0.5, tau_m=NO_LEAK_MS, cm=1.0, tau_refrac=0.0
        )

    def _discharge(self) -> None:
        for layer in self.layers:
            if self.name == "nest":
                # `initialize(v=0)` is ignored there.
                layer.node_collection.V_m = 0.0
            else:
                layer.initialize(v=0.0)

    def _present(self, images: Raster, starts: Floats) -> None:
        self.pixels.set(spike_times=[list(starts[on]) for on in images.T])
        step = STEP_MS[self.name]
        self.bias.set(spike_times=[list(starts + k * step) for k in range(self.bias.size)])

    def run(self, index: int) -> list[Raster]:
        """Return which neurons of each layer fired for a sample."""
        if self.name == "brian2":
            self._present(self.data.images[index : index + 1], np.array([FIRST_MS]))
        self.sim.run(self.sample_ms)
        # NEST takes no reset; time goes on there and what has been read is dropped.
        clear = self.name == "nest"
        fired = []
        for layer in self.layers:
            trains = layer.get_data("spikes", clear=clear).segments[-1].spiketrains
            fired.append(np.array([len(train) > 0 for train in trains]))
        if not clear:
            self.sim.reset()
        self._discharge()
        return fired


def main() -> None:
    """Build once, run sample by sample, check."""
    options = parser(__doc__)
    options.add_argument("--simulator", choices=tuple(STEP_MS), required=True)
    options.add_argument("--target", choices=("numpy", "cython"), default="numpy")
    options.set_defaults(samples=5)
    arguments = options.parse_args()
    if arguments.simulator == "brian2":
        import_module("brian2").prefs.codegen.target = arguments.target
    sim = import_module(f"pyNN.{arguments.simulator}")
    data = black_and_white(read(arguments.data)).take(arguments.samples)
    watch = Stopwatch()
    tutorial = Tutorial(sim, arguments.simulator, data)
    watch.stop("build")
    fired: list[list[Raster]] = []
    each: list[float] = []
    for index in range(len(data.images)):
        fired.append(tutorial.run(index))
        watch.stop("run")
        each.append(watch.seconds["run"] - sum(each))
    sim.end()
    rasters = [np.array(layer) for layer in zip(*fired, strict=True)]
    # The first sample is left out of the median where there are others: it warms everything up.
    median = float(np.median(each[1:] or each))
    report(data, rasters, watch, peak_mb(), s_per_sample=round(median, 6))


if __name__ == "__main__":
    main()
