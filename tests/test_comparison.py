"""Comparison: the first difference, its margin and its cause; ties told apart from faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.engines import SumsSimulation
from whetsim import layers as L
from whetsim.backends.exact import ExactBackend
from whetsim.connectivity import Dense
from whetsim.errors import SampleError
from whetsim.model import InputSpec, Model, Readout
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork
from whetsim.recording import Recording
from whetsim.sums import NetworkSums
from whetsim.testing.networks import dense_model, random_samples, ties_and_biases

Rasters = dict[str, NDArray[np.bool_]]
Decide = Callable[[SumsSimulation, NDArray[np.int32]], Rasters]


def run_with(network: SpikingNetwork, samples: Any, decide: Decide, **options: Any) -> Recording:
    """Run on an engine that decides as `decide` says."""

    class Engine(SumsSimulation):
        def rasters(self, values: NDArray[np.int32]) -> Rasters:
            return decide(self, values)

    class EngineBackend(ExactBackend):
        name = "engine"

        def build(self, network: SpikingNetwork, schedule: Any, **options: Any) -> Engine:
            return Engine(network, schedule)

    return EngineBackend().prepare(network).run(samples, record="rasters", **options)


def layer_by_layer(decide: Callable[[Population, NDArray[np.float64]], Any]) -> Decide:
    """Decide each population from its sums, and feed what was decided forward."""

    def rasters(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        sums = NetworkSums(engine.network).of(values, decide)
        return {p.name: decide(p, sums[p.name]) for p in engine.network.populations}

    return rasters


@pytest.fixture
def network() -> SpikingNetwork:
    return whetsim.map_to_spikes(dense_model(np.random.default_rng(1)))


@pytest.fixture
def samples(network: SpikingNetwork) -> NDArray[Any]:
    return random_samples(np.random.default_rng(2), network.input.samples, 50)


def test_equal_runs(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    truth = whetsim.run(network, samples, record="rasters")
    other = run_with(network, samples, layer_by_layer(lambda p, total: total >= p.threshold))
    result = whetsim.compare(truth, other, labels=np.zeros(50, dtype=int))
    assert result.n_differences == 0
    assert result.first is None
    assert result.n_predictions == 0
    assert result.accuracy is not None
    assert result.accuracy[0] == result.accuracy[1]
    assert "0 differing spikes" in str(result)


def test_strict_threshold_is_named_a_tie(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    truth = whetsim.run(network, samples, record="rasters")
    strict = run_with(network, samples, layer_by_layer(lambda p, total: total > p.threshold))
    result = whetsim.compare(truth, strict)
    assert result.n_differences > 0
    first = result.first
    assert first is not None
    assert first.population == "step_0"
    assert first.step == 1
    assert first.spikes == (True, False)
    assert first.v == 0.5
    assert first.margin == 0.0
    assert first.cause.startswith("tie: the sum equals the threshold")
    # It is the earliest sample, and in it the first neuron of the shallowest population.
    unequal = truth.raster("step_0") != strict.raster("step_0")
    assert (first.sample, first.neuron) == tuple(np.argwhere(unequal)[0])


def test_float32_sums_are_named_rounding() -> None:
    weight = np.array([[1.0], [2.0**-24 * 3], [-0.5 - 2.0**-23]], dtype=np.float64)
    model = Model(
        "m",
        InputSpec((3,)),
        (
            L.Dense(name="d", inputs=("input",), weight=weight),
            L.Step(name="s", inputs=("d",)),
        ),
    )
    network = whetsim.map_to_spikes(model)
    samples = np.ones((1, 3), dtype=int)
    truth = whetsim.run(network, samples, record="rasters")
    flipped = run_with(network, samples, layer_by_layer(lambda p, t: ~(t >= p.threshold)))
    first = whetsim.compare(truth, flipped).first
    assert first is not None
    assert first.margin is not None
    assert 0 < first.margin < 2.0**-22
    assert first.cause.startswith("rounding")


def coarse_network(weight: list[list[int]], exponent: int) -> SpikingNetwork:
    """Return a network as a chip would have it: few bits, written by hand."""
    matrix = np.array(weight)
    n_in, n_out = matrix.shape
    spec = InputSpec((n_in,))
    return SpikingNetwork(
        "coarse",
        InputPopulation((n_in,), 0, 1, "graded", spec),
        (Population("p", (n_out,), 1, np.zeros(n_out), np.full(n_out, exponent)),),
        (Projection("input", "p", Dense(matrix), 1),),
        "p",
    )


def test_wrapped_sum_is_named_overflow() -> None:
    network = coarse_network([[100], [100]], exponent=4)
    samples = np.array([[1, 1]])

    def wrap(population: Population, total: NDArray[np.float64]) -> Any:
        return (total + 128) % 256 - 128 >= population.threshold

    truth = whetsim.run(network, samples, record="rasters")
    first = whetsim.compare(truth, run_with(network, samples, layer_by_layer(wrap))).first
    assert first is not None
    assert first.cause == "overflow: the sum 200 does not fit 8 bits"


def test_late_spikes_are_named_wrong_step(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    truth = whetsim.run(network, samples, record="rasters")

    def late(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        right = layer_by_layer(lambda p, total: total >= p.threshold)(engine, values)
        return {name: np.roll(raster, 1, axis=0) for name, raster in right.items()}

    causes = set()
    for start in range(5):
        part = whetsim.run(network, samples[start:], record="rasters")
        first = whetsim.compare(part, run_with(network, samples[start:], late)).first
        assert first is not None
        causes.add(first.cause.partition(":")[0])
    assert "wrong step" in causes
    assert truth.n_samples == 50


def test_left_over_charge_is_named_leaked_state() -> None:
    network = coarse_network([[6, 0], [0, 6], [3, 3]], exponent=4)
    samples = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1]])

    def leak(population: Population, total: NDArray[np.float64]) -> Any:
        fired = np.zeros(total.shape, dtype=bool)
        left = np.zeros(total.shape[1])
        for i, row in enumerate(total):
            fired[i] = row + left >= population.threshold
            left = np.where(fired[i], 0, row)
        return fired

    truth = whetsim.run(network, samples, record="rasters")
    first = whetsim.compare(truth, run_with(network, samples, layer_by_layer(leak))).first
    assert first is not None
    assert (first.sample, first.neuron) == (1, 0)
    assert first.cause.startswith("leaked state")


def test_anything_else_is_unexplained_and_the_wrong_truth_is_noticed() -> None:
    network = coarse_network([[100, 2]], exponent=4)
    samples = np.array([[1]])
    truth = whetsim.run(network, samples, record="rasters")
    silent = run_with(network, samples, layer_by_layer(lambda p, t: np.zeros(t.shape, bool)))
    first = whetsim.compare(truth, silent).first
    assert first is not None
    assert first.cause.startswith("unexplained")
    swapped = whetsim.compare(silent, truth).first
    assert swapped is not None
    assert swapped.cause == "engine decided wrong; take the other run for the truth"


def test_place_in_a_map_is_named() -> None:
    from whetsim.testing.networks import conv_model

    network = whetsim.map_to_spikes(conv_model(np.random.default_rng(0)))
    samples = random_samples(np.random.default_rng(1), network.input.samples, 3)
    truth = whetsim.run(network, samples, record="rasters")

    def flip(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        rasters = SumsSimulation.rasters(engine, values)
        raster = rasters["c"].copy()
        raster[2, np.ravel_multi_index((4, 1, 3), (5, 5, 4))] ^= True
        return {**rasters, "c": raster}

    result = whetsim.compare(truth, run_with(network, samples, flip))
    assert result.differences["c"] == 1
    assert result.n_differences == 1
    assert result.first is not None
    assert result.first.coordinates == (4, 1, 3)
    assert "at (4, 1, 3)" in str(result.first)


def test_counts_alone_still_find_the_sample(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    from whetsim.registry import get_backend

    truth = get_backend("exact").prepare(network).run(samples)
    strict = run_with(network, samples, layer_by_layer(lambda p, total: total > p.threshold))
    result = whetsim.compare(truth, strict)
    assert not result.counted
    assert result.n_differences > 0
    assert result.first is not None
    assert result.first.neuron is None
    assert "record='rasters'" in result.first.cause
    assert "at least" in str(result)


def test_runs_that_do_not_fit(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    run = whetsim.run(network, samples)
    with pytest.raises(SampleError, match="50 and 49 samples"):
        whetsim.compare(run, whetsim.run(network, samples[:-1]))
    other = whetsim.map_to_spikes(ties_and_biases())
    with pytest.raises(SampleError, match="different populations"):
        whetsim.compare(run, whetsim.run(other, np.zeros((50, 4), dtype=int)))
    with pytest.raises(SampleError, match=r"needs spikes. Run with record='rasters'"):
        whetsim.compare_with_model(dense_model(np.random.default_rng(1)), run, samples)


def test_agreement_matrix(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    truth = whetsim.run(network, samples, record="rasters")
    strict = run_with(network, samples, layer_by_layer(lambda p, total: total > p.threshold))
    result = whetsim.agreement({"exact": truth, "again": truth, "strict": strict})
    wrong = whetsim.compare(truth, strict).n_differences
    assert result.matrix.tolist() == [[0, 0, wrong], [0, 0, wrong], [wrong, wrong, 0]]
    assert not result.agrees
    assert whetsim.agreement({"exact": truth, "again": truth}).agrees


def test_model_comparison_lists_ties_and_what_follows() -> None:
    # 0.1 + 0.2 + 0.2 is just above 0.5 in float32 and just below it on the grid's exact sum.
    weight = np.array([[0.1], [0.2], [0.2]], dtype=np.float32)
    exact = float(weight.astype(np.float64).sum())
    float32 = np.float32(0)
    for w in weight.ravel():
        float32 = np.float32(float32 + w)
    assert (exact >= 0.5) == (float32 >= 0.5)
    nudged = Model(
        "m",
        InputSpec((3,)),
        (
            L.Dense(name="d", inputs=("input",), weight=weight),
            L.Step(name="s", inputs=("d",), threshold=float(np.float32(exact))),
            L.Dense(name="e", inputs=("s",), weight=np.ones((1, 2), np.float32)),
            L.Step(name="t", inputs=("e",)),
        ),
        readout=Readout(key=np.array([[0, 0], [1, 1]], dtype=np.uint8)),
    )
    network = whetsim.map_to_spikes(nudged)
    samples = np.array([[1, 1, 1], [0, 0, 0]])

    def other_way(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        right = SumsSimulation.rasters(engine, values)
        first = right["s"].copy()
        first[0] ^= True
        return {"s": first, "t": np.repeat(first, 2, axis=1)}

    run = run_with(network, samples, other_way)
    result = whetsim.compare_with_model(nudged, run, labels=[1, 0])
    right = whetsim.compare_with_model(nudged, whetsim.run(network, samples, record="rasters"))
    wrong = result if result.n_differences else right
    assert wrong.differences == {"s": 1, "t": 2}
    assert [(t.sample, t.population, t.neuron) for t in wrong.ties] == [(0, "s", 0)]
    assert wrong.ties[0].margin <= wrong.ties[0].bound
    assert wrong.faults == ()
    assert wrong.n_predictions == 1
    assert "1 ties, 0 faults" in str(wrong)


def test_model_comparison_calls_a_fault_a_fault(
    network: SpikingNetwork, samples: NDArray[Any]
) -> None:
    model = dense_model(np.random.default_rng(1))

    def flip(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        rasters = SumsSimulation.rasters(engine, values)
        last = rasters["step_2"].copy()
        last[7, 2] ^= True
        return {**rasters, "step_2": last}

    sums = NetworkSums(network).of(samples.astype(np.int32))["step_2"][7, 2]
    assert sums != network["step_2"].threshold[2]
    result = whetsim.compare_with_model(model, run_with(network, samples, flip))
    assert [(f.sample, f.population, f.neuron) for f in result.faults] == [(7, "step_2", 2)]
    assert result.faults[0].margin > result.faults[0].bound
    assert "fault: sample 7, 'step_2' neuron 2" in str(result)


def test_margins_are_exact() -> None:
    network = whetsim.map_to_spikes(ties_and_biases())
    samples = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    result = whetsim.margins(network, samples)
    assert result.n_samples == 3
    assert result.smallest["a"] == 0.0
    assert result.histogram["a"].sum() == 3 * 6
    assert result.histogram["b"].sum() == 3 * 2
    # Neuron 4 stays 2^-20 below the threshold without input.
    quiet = whetsim.margins(network, samples[2:])
    from whetsim.margin import EDGES

    bin_ = np.searchsorted(EDGES, 2.0**-20, side="right") - 1
    assert quiet.histogram["a"][bin_] == 1
    assert quiet.share_below("a", 1e-9) == pytest.approx(1 / 6)  # bias 0.5 ties always
    empty = whetsim.margins(network, samples[:0])
    assert empty.smallest["a"] == np.inf


def test_runs_on_other_samples_are_refused(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    run = whetsim.run(network, samples)
    with pytest.raises(SampleError, match="the runs are on different samples"):
        whetsim.compare(run, whetsim.run(network, samples[::-1]))


def test_other_weights_are_named_as_the_cause() -> None:
    samples = np.array([[1], [0]])
    one = whetsim.run(coarse_network([[100, 2]], exponent=4), samples, record="rasters")
    two = whetsim.run(coarse_network([[100, 9]], exponent=4), samples, record="rasters")
    first = whetsim.compare(one, two).first
    assert first is not None
    assert first.cause.startswith("different networks")


def test_recordings_keep_their_own_samples(network: SpikingNetwork, samples: NDArray[Any]) -> None:
    given = samples.copy()
    run = whetsim.run(network, given, record="rasters")
    given[:] = 0
    assert run.samples is not None
    np.testing.assert_array_equal(run.samples, samples)


def test_a_wrong_pool_spike_is_a_fault() -> None:
    model = Model(
        "pool",
        InputSpec((4, 4, 1)),
        (
            L.Step(name="s", inputs=("input",)),
            L.MaxPool2D(name="p", inputs=("s",)),
            L.Flatten(name="f", inputs=("p",)),
            L.Dense(name="d", inputs=("f",), weight=np.zeros((4, 2), np.float32)),
            L.Step(name="t", inputs=("d",)),
        ),
    )
    network = whetsim.map_to_spikes(model)
    samples = random_samples(np.random.default_rng(0), model.input, 5)

    def flip(engine: SumsSimulation, values: NDArray[np.int32]) -> Rasters:
        rasters = SumsSimulation.rasters(engine, values)
        pooled = rasters["p"].copy()
        pooled[3, 1] ^= True
        return {**rasters, "p": pooled}

    result = whetsim.compare_with_model(model, run_with(network, samples, flip))
    assert [(f.sample, f.population, f.neuron) for f in result.faults] == [(3, "p", 1)]
    assert result.n_differences == 1


def test_model_comparison_uses_the_scale_that_was_mapped() -> None:
    model = dense_model(np.random.default_rng(1), high=255)
    integers = random_samples(np.random.default_rng(2), model.input, 60)
    finer = whetsim.map_to_spikes(model, input_bits=16)
    run = whetsim.run(finer, integers / 255.0, record="rasters")
    assert run.input_rounding < 1e-5
    assert whetsim.compare_with_model(model, run).faults == ()
    other = whetsim.map_to_spikes(model, input_scale=1 / 16)
    run = whetsim.run(other, integers, record="rasters")
    assert whetsim.compare_with_model(model, run).faults == ()


def test_model_comparison_refuses_what_it_cannot_judge() -> None:
    model = dense_model(np.random.default_rng(1), high=255)
    network = whetsim.map_to_spikes(model)
    samples = random_samples(np.random.default_rng(2), model.input, 5)
    binary = whetsim.run(network, samples, record="rasters", encoding="binary")
    with pytest.raises(SampleError, match="binary encoding lost the grey levels"):
        whetsim.compare_with_model(model, binary)
    run = whetsim.run(network, samples, record="rasters")
    with pytest.raises(SampleError, match="the run is of another network"):
        whetsim.compare_with_model(ties_and_biases(), run)
    with pytest.raises(SampleError, match=r"labels: shape \(3,\)"):
        whetsim.compare_with_model(model, run, labels=[0, 1, 2])
