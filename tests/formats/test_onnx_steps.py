"""Every way to write a step, its tie checked against another ONNX runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whetsim
from tests.formats.onnx_graphs import computed, load, network, node, runtime
from whetsim import layers as L
from whetsim.errors import FormatError

GRID = np.arange(-16, 17, dtype=np.int64)[:, None].repeat(3, axis=1)
"""Samples of -4 to 4 in quarters: every threshold below is among them."""


def f32(*values: float) -> Any:
    return np.array(values if len(values) != 1 else values[0], np.float32)


HALF, ONE, ZERO, TWO = f32(0.5), f32(1.0), f32(0.0), f32(2.0)
CONSTANTS = {
    "half": HALF,
    "one": ONE,
    "zero": ZERO,
    "two": TWO,
    "ones": np.ones((1, 3), np.float32),
    "halves": np.full(3, 0.5, np.float32),
    "each": f32(0.5, -0.25, 1.0),
    "each1": f32([[0.5, -0.25, 1.0]]),
    "true": np.array(True),
    "false": np.array(False),
    "w": f32(2**-25),
    "steep": f32(2.0**25),
    "tenth": f32(0.125),
    "minus": f32(-1.0),
}


def chain(*ops: str) -> list[Any]:
    """Return nodes from lines 'output = Op inputs key=number'."""
    nodes = []
    for line in ops:
        output, _, call = line.partition(" = ")
        op, *rest = call.split()
        inputs = " ".join(word for word in rest if "=" not in word)
        pairs = (word.split("=") for word in rest if "=" in word)
        attributes = {k: float(v) if "." in v else int(v) for k, v in pairs}
        nodes.append(node(op, inputs, output, **attributes))
    return nodes


STEPS: dict[str, tuple[str, ...]] = {
    "x >= t": ("c = GreaterOrEqual x half", "y = Cast c to=1"),
    "x > t": ("c = Greater x half", "y = Cast c to=1"),
    "x < t": ("c = Less x half", "y = Cast c to=1"),
    "x <= t": ("c = LessOrEqual x half", "y = Cast c to=1"),
    "t >= x": ("c = GreaterOrEqual half x", "y = Cast c to=1"),
    "t > x": ("c = Greater half x", "y = Cast c to=1"),
    "t < x": ("c = Less half x", "y = Cast c to=1"),
    "t <= x": ("c = LessOrEqual half x", "y = Cast c to=1"),
    "not x < t": ("c = Less x half", "n = Not c", "y = Cast n to=1"),
    "not x >= t": ("c = GreaterOrEqual x half", "n = Not c", "y = Cast n to=1"),
    "where 1 0": ("c = GreaterOrEqual x half", "y = Where c one zero"),
    "where 0 1": ("c = GreaterOrEqual x half", "y = Where c zero one"),
    "where arrays": ("c = Greater x half", "z = Sub ones ones", "y = Where c ones z"),
    "where of less": ("c = Less x half", "y = Where c zero one"),
    "cast twice": ("c = GreaterOrEqual x half", "i = Cast c to=7", "y = Cast i to=1"),
    "cast to double": ("c = GreaterOrEqual x half", "i = Cast c to=11", "y = Cast i to=1"),
    "cast and multiply": ("c = Greater x half", "f = Cast c to=1", "y = Mul f ones"),
    "cast and add 0": ("c = Greater x half", "f = Cast c to=1", "y = Add f zero"),
    "relu of sign": ("d = Sub x half", "s = Sign d", "y = Relu s"),
    "clip of sign": ("d = Sub x half", "s = Sign d", "y = Clip s zero one"),
    "max of sign": ("d = Sub x half", "s = Sign d", "y = Max s zero"),
    "sign > 0": ("d = Sub x half", "s = Sign d", "c = Greater s zero", "y = Cast c to=1"),
    "sign >= 0": ("d = Sub x half", "s = Sign d", "c = GreaterOrEqual s zero", "y = Cast c to=1"),
    "sign != -1": ("s = Sign x", "c = Equal s minus", "n = Not c", "y = Cast n to=1"),
    "sign of relu": ("d = Sub x half", "s = Relu d", "y = Sign s"),
    "sign as bool": ("d = Sub x half", "s = Relu d", "c = Cast s to=9", "y = Cast c to=1"),
    "heaviside 1": (
        "d = Sub x half",
        "n = Less d zero",
        "a = Where n zero one",
        "e = Equal d zero",
        "y = Where e one a",
    ),
    "heaviside 0": (
        "d = Sub x half",
        "n = Less d zero",
        "a = Where n zero one",
        "e = Equal d zero",
        "y = Where e zero a",
    ),
    "ceil of clip": ("k = Clip x zero one", "y = Ceil k"),
    "floor of clip": ("k = Clip x zero one", "y = Floor k"),
    "round of clip": ("k = Clip x zero one", "y = Round k"),
    "round of min max": ("a = Max x zero", "b = Min a one", "y = Round b"),
    "cast of clip": ("k = Clip x zero one", "i = Cast k to=7", "y = Cast i to=1"),
    "clip of round": ("k = Clip x minus two", "r = Round k", "y = Clip r zero one"),
    "thresholded relu": ("t = ThresholdedRelu x alpha=0.5", "y = Sign t"),
    "straight through": (
        "c = GreaterOrEqual x half",
        "s = Cast c to=1",
        "d = Sub s x",
        "y = Add x d",
    ),
    "straight through a sigmoid": (
        "c = Greater x half",
        "s = Cast c to=1",
        "g = Sigmoid x",
        "d = Sub s g",
        "y = Add g d",
    ),
    "gradient times nothing": (
        "c = GreaterOrEqual x half",
        "s = Cast c to=1",
        "g = Sigmoid x",
        "gg = Mul g g",
        "n = Sub x x",
        "z = Mul gg n",
        "y = Add s z",
    ),
    "a constant switch": (
        "sharp = GreaterOrEqual one one",
        "c = GreaterOrEqual x half",
        "s = Cast c to=1",
        "k = Sigmoid x",
        "y = Where sharp s k",
    ),
    "and": (
        "a = GreaterOrEqual x half",
        "b = Greater x minus",
        "c = And a b",
        "y = Cast c to=1",
    ),
    "or with a constant": ("a = GreaterOrEqual x half", "c = Or a false", "y = Cast c to=1"),
    "xor with a constant": ("a = GreaterOrEqual x half", "c = Xor a true", "y = Cast c to=1"),
    "scaled before": ("a = Mul x two", "c = GreaterOrEqual a one", "y = Cast c to=1"),
    "scaled by -1 before": ("a = Neg x", "c = GreaterOrEqual a half", "y = Cast c to=1"),
    "divided and shifted before": (
        "a = Div x two",
        "b = Sub a half",
        "d = Add b one",
        "c = Greater d half",
        "y = Cast c to=1",
    ),
    "threshold for all units": ("c = GreaterOrEqual x halves", "y = Cast c to=1"),
    "a threshold each": ("c = GreaterOrEqual x each", "y = Cast c to=1"),
    "a threshold each, left": ("c = Greater each1 x", "y = Cast c to=1"),
    "a threshold each, subtracted": ("d = Sub x each", "s = Sign d", "y = Relu s"),
    "step of a step": (
        "k = Clip x zero one",
        "f = Floor k",
        "c = Greater f half",
        "y = Cast c to=1",
    ),
}
"""Their constants are in CONSTANTS."""


@pytest.mark.parametrize("form", STEPS)
def test_a_step_fires_as_in_another_runtime_ties_included(form: str, tmp_path: Path) -> None:
    model = network(chain(*STEPS[form]), (3,), CONSTANTS)
    loaded = load(model, tmp_path)
    steps = [layer for layer in loaded.layers if isinstance(layer, L.Step)]
    assert len(steps) == 1
    assert loaded.output == steps[0].name
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    assert 0 < wanted.mean() < 1
    # Straight-through sums are rounded; their meaning is the step.
    assert np.array_equal(computed(loaded, GRID), wanted.round(6))
    written_as = loaded.metadata["source"]["steps"][steps[0].name]
    assert "threshold" in written_as


@pytest.mark.parametrize("form", ["x >= t", "x > t", "x < t", "heaviside 0", "round of clip"])
def test_spikes_of_the_mapped_network_are_those_of_the_step(form: str, tmp_path: Path) -> None:
    weight = np.array([[1, 2, -1], [1, -1, 0], [0, 1, 1]], np.float32)
    nodes = [node("MatMul", "in weight", "x2"), *chain(*STEPS[form])]
    for entry in nodes:
        entry.input[:] = ["x2" if n == "x" else "x" if n == "in" else n for n in entry.input]
    model = network(nodes, (3,), CONSTANTS | {"weight": weight})
    loaded = load(model, tmp_path, input_range=(-16, 16))
    rng = np.random.default_rng(1)
    samples = rng.integers(-6, 7, (200, 3))
    wanted = runtime(model, samples.astype(np.float32) * np.float32(0.25))
    recording = whetsim.run(
        whetsim.map_to_spikes(loaded), samples, backend="exact", record="rasters"
    )
    assert np.array_equal(recording.raster(loaded.output), wanted.astype(bool))


TWO_LEVELS: dict[str, tuple[str, ...]] = {
    "-1 and 1": ("c = GreaterOrEqual x half", "y = Where c one minus"),
    "1 and -1": ("c = GreaterOrEqual x half", "y = Where c minus one"),
    "2 s - 1": ("c = Greater x half", "s = Cast c to=1", "t = Mul s two", "y = Sub t one"),
    "each unit its own": ("c = Greater x half", "y = Where c each one"),
    "each unit a factor": ("c = Greater x half", "s = Cast c to=1", "y = Mul s each"),
}


@pytest.mark.parametrize("form", TWO_LEVELS)
def test_a_step_between_other_levels_is_scaled(form: str, tmp_path: Path) -> None:
    model = network(chain(*TWO_LEVELS[form]), (3,), CONSTANTS)
    loaded = load(model, tmp_path)
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    scores = loaded.readout.scores(computed(loaded, GRID)) if loaded.readout else None
    assert scores is not None
    assert np.array_equal(scores, wanted)


SOFT_TIES: dict[str, tuple[str, ...]] = {
    "(sign + 1) / 2": ("d = Sub x half", "s = Sign d", "a = Add s one", "y = Div a two"),
    "sign * half + half": ("d = Sub x half", "s = Sign d", "a = Mul s half", "y = Add a half"),
}


@pytest.mark.parametrize("form", SOFT_TIES)
def test_a_value_between_for_a_tie_is_refused(form: str, tmp_path: Path) -> None:
    model = network(chain(*SOFT_TIES[form]), (3,), CONSTANTS)
    with pytest.raises(FormatError, match=r"node 's' .*a tie \(x = 0.5\) is 0.5, neither"):
        load(model, tmp_path)
    loaded = load(model, tmp_path, assume_sharp=True)
    got = computed(loaded, GRID)
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    ties = wanted == 0.5
    assert ties.sum() == 3
    assert np.array_equal(got[~ties], wanted[~ties])
    assert (got[ties] == 1).all()
    assert any("tie" in remark for remark in loaded.metadata["source"]["remarks"])


def test_a_sign_between_layers_is_refused_for_its_tie(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"\(x = 0\) is 0, neither -1 nor 1"):
        load(network(chain("y = Sign x"), (3,), CONSTANTS), tmp_path)


RAMPS: dict[str, tuple[str, ...]] = {
    "mul and add": ("d = Sub x half", "m = Mul d steep", "a = Add m half", "y = Clip a zero one"),
    "div": ("d = Sub x half", "m = Div d w", "a = Add m half", "y = Clip a zero one"),
    "min and max": (
        "d = Sub x half",
        "m = Div d w",
        "a = Add m half",
        "b = Min a one",
        "y = Max b zero",
    ),
    "relus": (
        "d = Sub x half",
        "m = Div d w",
        "a = Add m half",
        "r = Relu a",
        "s = Sub a one",
        "t = Relu s",
        "y = Sub r t",
    ),
    "swapped": ("d = Sub half x", "m = Div d w", "a = Sub half m", "y = Clip a zero one"),
}


@pytest.mark.parametrize("form", [form for form in RAMPS if form != "relus"])
def test_a_ramp_so_steep_that_only_a_tie_is_on_it(form: str, tmp_path: Path) -> None:
    model = network(chain(*RAMPS[form]), (3,), CONSTANTS)
    with pytest.raises(FormatError, match=r"a step but for its tie, where its value is 0.5"):
        load(model, tmp_path)
    loaded = load(model, tmp_path, assume_sharp=True)
    assert [type(layer) for layer in loaded.layers] == [L.Step]
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    assert np.array_equal(computed(loaded, GRID), np.where(wanted == 0.5, 1, wanted))


def test_steep_lines_that_cancel_are_refused_because_float32_loses_them(tmp_path: Path) -> None:
    model = network(chain(*RAMPS["relus"]), (3,), CONSTANTS)
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    on_paper = np.where(GRID == 2, 0.5, GRID > 2)
    assert (wanted != on_paper).mean() > 0.2
    with pytest.raises(FormatError, match="so float32 rounds away what is left"):
        load(model, tmp_path, assume_sharp=True)


@pytest.mark.parametrize("form", RAMPS)
def test_a_ramp_that_is_not_sharp_tells_its_sharpness(form: str, tmp_path: Path) -> None:
    constants = CONSTANTS | {"w": f32(0.125), "steep": f32(8.0)}
    model = network(chain(*RAMPS[form]), (3,), constants)
    with pytest.raises(FormatError, match=r"has sharpness 0.875 .*\. Finish sharpening, or"):
        load(model, tmp_path)
    loaded = load(model, tmp_path, assume_sharp=True)
    assert computed(loaded, GRID)[:, 0].tolist() == (GRID[:, 0] >= 2).tolist()


def test_a_hard_sigmoid_is_a_ramp(tmp_path: Path) -> None:
    nodes = [node("HardSigmoid", "x", "y", alpha=0.25, beta=0.5)]
    with pytest.raises(FormatError, match="it rises over a width of 4"):
        load(network(nodes, (3,)), tmp_path)
    loaded = load(network(nodes, (3,)), tmp_path, assume_sharp=True)
    assert computed(loaded, GRID)[:, 0].tolist() == (GRID[:, 0] >= 0).tolist()


def test_a_steep_sigmoid_passes_for_a_step_only_if_asked(tmp_path: Path) -> None:
    model = network(chain("d = Div x tenth", "y = Sigmoid d"), (3,), CONSTANTS)
    soft = load(model, tmp_path)
    assert [layer.kind for layer in soft.layers] == ["batch_norm", "activation"]
    sharp = load(model, tmp_path, assume_sharp=True)
    assert computed(sharp, GRID)[:, 0].tolist() == (GRID[:, 0] >= 0).tolist()
    assert "sigmoid of slope 8" in sharp.metadata["source"]["remarks"][0]


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh"])
def test_other_activations_stay_what_they_are(op: str, tmp_path: Path) -> None:
    model = network(chain(f"y = {op} x"), (3,))
    loaded = load(model, tmp_path)
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    np.testing.assert_allclose(computed(loaded, GRID), wanted, atol=1e-6)


NO_STEPS: dict[str, tuple[tuple[str, ...], str]] = {
    "three levels": (
        ("k = Clip x zero two", "y = Floor k"),
        r"changes at x = 1, 2; a step has one",
    ),
    "a window": (
        ("a = Abs x", "n = Neg a", "m = Max n minus", "k = Floor m", "y = Add k one"),
        "changes at x = 0; a step has one",
    ),
    "a leak": (("y = LeakyRelu x alpha=0.1",), "is no step"),
    "an unbounded rounding": (("y = Round x",), "rounds numbers that have no bounds"),
    "a square": (("y = Mul x x",), "multiplies a tensor with itself"),
    "a reciprocal": (("y = Div one x",), "divides by a tensor"),
    "a gate": (
        ("s = Sigmoid x", "y = Mul s x"),
        "multiplies two tensors that both depend on the input",
    ),
    "division by zero": (("y = Div x zero",), "divides by zero"),
    "a chosen tensor": (
        ("s = Sigmoid x", "c = Greater x half", "y = Where c s zero"),
        "chooses between tensors by another tensor",
    ),
    "an unknown operator": (("y = Erf x",), "operator 'Erf' is not supported"),
    "an exponential": (("y = Elu x",), "operator 'Elu' is not supported"),
    "a quantized operator": (("y = DynamicQuantizeLinear x",), "quantized operators"),
    "always true": (
        ("c = GreaterOrEqual x x", "y = Cast c to=1"),
        "the output does not depend on the input",
    ),
    "a choice that is none": (
        ("c = Equal x minus", "y = Where c x minus"),
        "does not depend on the input",
    ),
    "too many corners": (("m = Clip x zero big", "y = Floor m"), "more than 64"),
}


@pytest.mark.parametrize("form", NO_STEPS)
def test_what_is_no_step_is_refused_by_name(form: str, tmp_path: Path) -> None:
    lines, match = NO_STEPS[form]
    model = network(chain(*lines), (3,), CONSTANTS | {"big": f32(1000.0)})
    with pytest.raises(FormatError, match=match) as caught:
        load(model, tmp_path)
    assert str(caught.value).startswith("net.onnx: ")
    assert "\n" not in str(caught.value)


def test_one_step_read_twice_is_one_layer(tmp_path: Path) -> None:
    lines = chain(
        "c = GreaterOrEqual x half",
        "s = Cast c to=1",
        "b = Mul s two",
        "d = Sub b one",
        "m = MatMul d w3",
        "k = MatMul s w3",
        "a = Add m k",
        "q = Greater a one",
        "y = Cast q to=1",
    )
    w3 = np.arange(9, dtype=np.float32).reshape(3, 3) / 4
    model = network(lines, (3,), CONSTANTS | {"w3": w3})
    loaded = load(model, tmp_path)
    assert sum(isinstance(layer, L.Step) for layer in loaded.layers) == 2
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    assert np.array_equal(computed(loaded, GRID), wanted)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "float16"])
def test_samples_of_other_types_are_cast(dtype: str, tmp_path: Path) -> None:
    kinds = {"uint8": 2, "int32": 6, "float64": 11, "float16": 10}
    lines = chain("f = Cast x to=1", "d = Div f two", "c = GreaterOrEqual d one", "y = Cast c to=1")
    model = network(lines, (3,), CONSTANTS, kind=kinds[dtype])
    loaded = load(model, tmp_path, input_scale=1, input_range=(0, 8))
    samples = np.arange(9)[:, None].repeat(3, 1)
    wanted = runtime(model, samples.astype(dtype))
    assert np.array_equal(computed(loaded, samples), wanted)


def test_arithmetic_on_small_integers_is_refused(tmp_path: Path) -> None:
    model = network(chain("y = Add x c"), (3,), {"c": np.array(200, np.uint8)}, kind=2)
    with pytest.raises(FormatError, match=r"computes with type uint8. Cast to float32"):
        load(model, tmp_path, input_scale=1, input_range=(0, 255))


UNARY = ("Neg", "Abs", "Relu", "Sign", "Floor", "Ceil", "Round", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min")
COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
NUMBERS = {f"n{i}": f32(v) for i, v in enumerate((-2, -1, -0.5, 0.25, 0.5, 1, 1.5, 2))}


def random_chain(rng: np.random.Generator) -> list[Any]:
    """Return nodes that do random things to every unit; 'y' is the last."""
    names, nodes = ["x"], []
    for i in range(int(rng.integers(2, 9))):
        source, other = (names[int(rng.integers(len(names)))] for _ in range(2))
        number = f"n{int(rng.integers(len(NUMBERS)))}"
        second = other if rng.random() < 0.3 else number
        pair = f"{source} {second}" if rng.random() < 0.7 else f"{number} {source}"
        kind = rng.random()
        made = f"t{i}"
        if kind < 0.3:
            nodes.append(node(str(rng.choice(UNARY)), source, made))
        elif kind < 0.6:
            nodes.append(node(str(rng.choice(BINARY)), pair, made))
        elif kind < 0.7:
            nodes.append(node("Clip", f"{source} zero one", made))
        else:
            nodes.append(node(str(rng.choice(COMPARISONS)), pair, f"{made}c"))
            if rng.random() < 0.5:
                nodes.append(node("Cast", f"{made}c", made, to=1))
            else:
                nodes.append(node("Where", f"{made}c {source} {number}", made))
        names.append(made)
    nodes.append(node("Identity", names[-1], "y"))
    return nodes


def test_random_chains_that_load_compute_what_they_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    constants = CONSTANTS | NUMBERS
    n_loaded = n_steps = 0
    for _ in range(500):
        nodes = random_chain(rng)
        model = network(nodes, (3,), constants)
        try:
            loaded = load(model, tmp_path)
        except FormatError:
            continue
        wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
        got = computed(loaded, GRID)
        if loaded.readout is not None:
            got = loaded.readout.scores(got)
        assert np.array_equal(got, wanted), [(n.op_type, *n.input) for n in nodes]
        n_loaded += 1
        n_steps += any(isinstance(layer, L.Step) for layer in loaded.layers)
    assert n_loaded > 100 and n_steps > 40


def test_a_choice_between_a_number_and_itself_is_that_number(tmp_path: Path) -> None:
    lines = chain("c = Equal x minus", "m = Where c x minus", "s = Add x m", "y = Mul s two")
    model = network(lines, (3,), CONSTANTS)
    wanted = runtime(model, GRID.astype(np.float32) * np.float32(0.25))
    assert np.array_equal(computed(load(model, tmp_path), GRID), wanted)
