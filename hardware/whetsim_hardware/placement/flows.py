"""Which block sends how many messages to which, and which core holds which block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whetsim_hardware.placement.rules import CoreRules
from whetsim_hardware.placement.splitting import Split
from whetsim_hardware.placement.value import Slice
from whetsim_hardware.placement.wiring import Wiring

__all__ = ["Block", "Flow", "blocks_and_flows", "pack"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """What goes onto one core as a whole."""

    slice: Slice
    use: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Flow:
    """Messages between two populations if every neuron of the source fires once.

    Parameters
    ----------
    source, target : str
    pairs : sparse array (blocks of the source, blocks of the target)
        Number of messages. The input is one block.
    """

    source: str
    target: str
    pairs: sparse.csr_array


def blocks_and_flows(
    wiring: Wiring, rules: CoreRules, splits: list[Split]
) -> tuple[dict[str, list[Block]], list[Flow]]:
    """Return the blocks of each population (splitters have their own) and what they send."""
    blocks: dict[str, list[Block]] = {}
    flows: list[Flow] = []
    by_name = {split.name: split for split in splits}
    for split in splits:
        blocks[split.name] = _blocks(split)
        if split.splitters is not None:
            blocks[f"{split.name}/splitter"] = _splitter_blocks(split, rules.limits["neurons"])
    network = wiring.network
    reached: dict[str, list[tuple[str, sparse.csc_array]]] = {}
    for target in splits:
        for line in target.lines:
            found = line.fan.reached(target.tiling) * line.copies
            reached.setdefault(line.projection.source, []).append((target.name, found))
    for source, parts in reached.items():
        if source == network.input.name:
            n = network.input.size
            port = sparse.csr_array(np.ones((1, n), dtype=np.int64))
            flows += [Flow(source, name, sparse.csr_array(port @ found)) for name, found in parts]
            continue
        split = by_name[source]
        member = _membership(split)
        if split.splitters is None:
            flows += [Flow(source, name, sparse.csr_array(member @ f)) for name, f in parts]
        else:
            flows += _split_flows(split, parts, member, rules.limits["neurons"])
    return blocks, _joined(flows)


def _joined(flows: list[Flow]) -> list[Flow]:
    """Return one flow for each pair of populations."""
    found: dict[tuple[str, str], sparse.csr_array] = {}
    for flow in flows:
        key = flow.source, flow.target
        found[key] = found[key] + flow.pairs if key in found else sparse.csr_array(flow.pairs)
    return [Flow(*key, pairs) for key, pairs in found.items()]


def _membership(split: Split) -> sparse.csr_array:
    """Return which neuron is in which block: 0/1, (n_blocks, n_neurons)."""
    block = split.tiling.block_of
    ones = np.ones(len(block), dtype=np.int64)
    shape = (split.tiling.n_blocks, len(block))
    return sparse.csr_array((ones, (block, np.arange(len(block)))), shape=shape)


def _blocks(split: Split) -> list[Block]:
    result = []
    for number in range(split.tiling.n_blocks):
        piece = Slice(split.name, split.tiling.shape, *split.tiling.corners(number))
        result.append(Block(piece, {key: int(v[number]) for key, v in split.use.items()}))
    return result


def _splitter_blocks(split: Split, room: int) -> list[Block]:
    """Return the cores full of splitter neurons, each named by the neurons that they repeat."""
    assert split.splitters is not None
    end = np.cumsum(split.splitters)
    total, size = int(end[-1]), len(end)
    result = []
    for first in range(0, total, room):
        last = min(first + room, total)
        # Neurons that have splitters in this stretch of the line.
        a, b = (int(np.searchsorted(end, place, side="right")) for place in (first, last - 1))
        served = int(np.count_nonzero(split.splitters[a : b + 1]))
        piece = Slice(f"{split.name}/splitter", (1, 1, size), (0, 0, a), (1, 1, b + 1))
        use = {"neurons": last - first, "in_axons": served, "synapses": 0}
        result.append(Block(piece, use))
    return result


def _split_flows(
    split: Split, parts: list[tuple[str, sparse.csc_array]], member: sparse.csr_array, room: int
) -> list[Flow]:
    """Return the flows of a population that sends through splitter neurons."""
    assert split.splitters is not None
    end = np.cumsum(split.splitters)
    n_cores = -(-int(end[-1]) // room)
    name = f"{split.name}/splitter"
    # Messages in the order of their neurons, then of their targets: the line of splitters.
    columns = [sparse.coo_array(found) for _, found in parts]
    neuron = np.concatenate([np.repeat(c.row, c.data) for c in columns])
    part = np.concatenate([np.full(int(c.data.sum()), i) for i, c in enumerate(columns)])
    block = np.concatenate([np.repeat(c.col, c.data) for c in columns])
    order = np.argsort(neuron, kind="stable")
    neuron, part, block = neuron[order], part[order], block[order]
    relayed = split.splitters[neuron] > 0
    core = np.arange(int(relayed.sum())) // room
    to_core = np.unique(neuron[relayed] * n_cores + core)
    shape = (len(end), n_cores)
    ones = np.ones(len(to_core), dtype=np.int64)
    feeds = sparse.csr_array((ones, (to_core // n_cores, to_core % n_cores)), shape=shape)
    flows = [Flow(split.name, name, sparse.csr_array(member @ feeds))]
    for number, (target, found) in enumerate(parts):
        mine = part[relayed] == number
        n_blocks = found.shape[1]
        data = np.ones(int(mine.sum()), dtype=np.int64)
        ends = (core[mine], block[relayed][mine])
        flows.append(Flow(name, target, sparse.csr_array((data, ends), shape=(n_cores, n_blocks))))
        alone = ~relayed & (part == number)
        if alone.any():
            ends = (split.tiling.block_of[neuron[alone]], block[alone])
            data = np.ones(int(alone.sum()), dtype=np.int64)
            pairs = sparse.csr_array((data, ends), shape=(member.shape[0], n_blocks))
            flows.append(Flow(split.name, target, pairs))
    return flows


def pack(
    blocks: Mapping[str, list[Block]], rules: CoreRules
) -> tuple[dict[str, Integers], list[list[Block]]]:
    """Put blocks onto cores: each onto the first that has room for it.

    Returns
    -------
    core_of : dict of str to int64 array (n_blocks,)
        Core of each block, by population.
    cores : list of list of Block
    """
    keys = list(rules.limits)
    limit = np.array([rules.limits[key] for key in keys], dtype=np.int64)
    total = sum(len(of_one) for of_one in blocks.values())
    used = np.zeros((total, len(keys)), dtype=np.int64)
    cores: list[list[Block]] = []
    core_of = {}
    for name, of_one in blocks.items():
        place = np.zeros(len(of_one), dtype=np.int64)
        for i, block in enumerate(of_one):
            need = np.array([block.use.get(key, 0) for key in keys], dtype=np.int64)
            core = len(cores)
            if rules.shares_cores:
                room = (used[:core] + need <= limit).all(axis=1)
                core = int(room.argmax()) if room.any() else core
            if core == len(cores):
                cores.append([])
            used[core] += need
            cores[core].append(block)
            place[i] = core
        core_of[name] = place
    return core_of, cores
