"""What emulated chips share: refusals with their numbers, effects, and declarations that hold."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from tests.hardware.clocked import integer_network, random_network
from whetsim.arithmetic import EmulationEffects
from whetsim.backend import Capabilities
from whetsim.errors import UnsupportedError
from whetsim.model import INPUT
from whetsim.registry import get_backend
from whetsim.testing.cases import CASES, case
from whetsim.testing.conformance import BackendConformance
from whetsim.testing.number_formats import at_the_limits, fate_of
from whetsim_hardware.emulate.common import chip_rule
from whetsim_hardware.emulate.loihi import LoihiBackend

CHIPS = ("loihi", "truenorth", "spinnaker", "odin")


@pytest.mark.parametrize(
    ("chip", "column", "threshold", "text"),
    [
        ("loihi", [1, 128], 1, r"weights from 'input' are too large \(needs 0..128; the chip"),
        ("loihi", [1, 127], 45_053, None),
        (
            "loihi",
            [1, *[32_512] * 2],
            45_053,
            r"thresholds .*needs .*45053; the chip has -8188",
        ),
        ("truenorth", [256, 1], 1, r"weights .*needs 0..256; the chip has -256..255\)"),
        ("truenorth", [1] * 257, 1, r"too many synapses .*needs 257; the chip has 256"),
        ("spinnaker", [1, -65_536], 1, r"weights .*needs -65536..1; the chip has -65535..65535"),
        ("odin", [1, 8], 1, r"weights .*needs 0..8; the chip has -7..7"),
        ("odin", [*[7] * 40, 1], 256, r"thresholds .*needs .*256; the chip has -1792..255"),
    ],
)
def test_what_does_not_fit_is_refused(
    chip: str, column: list[int], threshold: int, text: str | None
) -> None:
    weight = np.array(column)[:, None]
    network = integer_network(len(column), {"a": ({INPUT: weight}, [threshold])})
    if chip == "loihi" and column == [1, 128]:
        network = integer_network(2, {"a": ({INPUT: [[128, 1], [1, 128]]}, [1, 1])})
    backend = get_backend(chip)
    if text is None:
        backend.prepare(network).close()
        return
    with pytest.raises(UnsupportedError, match=f"^{chip}: population 'a': .*{text}") as caught:
        backend.prepare(network)
    advice = "Give each neuron fewer synapses" if "synapses" in text else "Quantize the network"
    assert advice in str(caught.value)


def test_thresholds_beyond_all_sums_do_not_matter() -> None:
    network = integer_network(2, {"a": ({INPUT: [[3, 1, -2], [1, -1, 1]]}, [10**9, -(10**9), 2])})
    rule = chip_rule(network, "a")
    assert rule.threshold.tolist() == [5, -1, 2]
    samples = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for chip in CHIPS:
        with get_backend(chip).prepare(network) as simulation:
            raster = simulation.run(samples, record="rasters").raster("a")
        assert raster.tolist() == [[False, True, False]] * 4, chip


def test_effects_are_those_of_the_last_run_whatever_its_blocks() -> None:
    weight = np.array([[32_512]] * 3 + [[1]])
    network = integer_network(4, {"quiet": ({INPUT: [[1]] * 4}, [1]), "a": ({INPUT: weight}, [1])})
    samples = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]])
    with get_backend("loihi").prepare(network) as simulation:
        assert simulation.effects is None
        whole = simulation.run(samples)
        effects = simulation.effects
        assert effects is not None and effects.total() == 3
        assert effects.counts["accumulator wraps"]["a"].tolist() == [3]
        assert effects.total("current wraps") == effects.total("membrane saturations") == 0
        assert str(effects) == (
            "effects in 5 samples:\n"
            "  accumulator wraps, a: 3 at 1 of 1 neurons, most at neuron 0 (3)"
        )
        simulation.block_values = 2 * (4 + 2)
        blocks = simulation.run(samples)
        assert simulation.effects.total() == 3
        assert np.array_equal(whole.digests["a"], blocks.digests["a"])
        simulation.run(samples[3:4])
        assert str(simulation.effects) == "no effects in 1 samples"
    assert effects.total() == 3 and isinstance(effects, EmulationEffects)


def test_sums_beyond_single_precision_are_exact() -> None:
    """300 weights of 2^15 are added up in double precision, and an odd one is not lost."""
    weight = np.array([[127 << 8]] * 600 + [[1]])
    network = integer_network(601, {"a": ({INPUT: weight}, [1])})
    samples = np.ones((2, 601), int)
    samples[1, -1] = 0
    total = samples @ weight[:, 0]
    assert total[0] > 2**24
    wrapped = (total + 2**15) % 2**16 - 2**15
    with get_backend("loihi").prepare(network) as simulation:
        raster = simulation.run(samples, record="rasters").raster("a")
    assert raster[:, 0].tolist() == (wrapped >= 1).tolist()


@pytest.mark.parametrize("chip", CHIPS)
def test_a_substantial_share_of_the_suite_runs(chip: str) -> None:
    numbers = get_backend(chip).capabilities.integers
    assert numbers is not None
    plain = [n for n in CASES if not case(n).network.input.is_graded]
    fates = [fate_of(numbers, case(n).network) for n in plain]
    assert fates.count("exact") == len(plain) == 10


class Stricter(LoihiBackend):
    """Declares one more than it holds."""

    name = "stricter"
    capabilities: ClassVar[Capabilities] = replace(
        LoihiBackend.capabilities,
        integers=replace(LoihiBackend.capabilities.integers, weight_max=128),  # type: ignore[type-var]
    )

    def rules(self, network):  # type: ignore[no-untyped-def]
        for population in network.populations:
            rule = chip_rule(network, population.name)
            if any((c.weight == 128).any() for _, c in rule.weights):
                raise UnsupportedError("stricter: population, needs, has, Quantize")
        return super().rules(network)


def test_a_backend_that_refuses_what_it_declares_fails_the_suite() -> None:
    numbers = Stricter.capabilities.integers
    assert numbers is not None
    suite = BackendConformance()
    limits = at_the_limits(numbers)["sums"]
    suite.check(LoihiBackend(), random_case(), "pipelined", "bitplane")
    with pytest.raises(UnsupportedError, match="stricter"):
        suite.check(Stricter(), limits, "pipelined", "bitplane")


def random_case():  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    network = random_network(rng, 100)
    return replace(case("smallest"), network=network, samples=rng.integers(0, 2, (4, 12)))
