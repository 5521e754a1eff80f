"""A layered network on Brian2, written by hand: pipelined, a new sample every millisecond.

    python brian2_by_hand.py data.npz [--samples N] [--target cython|numpy]

All layers are one neuron group, because every group and every Synapses object costs compiling, and
time in each step. The neurons start every step from their bias, so each works on its own sample.
A max pool is a neuron that any spike makes fire. Synapses are made from arrays, one call for each
object, in the order of their sources: spikes are delivered in half the time then.
Pixels are a group of their own whose values a Python function writes into the group's memory; that
is faster than a TimedArray, and is not compiled again for another number of samples.
"""

from __future__ import annotations

import brian2 as b2
import numpy as np
from harness import Data, Floats, Ints, Layer, Stopwatch, decode, parser, peak_mb, read, report


def synapses(layer: Layer, pre: int, post: int) -> tuple[Ints, Ints, Floats]:
    """Return source, target and weight of every synapse of a layer, in the order of sources."""
    if layer.kind == "dense":
        n_in, n_out = layer.weight.shape
        i = np.repeat(np.arange(pre, pre + n_in), n_out)
        return i, np.tile(np.arange(post, post + n_out), n_in), layer.weight.ravel()
    n_in, n_out = layer.source[2], layer.shape[2]
    blocks = []
    for y, x, out_y, out_x, in_y, in_x in layer.windows():
        first = pre + (in_y[:, None] * layer.source[1] + in_x).reshape(-1, 1, 1) * n_in
        last = post + (out_y[:, None] * layer.shape[1] + out_x).reshape(-1, 1, 1) * n_out
        if layer.kind == "pool":
            i, j, w = first + np.arange(n_in), last + np.arange(n_out), np.ones(n_in)
        else:
            i, j = first + np.arange(n_in)[:, None], last + np.arange(n_out)
            w = layer.weight[y, x]
        blocks.append([block.ravel() for block in np.broadcast_arrays(i, j, w)])
    i, j, w = (np.concatenate(part) for part in zip(*blocks, strict=True))
    order = np.argsort(i, kind="stable")
    return i[order], j[order], w[order]


def build(data: Data) -> tuple[b2.Network, b2.SpikeMonitor]:
    """Return the network and the monitor of all its spikes."""
    b2.defaultclock.dt = 1 * b2.ms
    offsets = data.offsets
    pixels = b2.NeuronGroup(data.images.shape[1], "x : 1", threshold="x != 0", reset="", name="px")
    neurons = b2.NeuronGroup(
        int(offsets[-1]), "v : 1\nbias : 1 (constant)", threshold="v >= 0.5", reset="", name="nrn"
    )
    neurons.bias = neurons.v = np.concatenate([layer.biases for layer in data.layers])
    neurons.run_regularly("v = bias", when="after_thresholds", name="renew")

    first = b2.Synapses(
        pixels, neurons, "w : 1 (constant)", on_pre="v_post += w * x_pre", name="first"
    )
    i, j, w = synapses(data.layers[0], 0, 0)
    first.connect(i=i, j=j)
    first.w = w
    objects = [pixels, neurons, first]
    if len(data.layers) > 1:
        later = b2.Synapses(
            neurons, neurons, "w : 1 (constant)", on_pre="v_post += w", name="later"
        )
        parts = [
            synapses(layer, offsets[k], offsets[k + 1]) for k, layer in enumerate(data.layers[1:])
        ]
        i, j, w = (np.concatenate(part) for part in zip(*parts, strict=True))
        later.connect(i=i, j=j)
        later.w = w
        objects.append(later)

    x = pixels.variables["x"].get_value()
    rows = iter(data.images)
    silence = np.zeros(len(x))

    def present() -> None:
        x[:] = next(rows, silence)

    feeder = b2.NetworkOperation(present, when="start")
    monitor = b2.SpikeMonitor(neurons, name="spikes")
    return b2.Network(*objects, feeder, monitor), monitor


def main() -> None:
    """Build, run, read, check."""
    options = parser(__doc__)
    options.add_argument("--target", choices=("cython", "numpy"), default="cython")
    arguments = options.parse_args()
    data = read(arguments.data).take(arguments.samples)
    b2.prefs.codegen.target = arguments.target
    watch = Stopwatch()

    net, monitor = build(data)
    watch.stop("build")

    net.run((len(data.images) + len(data.layers)) * b2.ms, namespace={})
    watch.stop("run")

    # Input arrives at the end of its step, so layer k fires k + 1 steps after the sample.
    step = np.rint(np.asarray(monitor.t / b2.ms)).astype(np.int64)
    readout = decode(data, step, np.asarray(monitor.i))
    watch.stop("read")
    report(data, readout.rasters, watch, peak_mb())


if __name__ == "__main__":
    main()
