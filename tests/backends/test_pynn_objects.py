"""Populations and projections of the PyNN backends are PyNN's own, and one can go on with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import whetsim
from whetsim.errors import BackendNotInstalledError
from whetsim.testing.cases import case
from whetsim.testing.checks import check_recording

pytestmark = pytest.mark.simulator

GAIN = {"pynn.nest": 1.0, "pynn.brian2": np.exp(36)}
"""How much larger weights are when pipelined, because of a decay before the test."""
DELAY_MS = {"pynn.nest": 0.0, "pynn.brian2": -0.5}
"""What a delay lacks of whole steps, because of the order of events in a step."""
UNIT = {"pynn.nest": 1e-3, "pynn.brian2": 1.0}
"""PyNN gives weights of these cells in volts on NEST, in millivolts on Brian2."""


@pytest.fixture(params=["pynn.nest", "pynn.brian2"])
def simulation(request: pytest.FixtureRequest) -> Iterator[Any]:
    try:
        prepared = whetsim.get_backend(request.param).prepare(case("every_delay").network)
    except BackendNotInstalledError as error:
        pytest.skip(str(error))
    with prepared as result:
        yield result


def matrices(simulation: Any, pre: str, post: str, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and delays that PyNN should have, NaN where there is no synapse."""
    network, name = simulation.network, simulation.backend.name
    weights = np.full((network.size_of(pre), network.size_of(post)), np.nan)
    delays = weights.copy()
    for p in network.projections:
        if (p.source, p.target) == (pre, post):
            for source, target, weight in p.connectivity.synapses():
                mine = weight * sign > 0
                place = source[mine], target[mine]
                real = network.real_weight(p, weight[mine], target[mine])
                weights[place] = real * GAIN[name] * UNIT[name]
                delays[place] = p.delay + DELAY_MS[name]
    return weights, delays


def test_they_are_of_pynn(simulation: Any) -> None:
    from pyNN.common import BasePopulation, Projection

    assert list(simulation.populations) == ["input", "a", "b", "c", "d"]
    for name, population in simulation.populations.items():
        assert isinstance(population, BasePopulation)
        assert population.label == name
    for population in simulation.network.populations:
        assert simulation.populations[population.name].size == population.size
    assert simulation.projections
    assert all(isinstance(p, Projection) for p in simulation.projections)
    assert simulation.sim.__name__ == f"pyNN.{simulation.backend.name.removeprefix('pynn.')}"


def test_projections_have_their_weights_and_delays(simulation: Any) -> None:
    seen = 0
    for projection in simulation.projections:
        if projection.pre.label == "bias":
            continue
        sign = 1 if projection.receptor_type == "excitatory" else -1
        pair = projection.pre.label, projection.post.label
        weights, delays = matrices(simulation, *pair, sign)
        n_synapses = int(np.isfinite(weights).sum())
        assert len(projection) == n_synapses > 0
        for what, expected in (("weight", weights), ("delay", delays)):
            found = projection.get(what, format="array")
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=f"{pair} {what}")
        if n_synapses > 1:  # PyNN cannot list a single synapse on Brian2
            listed = projection.get(["weight", "delay"], format="list")
            assert len(listed) == n_synapses
            for source, target, weight, delay in listed:
                place = int(source), int(target)
                assert weight == pytest.approx(weights[place], rel=1e-12)
                assert delay == delays[place]
        seen += n_synapses
    assert seen == simulation.network.n_synapses


def test_weights_are_as_if_connected_by_pynn(simulation: Any) -> None:
    """PyNN says the same of a projection that its own connector made."""
    projection = simulation.projections[0]
    found = projection.get(["weight", "delay"], format="list")
    name, sim = simulation.backend.name, simulation.sim
    weights, delays = matrices(simulation, projection.pre.label, projection.post.label, 1)
    places = [tuple(place) for place in np.argwhere(np.isfinite(weights)).tolist()]
    synapses = [(*place, weights[place] / UNIT[name], delays[place]) for place in places]
    connector = sim.FromListConnector(synapses, column_names=["weight", "delay"])
    other = sim.Projection(projection.pre, projection.post, connector, receptor_type="excitatory")
    # On NEST a projection lists all synapses between its cells, so every one is there twice.
    listed = {tuple(map(float, entry)) for entry in other.get(["weight", "delay"], format="list")}
    np.testing.assert_allclose(
        sorted(listed), sorted(tuple(map(float, entry)) for entry in found), rtol=1e-12
    )


def test_cells_have_their_parameters(simulation: Any) -> None:
    for population in simulation.network.populations:
        cells = simulation.populations[population.name]
        assert cells.celltype.__class__.__name__ == "IF_curr_delta"
        threshold = np.broadcast_to(cells.get("v_thresh"), (population.size,))
        assert threshold == pytest.approx(0.5 - population.half_grid_step, rel=1e-12)
        assert np.all(np.asarray(cells.get("v_rest")) == 0)


def test_a_pynn_user_can_go_on(simulation: Any) -> None:
    """Record v, drive the input by hand, run on, read spikes the usual way.

    (PyNN 0.13 cannot record v of these cells on NEST.)
    """
    busy = case("every_delay")
    sim, cells = simulation.sim, simulation.populations["a"]
    records_v = simulation.backend.name == "pynn.brian2"
    if records_v:
        cells.record("v")
    recording = simulation.run(busy.samples, record="rasters")
    check_recording(busy.expected("graded"), recording, simulation.backend.name)
    now = sim.get_current_time()
    trains = [now + 5.0, now + 8.0]
    simulation.populations["input"].set(spike_times=trains)
    sim.run(20.0)
    network = simulation.network
    (projection,) = [p for p in network.projections if (p.source, p.target) == ("input", "a")]
    sums = projection.connectivity.weight.sum(axis=0)  # pipelined, without the bias spike
    expected = sums >= network["a"].threshold
    counts = cells.get_spike_counts()
    assert [counts[i] for i in sorted(counts)] == [2 * int(fires) for fires in expected]
    segment = cells.get_data("spikes").segments[0]
    times = [[float(t) for t in train] for train in segment.spiketrains]
    assert times == [[t + 1 for t in trains] if fires else [] for fires in expected]
    if records_v:
        (v,) = cells.get_data("v").segments[0].filter(name="v")
        assert v.shape[1] == cells.size
