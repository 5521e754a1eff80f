"""How samples become input events, and how the network changes with the encoding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whetsim.errors import SampleError, did_you_mean
from whetsim.network import ENCODINGS, Encoding, InputPopulation, Projection, SpikingNetwork

__all__ = ["encode_network", "encode_samples", "to_integers"]


def encode_network(
    network: SpikingNetwork, encoding: Encoding, level: int | None = None
) -> SpikingNetwork:
    """Return the network that reads its samples in another encoding.

    Parameters
    ----------
    network : SpikingNetwork
        As mapped, with graded input.
    encoding : str
        ``graded``: one event per non-zero value, carrying it. ``bitplane``: one neuron per value
        and bit, with weights times 2^bit (two's complement if values may be negative); exact.
        ``binary``: a value spikes if it is >= `level`, and then stands for the largest value;
        it loses the grey levels.
    level : int, optional
        For ``binary``; the middle of the range by default.

    Returns
    -------
    SpikingNetwork
        The same network if its input is 0/1 spikes already.

    Raises
    ------
    SampleError
        If the encoding is unknown, or `level` is given without ``binary``.
    """
    if encoding not in ENCODINGS:
        raise SampleError(
            f"no encoding named {encoding!r}; there are: {', '.join(ENCODINGS)}."
            f"{did_you_mean(encoding, ENCODINGS)}"
        )
    source = network.input
    if level is not None:
        if encoding != "binary":
            raise SampleError(f"level is for the binary encoding (got encoding {encoding!r}).")
        whole = isinstance(level, (int, np.integer)) and not isinstance(level, bool)
        if not source.is_graded or not whole or not source.low < level <= source.high:
            raise SampleError(
                f"level is {level!r}; need a whole number in {source.low + 1}..{source.high}, for "
                "a network that reads more than 0 and 1."
            )
    if encoding == "graded" or not source.is_graded:
        return network
    if encoding == "binary":
        middle = (source.low + source.high + 1) // 2
        factors = np.array([source.high], dtype=np.int64)
        source = replace(
            source, low=0, high=1, encoding="binary", level=middle if level is None else level
        )
    else:
        factors = bit_factors(source)
        shape = (*source.shape[:-1], source.shape[-1] * len(factors))
        source = replace(source, shape=shape, low=0, high=1, encoding="bitplane")
    projections = tuple(
        Projection(p.source, p.target, p.connectivity.spread(factors), p.delay)
        if p.source == source.name
        else p
        for p in network.projections
    )
    return replace(
        network,
        input=source,
        projections=projections,
        graded_fingerprint=network.graded_fingerprint,
    )


def bit_factors(source: InputPopulation) -> NDArray[np.int64]:
    """Return what each bit of an input value is worth, lowest first; the sign bit is negative."""
    low, high = source.samples.low, source.samples.high
    bits = max(high, -low - 1, 1).bit_length()
    factors = np.left_shift(np.int64(1), np.arange(bits))
    return np.append(factors, -(np.int64(1) << bits)) if low < 0 else factors


def to_integers(
    samples: ArrayLike, source: InputPopulation, input_scale: float | None = None
) -> NDArray[Any]:
    """Check samples and return them as integers ``(n_samples, n_values)``.

    Parameters
    ----------
    samples : array (n_samples, ...)
        Integers in the input range; each sample flattens to the input shape. Floats are taken only
        with `input_scale`, or if the network was mapped with ``input_bits``.
    source : InputPopulation
    input_scale : float, optional
        Samples are floats and every one is a whole multiple of this.

    Raises
    ------
    SampleError
        If shape, type or range do not fit; the text names the first bad sample.
    """
    try:
        array = np.asarray(samples)
    except ValueError:
        raise SampleError("samples: of unequal shapes. Give one array of numbers.") from None
    spec = source.samples
    if array.ndim == 0 or array.dtype.kind not in "buif":
        raise SampleError(
            f"samples: {array.dtype} of shape {array.shape} (need numbers, samples along the "
            "first axis)."
        )
    if array.shape[1:] != spec.shape and np.prod(array.shape[1:], dtype=np.int64) != spec.size:
        one = " Give one sample as samples[None]." if array.size == spec.size else ""
        raise SampleError(
            f"samples: one sample has shape {array.shape[1:]}; the network reads {spec.shape}, "
            f"{spec.size} values.{one}"
        )
    # Maps with the channels first would flatten into another order without a word.
    if len(spec.shape) == array.ndim - 1 == 3 and array.shape[1:] != spec.shape:
        raise SampleError(
            f"samples: one sample has shape {array.shape[1:]}; the network reads {spec.shape}. "
            "Put the axes in that order (maps are height, width, channels)."
        )
    array = array.reshape(len(array), spec.size)
    if array.dtype.kind == "f":
        array = _from_floats(array, source, input_scale)
    elif input_scale is not None:
        raise SampleError(f"samples: input_scale is for floats (got {array.dtype}).")
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    if array.size and (int(array.min()) < spec.low or int(array.max()) > spec.high):
        bad = (array < spec.low) | (array > spec.high)
        sample, place = (int(i) for i in np.argwhere(bad)[0])
        raise SampleError(
            f"samples: sample {sample}, value {place} is {array[sample, place]}; the network reads "
            f"{spec.low}..{spec.high}."
        )
    return array


def _from_floats(
    array: NDArray[Any], source: InputPopulation, input_scale: float | None
) -> NDArray[np.int64]:
    spec = source.samples
    if not np.isfinite(array).all():
        raise SampleError("samples: some are NaN or infinite.")
    if input_scale is None and not source.rounds:
        raise SampleError(
            f"samples: floats ({array.dtype}). Give whole numbers {spec.low}..{spec.high}, or say "
            f"input_scale={spec.scale:.6g} if they are whole multiples of it, or map with "
            "input_bits=16 to have them rounded."
        )
    if input_scale is not None and not np.isclose(input_scale, spec.scale, rtol=1e-6, atol=0):
        raise SampleError(
            f"samples: input_scale is {input_scale:.9g}, but the network was trained with "
            f"{spec.scale:.9g}. Map with map_to_spikes(model, input_scale=...) to change it."
        )
    scaled = array.astype(np.float64) / spec.scale
    whole = np.rint(scaled)
    if array.size and not -(2.0**31) < whole.min() <= whole.max() < 2.0**31:
        raise SampleError(
            f"samples: values up to {float(np.abs(array).max()):.6g}; the network reads "
            f"{spec.low * spec.scale:.6g}..{spec.high * spec.scale:.6g}."
        )
    if source.rounds:
        # The ends of the range may lie half a step outside the grid.
        inside = (scaled >= spec.low - 0.5) & (scaled <= spec.high + 0.5)
        whole = np.where(inside, np.clip(whole, spec.low, spec.high), whole)
    else:
        # What float32 (or the floats at hand) may have lost, nothing more.
        room = np.minimum(np.abs(scaled) * 4 * np.finfo(array.dtype).eps, 0.01)
        off = np.abs(scaled - whole) > room
        if off.any():
            sample, place = (int(i) for i in np.argwhere(off)[0])
            raise SampleError(
                f"samples: sample {sample}, value {place} is {float(array[sample, place])!r}, no "
                f"whole multiple of {spec.scale:.9g}. Map with input_bits=16 to have samples "
                "rounded."
            )
    return whole.astype(np.int64)


def rounding_of(samples: ArrayLike, integers: NDArray[Any], source: InputPopulation) -> float:
    """Return by how much rounding moved a float sample at most; 0.0 for integers."""
    array = np.asarray(samples)
    if array.dtype.kind != "f" or not array.size:
        return 0.0
    exact = integers * source.samples.scale
    return float(np.abs(array.reshape(exact.shape) - exact).max())


def encode_samples(integers: NDArray[Any], source: InputPopulation) -> NDArray[np.int32]:
    """Return the value of every input event, ``(n_samples, n_input_neurons)``; 0 is no event."""
    values = integers.astype(np.int32, copy=False)
    if source.encoding == "bitplane":
        n_bits = len(bit_factors(source))
        planes = (values[:, :, None] >> np.arange(n_bits)) & 1
        return planes.reshape(len(values), -1).astype(np.int32)
    if source.encoding == "binary":
        assert source.level is not None
        return (values >= source.level).astype(np.int32)
    return values
