"""Runs networks of Loihi registers on nengo-loihi's own emulator; it needs that package alone.

    python nengo_loihi_run.py FOLDER

reads every ``*.npz`` of FOLDER and writes what each compartment did in every step to ``*.out.npz``.
Registers are handed to nengo-loihi's blocks as they are, past everything that rounds. Numbered from
0 there are, of each block: ``vth_0``, ``bias_0``, ``decay_u_0``, ``decay_v_0``, ``refract_0``,
``vmin_0``, ``vmax_0``; of each synapse group: ``ends_0`` (source block, -1 for the input; target
block) and ``weights_0``, what a spike delivers, ``(n_sources, n_targets)``; ``inputs`` is bool
``(n_steps, n_inputs)``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from nengo_loihi.block import Axon, LoihiBlock, Synapse
from nengo_loihi.builder import Model
from nengo_loihi.builder.discretize import array_to_int
from nengo_loihi.emulator import EmulatorInterface
from nengo_loihi.inputs import SpikeInput


def count(given, key):
    return sum(name.startswith(key) for name in given)


def block_of(given, number):
    """Return a block with these registers and no rounding left to do."""
    block = LoihiBlock(len(given[f"vth_{number}"]))
    cells = block.compartment
    for key in ("vth", "bias", "decay_u", "decay_v"):
        array_to_int(getattr(cells, key), given[f"{key}_{number}"])
    cells.refract_delay[:] = given[f"refract_{number}"]
    cells.vmin, cells.vmax = int(given[f"vmin_{number}"]), int(given[f"vmax_{number}"])
    cells.scale_u = cells.scale_v = False
    return block


def run(given):
    """Return spikes, currents and membranes of all compartments, ``(n_steps, n)`` each."""
    model = Model()
    inputs = given["inputs"]
    source = SpikeInput(inputs.shape[1])
    for step, row in enumerate(inputs):
        source.add_spikes(step + 1, np.flatnonzero(row), permanent=True)
    model.add_input(source)
    blocks = [block_of(given, number) for number in range(count(given, "vth_"))]
    for number in range(count(given, "ends_")):
        begin, end = given[f"ends_{number}"]
        weights = given[f"weights_{number}"]
        synapse = Synapse(len(weights))
        synapse.set_weights(weights)
        for stored, delivered in zip(synapse.weights, weights, strict=True):
            array_to_int(stored, delivered[None])
        blocks[end].add_synapse(synapse)
        axon = Axon(len(weights))
        axon.target = synapse
        (source if begin < 0 else blocks[begin]).add_axon(axon)
    for block in blocks:
        model.add_block(block)
    found = {"spikes": [], "current": [], "voltage": []}
    with EmulatorInterface(model, seed=0) as emulator:
        # Its first step is before any input.
        for _ in range(len(inputs) + 1):
            emulator.step()
            cells = emulator.compartment
            states = (cells.spiked, cells.current, cells.voltage)
            for key, values in zip(found, states, strict=True):
                found[key].append(values.copy())
    return {key: np.stack(values) for key, values in found.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of every overflow there is one
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        with np.load(path) as stored:
            results = run({key: stored[key] for key in stored.files})
        np.savez(path.with_suffix(".out"), **results)
