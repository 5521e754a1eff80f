"""A layered network on NEST, written by hand: pipelined, a new sample every millisecond.

    python nest_by_hand.py data.npz [--samples N] [--threads N]

All connections are made from arrays, those of a convolution or a pool one place of the window at a
time, and all spikes are read from one recorder. The neurons forget within a step (a membrane time
constant so short that the decay factor is 0), so each works on its own sample. Pixel values travel
as spike weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

# NEST's threads wait busily for each other otherwise, which costs a factor of ten or more on a
# machine where anything else runs. It must be set before NEST is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import nest
import numpy as np
from harness import Floats, Ints, Layer, Stopwatch, decode, parser, peak_mb, read, report

TAU_MS = 0.001
"""exp(-1 ms / this) is 0; with C_m = tau_m a current of I_e adds I_e to v, so it is the bias."""


def synapses(layer: Layer) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield source, target and weight of a layer's synapses in blocks, counted from 0."""
    if layer.kind == "dense":
        n_in, n_out = layer.weight.shape
        source, target = np.arange(n_in), np.arange(n_out)
        yield np.repeat(source, n_out), np.tile(target, n_in), layer.weight.ravel()
        return
    n_in, n_out = layer.source[2], layer.shape[2]
    for i, j, out_y, out_x, in_y, in_x in layer.windows():
        first = ((in_y[:, None] * layer.source[1] + in_x) * n_in).reshape(-1, 1, 1)
        last = ((out_y[:, None] * layer.shape[1] + out_x) * n_out).reshape(-1, 1, 1)
        if layer.kind == "pool":
            source, target = first + np.arange(n_in), last + np.arange(n_out)
            weight = np.ones(source.shape)
        else:
            source, target = first + np.arange(n_in)[:, None], last + np.arange(n_out)
            weight = layer.weight[i, j]
        shape = np.broadcast_shapes(source.shape, target.shape, weight.shape)
        a, b, w = (np.broadcast_to(x, shape).ravel() for x in (source, target, weight))
        yield a, b, w


def main() -> None:
    """Build, run, read, check."""
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=1, metavar="N")
    arguments = options.parse_args()
    data = read(arguments.data).take(arguments.samples)
    watch = Stopwatch()

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.resolution = 1.0
    nest.local_num_threads = arguments.threads
    inputs = nest.Create("spike_generator", data.images.shape[1])
    trains = []
    for values in np.ascontiguousarray(data.images.T):
        on = np.flatnonzero(values)
        # A spike at time 0 is refused: sample i starts at i + 1.
        trains.append({"spike_times": on + 1.0, "spike_weights": values[on].astype(np.float64)})
    inputs.set(trains)
    parameters = {"tau_m": TAU_MS, "C_m": TAU_MS, "E_L": 0.0, "V_reset": 0.0, "V_th": 0.5}
    neurons = nest.Create(
        "iaf_psc_delta", int(data.offsets[-1]), params=parameters | {"t_ref": 0.0, "V_m": 0.0}
    )
    neurons.I_e = np.concatenate([layer.biases for layer in data.layers])
    first = neurons[0].global_id
    sources = inputs[0].global_id
    for layer, offset in zip(data.layers, data.offsets, strict=False):
        for source, target, weight in synapses(layer):
            nest.Connect(
                source + sources,
                target + first + offset,
                "one_to_one",
                {"weight": weight, "delay": np.ones(len(weight))},
            )
        sources = first + offset
    recorder = nest.Create("spike_recorder", params={"time_in_steps": True})
    nest.Connect(neurons, recorder)
    watch.stop("build")

    nest.Simulate(float(len(data.images) + len(data.layers) + 1))
    watch.stop("run")

    events = recorder.events
    readout = decode(data, events["times"] - 1, events["senders"] - first)
    watch.stop("read")
    report(data, readout.rasters, watch, peak_mb())


if __name__ == "__main__":
    main()
