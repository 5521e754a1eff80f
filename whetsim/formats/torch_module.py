"""PyTorch modules, read by way of an ONNX graph in memory."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from whetsim.errors import BackendNotInstalledError, FormatError, install_line, quote
from whetsim.formats.graph import Reading
from whetsim.formats.onnx.reader import read_message
from whetsim.model import Model

__all__ = ["from_torch"]


def from_torch(
    module: Any,
    example_input: Any,
    *,
    input_scale: float | None = None,
    input_range: tuple[int, int] | None = None,
    assume_sharp: bool = False,
) -> Model:
    """Return a trained PyTorch module as a network.

    Parameters
    ----------
    module : torch.nn.Module
        Ends with a step, or with an affine layer behind one. It is exported as in evaluation and
        left as it was.
    example_input : torch.Tensor
        Samples as the module takes them, the axis of the samples first; values do not matter.
    input_scale : float, optional
        What one unit of an integer sample is worth: 1/255 for a module that was trained on 8-bit
        images divided by 255.
    input_range : tuple of int, optional
        Smallest and largest value of a sample; by default 0 to ``1 / input_scale``.
    assume_sharp : bool
        Take activations that are nearly steps for steps, instead of refusing them.

    Returns
    -------
    Model
        Its layers have the names of the modules that make them.

    Raises
    ------
    FormatError
        If PyTorch cannot export the module, or the graph is more than affine layers, pools and
        steps; the text names the reason.
    BackendNotInstalledError
        If the package onnx is missing, or onnxscript with a torch that has no other exporter.

    Notes
    -----
    PyTorch has two exporters. The newer one (``torch.onnx.export(dynamo=True)``) is tried first: it
    follows ``torch.autograd.Function``, knows every way to write a step, ``torch.heaviside`` too,
    keeps module names, and refuses control flow that depends on values. It needs the package
    onnxscript. Without that, or where it fails, the older exporter follows, which records one run:
    it lacks ``torch.heaviside``, and whatever it would record wrongly is an error here.

    Examples
    --------
    >>> model = from_torch(net, torch.zeros(1, 1, 28, 28), input_scale=1 / 255)  # doctest: +SKIP
    """
    name = type(module).__name__
    # Whoever has a module has torch loaded; nothing here loads it.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(module, torch.nn.Module):
        raise FormatError(f"from_torch: the first argument must be a torch.nn.Module (got {name}).")
    try:
        import onnx
    except ImportError:
        raise BackendNotInstalledError(
            f"{name}: reading a PyTorch module needs the package onnx. Get it: "
            f"{install_line('formats')}"
        ) from None
    if not isinstance(example_input, torch.Tensor) or example_input.ndim < 2:
        raise FormatError(
            f"{name}: example_input must be a tensor of samples with the axis of the samples first "
            f"(got {quote(getattr(example_input, 'shape', type(example_input).__name__))})."
        )
    message = onnx.ModelProto.FromString(_exported(torch, module, example_input, name))
    reading = Reading(input_scale, input_range, assume_sharp)
    try:
        return read_message(message, reading, name=name)
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None


def _exported(torch: Any, module: Any, example: Any, name: str) -> bytes:
    """Return the module as an ONNX message, from the first exporter that manages it."""
    reasons: list[str] = []
    with _evaluating(module), torch.no_grad():
        for export in (_export_graph, _export_record):
            try:
                with _silence():
                    return export(torch, module, example)
            except ModuleNotFoundError as error:
                reasons.append(f"the package {error.name} is missing")
            except Exception as error:
                # Exporters raise anything; the first line says what.
                reasons.append(_first_line(error))
    if all(reason.startswith("the package") for reason in reasons):
        raise BackendNotInstalledError(f"{name}: {reasons[0]}. pip install onnx onnxscript")
    raise FormatError(
        f"{name}: PyTorch cannot export it ({'; '.join(dict.fromkeys(reasons))}). Make forward "
        "plain tensor operations, without control flow on values."
    )


def _export_graph(torch: Any, module: Any, example: Any) -> bytes:
    importlib.import_module("onnxscript")  # else torch fails later, with a longer text
    program = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
    return bytes(program.model_proto.SerializeToString())


def _export_record(torch: Any, module: Any, example: Any) -> bytes:
    buffer = io.BytesIO()
    # Before torch 2.5 there was no choice.
    known = inspect.signature(torch.onnx.export).parameters
    older = {"dynamo": False} if "dynamo" in known else {}
    with warnings.catch_warnings():
        # It warns where the record would hold for this example alone.
        warnings.filterwarnings("error", _WRONG_RECORD, torch.jit.TracerWarning)
        torch.onnx.export(module, (example,), buffer, verbose=False, **older)
    return buffer.getvalue()


_WRONG_RECORD = "Converting a tensor|Iterating over a tensor"


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put a module and all inside it in evaluation, then back as each was."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in before:
            inner.training = training


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the exporters print and log from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            _silent_files(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _silent_files() -> Iterator[None]:
    """Close standard output and error for code that is not Python."""
    try:
        copies = [(number, os.dup(number)) for number in (1, 2)]
    except OSError:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, _ in copies:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in copies:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else "no reason given"
    return f"{type(cause).__name__}: {text[:200]}"
