"""PyTorch modules by both of its exporters, layer by layer against PyTorch itself."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whetsim
from tests.formats.torch_networks import (
    FORMS,
    NETWORKS,
    NEWER_ALONE,
    Spike,
    activations,
    as_input,
    balanced,
    network,
    nn,
    torch,
)
from whetsim import layers as L
from whetsim.errors import BackendNotInstalledError, FormatError
from whetsim.formats import torch_module
from whetsim.reference import forward

pytest.importorskip("onnx", reason="reading ONNX needs the package onnx")

SCALE = 1 / 255
SAMPLES = np.random.default_rng(2).integers(0, 256, (60, 1, 8, 8)).astype(np.uint8)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel:UserWarning",
    "ignore:.*LeafSpec.*is deprecated:FutureWarning",
)
CLOSE = 1e-5
"""Margin within which float32 sums may fall on either side of a threshold."""


def needs_onnxscript() -> None:
    pytest.importorskip("onnxscript", reason="the newer exporter needs the package onnxscript")


def exported(module: Any, path: Path, exporter: str, batch: str) -> Path:
    """Write a module with one of PyTorch's exporters, its batch left open or fixed."""
    x = torch.zeros(3, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "newer":
            needs_onnxscript()
            open_axes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if batch == "open" else {}
            program = torch.onnx.export(module, (x,), dynamo=True, verbose=False, **open_axes)
            program.save(path)
        else:
            open_axes = {"dynamic_axes": {"x": {0: "n"}}} if batch == "open" else {}
            torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], **open_axes)
    return path


def in_file_order(values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[Any]:
    """Return values with the channels where PyTorch has them."""
    if wanted.ndim > 2:
        moved = np.moveaxis(wanted, 1, -1)
        values = np.moveaxis(values.reshape(moved.shape), -1, 1)
    return values.reshape(wanted.shape)


def check(model: whetsim.Model, module: Any, n_ties: int = 2) -> None:
    """Check a model against the module: every step module, every spike, every score."""
    before, after = activations(module, as_input(SAMPLES))
    ours = forward(model, SAMPLES)
    recording = whetsim.run(
        whetsim.map_to_spikes(model), SAMPLES, backend="exact", record="rasters"
    )
    given = {}
    n_different = 0
    for name in [name for name in after if name in ours]:
        wanted = after[name]
        assert isinstance(model[name], L.Step)
        assert 0.05 < wanted.mean() < 0.95
        spikes = recording.raster(name).reshape(ours[name].shape)
        for got in (ours[name], spikes):
            different = in_file_order(got, wanted) != wanted
            near = np.abs(before[name] - 0.5) < CLOSE
            assert not (different & ~near).any(), name
            n_different += int(different.sum())
        given[name] = ours[name]
    assert n_different <= n_ties
    assert set(given) == set(before)
    final = after[""]
    if model.readout is None:
        assert np.array_equal(in_file_order(ours[model.output], final), final)
    else:
        scores = model.readout.scores(ours[model.output].reshape(len(SAMPLES), -1))
        if isinstance(list(module.modules())[-1], nn.LogSoftmax):
            scores -= np.log(np.exp(scores).sum(1, keepdims=True))
        np.testing.assert_allclose(scores, final, atol=1e-4)
        assert np.array_equal(recording.predictions, final.argmax(1))


MAPS = [name for name in NETWORKS if name != "functional"]
EXPORTS = [("older", batch, name) for batch in ("open", "fixed") for name in MAPS]
# The newer exporter is slow; `from_torch` has it for every network below.
EXPORTS += [("newer", "open", name) for name in ("pools", "residual")]


@pytest.mark.parametrize(("exporter", "batch", "name"), EXPORTS)
def test_exported_networks(name: str, exporter: str, batch: str, tmp_path: Path) -> None:
    module = network(name)
    path = exported(module, tmp_path / "net.onnx", exporter, batch)
    check(whetsim.load(path, input_scale=SCALE), module)


@pytest.mark.parametrize("name", MAPS)
def test_modules_in_memory(name: str) -> None:
    module = network(name)
    model = whetsim.from_torch(module, torch.zeros(1, 1, 8, 8), input_scale=SCALE)
    assert model.name == type(module).__name__
    check(model, module)


@pytest.mark.parametrize("exporter", ["newer", "older"])
def test_steps_that_are_no_modules(exporter: str, tmp_path: Path) -> None:
    module = network("functional")
    model = whetsim.load(
        exported(module, tmp_path / "net.onnx", exporter, "open"), input_scale=SCALE
    )
    steps = [layer.name for layer in model.layers if isinstance(layer, L.Step)]
    assert len(steps) == 2
    assert model["conv"].kind == "conv2d" and model["fc"].kind == "dense"
    with torch.no_grad():
        wanted = module(as_input(SAMPLES)).numpy()
    assert (forward(model, SAMPLES)[model.output] != wanted).sum() <= 1
    recording = whetsim.run(
        whetsim.map_to_spikes(model), SAMPLES, backend="exact", record="rasters"
    )
    assert (recording.raster(model.output) != wanted).sum() <= 1


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave `from_torch` the older exporter, which is faster."""
    monkeypatch.setattr(torch_module, "_export_graph", missing)


def missing(*_: Any) -> bytes:
    raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")


@pytest.mark.parametrize("n_samples", [0, 1, 5])
def test_few_samples_and_zeros(n_samples: int, older: None) -> None:
    module = network("convolutional")
    model = whetsim.from_torch(module, torch.zeros(2, 1, 8, 8), input_scale=SCALE)
    samples = np.zeros((n_samples, 1, 8, 8), np.uint8)
    recording = whetsim.run(
        whetsim.map_to_spikes(model), samples, backend="exact", record="rasters"
    )
    with torch.no_grad():
        wanted = module(as_input(samples)).numpy()
    assert recording.predictions.tolist() == wanted.argmax(1).tolist()


@pytest.mark.parametrize("exporter", ["newer", "older"])
def test_every_form_of_a_step_with_its_ties(exporter: str, tmp_path: Path) -> None:
    forms = [form for form in FORMS if exporter == "newer" or form not in NEWER_ALONE]
    module = EveryForm(forms)
    model = whetsim.load(
        exported(module, tmp_path / "net.onnx", exporter, "fixed"),
        input_scale=1,
        input_range=(0, 3),
    )
    samples = SAMPLES.astype(np.int64) % 4
    with torch.no_grad():
        x = torch.tensor(samples.astype(np.float32))
        pre = module.dense(x.flatten(1)).numpy()
        wanted = module(x).numpy().reshape(len(x), len(forms), 3)
    ties = pre == 0.5
    assert ties.sum() > 10
    # A sum with a detached difference is rounded; its meaning is the step.
    wanted = wanted.round(4)
    computed = forward(model, samples)[model.output]
    recording = whetsim.run(
        whetsim.map_to_spikes(model), samples, backend="exact", record="rasters"
    )
    for got in (computed, recording.raster(model.output)):
        for i, form in enumerate(forms):
            spikes = got.reshape(wanted.shape)[:, i]
            assert np.array_equal(spikes, wanted[:, i]), form
            assert set(spikes[ties].tolist()) == {form not in STRICT}, form


STRICT = ("strict comparison", "strict heaviside", "relu of sign", "round of clamp")


class EveryForm(nn.Module):  # type: ignore[misc]
    """Steps in several forms that read the same numbers, and a layer that reads them all."""

    def __init__(self, forms: list[str]) -> None:
        super().__init__()
        self.dense = nn.Linear(64, 3)
        self.steps = nn.ModuleList(Spike(form) for form in forms)
        self.last = Spike()
        with torch.no_grad():
            # Quarters of whole numbers: sums are exact, and many are the threshold.
            few = torch.arange(64) % 9 == 0
            self.dense.weight.copy_(torch.tensor([1.0, -1, 1])[:, None] * few / 4)
            self.dense.bias.copy_(torch.tensor([-2.5, 3.5, -3.0]))

    def forward(self, x: Any) -> Any:
        x = self.dense(x.flatten(1))
        return self.last(torch.cat([step(x) for step in self.steps], dim=1))


@pytest.fixture(params=["newer", "older"])
def one_exporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leave `from_torch` one of the exporters."""
    if request.param == "newer":
        needs_onnxscript()
        monkeypatch.setattr(torch_module, "_export_record", missing)
    else:
        monkeypatch.setattr(torch_module, "_export_graph", missing)
    return str(request.param)


def test_either_exporter_alone_is_enough(one_exporter: str) -> None:
    module = network("residual")
    check(whetsim.from_torch(module, torch.zeros(1, 1, 8, 8), input_scale=SCALE), module)


def test_the_module_is_left_as_it_was(one_exporter: str) -> None:
    module = network("pools").train()
    module[2].eval()
    flags = [inner.training for inner in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    whetsim.from_torch(module, torch.rand(4, 1, 8, 8), input_scale=SCALE)
    assert [inner.training for inner in module.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert torch.is_grad_enabled()


def test_nothing_is_printed_logged_or_left_on_disk(
    one_exporter: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whetsim.from_torch(network("dense"), torch.zeros(1, 1, 8, 8), input_scale=SCALE)
        with pytest.raises(FormatError):
            whetsim.from_torch(Cumulative(), torch.zeros(1, 4), input_scale=SCALE)
    out, err = capfd.readouterr()
    # Records of its own that no handler shows.
    heard = [record for record in caplog.records if record.name != "torch.__trace"]
    assert (out, err, heard, list(tmp_path.iterdir())) == ("", "", [], [])
    assert logging.root.manager.disable == disabled
    print("still heard")
    assert capfd.readouterr().out == "still heard\n"


class Cumulative(nn.Module):  # type: ignore[misc]
    """What no exporter knows."""

    def forward(self, x: Any) -> Any:
        return torch.cummax(x, 1)[0]


class Branching(nn.Module):  # type: ignore[misc]
    """Control flow that depends on values: no graph holds it."""

    def forward(self, x: Any) -> Any:
        return (x >= 0.5).float() if x.sum() > 0 else (x >= 0.25).float()


class Broken(nn.Module):  # type: ignore[misc]
    """A module that fails by itself."""

    def forward(self, x: Any) -> Any:
        raise RuntimeError("no such\nthing")


@pytest.mark.parametrize("kind", [Branching, Broken, Cumulative])
def test_what_cannot_be_exported_is_one_clear_line(kind: Any, one_exporter: str) -> None:
    module = kind()
    with pytest.raises(FormatError, match=f"^{type(module).__name__}: ") as caught:
        whetsim.from_torch(module, torch.zeros(1, 4), input_scale=SCALE)
    assert "\n" not in str(caught.value)


def test_other_activations_are_named(older: None) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))
    match = r"^Sequential: node '1[.\w]*' \(\w+\): operator '\w+' is not"
    with pytest.raises(FormatError, match=match):
        whetsim.from_torch(module, torch.zeros(1, 4), input_scale=SCALE)


def test_an_unfinished_network_tells_its_sharpness(older: None) -> None:
    class Ramp(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return torch.clamp((x - 0.5) / 0.25 + 0.5, 0, 1)

    module = nn.Sequential(nn.Linear(4, 3), Ramp())
    with pytest.raises(FormatError, match=r"^Sequential: node '1' .* sharpness 0.75 "):
        whetsim.from_torch(module, torch.zeros(1, 4), input_scale=SCALE)
    model = whetsim.from_torch(module, torch.zeros(1, 4), input_scale=SCALE, assume_sharp=True)
    assert isinstance(model["1"], L.Step)


def test_the_range_of_the_input_is_the_callers(older: None) -> None:
    module = nn.Sequential(nn.Linear(4, 3), Spike())
    model = whetsim.from_torch(module, torch.zeros(1, 4), input_scale=0.5, input_range=(-3, 7))
    assert (model.input.low, model.input.high, model.input.scale) == (-3, 7, 0.5)
    with pytest.raises(FormatError, match=r"Sequential: input: .*Give input_scale"):
        whetsim.from_torch(module, torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("net.pt", None), "first argument must be a torch.nn.Module"),
        ((nn.Linear(4, 3), (4,)), "example_input must be a tensor"),
        ((nn.Linear(4, 3), torch.zeros(4)), "axis of the samples first"),
    ],
)
def test_wrong_arguments(arguments: Any, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        whetsim.from_torch(*arguments, input_scale=1)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendNotInstalledError, match=r"needs the package onnx. Get it: pip"):
        whetsim.from_torch(nn.Linear(4, 3), torch.zeros(1, 4), input_scale=1)


def test_importing_whetsim_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, whetsim; whetsim.from_torch; print({'torch', 'onnx'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("old", [True, False])
def test_weights_are_refused_with_advice(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    module = nn.Linear(4, 3)
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not old)
    with pytest.raises(FormatError, match=r"whetsim.from_torch\(module, example_input\) or torch"):
        whetsim.load(path)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(FormatError, match=r"zip archive of PyTorch .* no graph"):
        whetsim.load(path)


def test_large_weights_beside_the_file(tmp_path: Path) -> None:
    needs_onnxscript()
    module = balanced(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 700), Spike(), nn.Linear(700, 3)),
        as_input(SAMPLES),
    )
    program = torch.onnx.export(module, (torch.zeros(1, 1, 8, 8),), dynamo=True, verbose=False)
    program.save(tmp_path / "net.onnx", external_data=True)
    assert (tmp_path / "net.onnx.data").stat().st_size > 100_000
    check(whetsim.load(tmp_path / "net.onnx", input_scale=SCALE), module)
