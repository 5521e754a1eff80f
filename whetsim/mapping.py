"""From a trained `Model` to a `SpikingNetwork`: same spikes, one step per layer, on the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whetsim import layers as L
from whetsim.affine import (
    Affine,
    Conv,
    Matrix,
    Operator,
    Pick,
    as_matrix,
    cells_in_windows,
    volume_matrix,
)
from whetsim.connectivity import Connectivity, Convolution, Dense, Geometry, Listed, narrow
from whetsim.errors import MappingError
from whetsim.grid import choose_exponents, to_grid
from whetsim.layers import Shape
from whetsim.model import INPUT, InputSpec, Model
from whetsim.network import InputPopulation, Population, Projection, SpikingNetwork

__all__ = ["map_to_spikes"]

Floats = NDArray[np.float64]
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Max pools on a value that is no 0/1 map yet; they move behind the step that must follow.

    A step s is monotone, so ``s(max(x)) = max(s(x))``, an OR. Where a negative scale stands between
    pool and step it is ``min``, an AND.
    """

    before: Affine
    """The value in front of the first pool, with all scales and shifts applied to it."""
    pools: tuple[L.MaxPool, ...]
    reads: tuple[Shape, ...]
    """The shape that each pool reads; a reshape may stand between two pools."""
    signs: tuple[Floats, ...]
    """For each pool, per channel, the sign of the scales behind it."""
    shape: Shape
    """Shape behind the last pool."""


def map_to_spikes(
    model: Model, *, input_scale: float | None = None, input_bits: int | None = None
) -> SpikingNetwork:
    """Map a trained network onto integrate-and-fire neurons.

    Batch norm, average pools, reshapes and several affine layers in a row are folded into the
    projections (in float64); a max pool becomes an OR population; a threshold other than 0.5 moves
    into the bias. Populations are named after the step layers they come from.

    Parameters
    ----------
    model : Model
    input_scale : float, optional
        What one unit of an integer sample is worth, in place of ``model.input.scale``.
    input_bits : int, optional
        Take real-valued samples, rounded to ``2^input_bits`` levels over the model's input range.

    Returns
    -------
    SpikingNetwork

    Raises
    ------
    MappingError
        If a layer has no exact spiking counterpart; the text names the layer and the reason.
    """
    if not isinstance(model, Model):
        raise MappingError(
            f"map_to_spikes: needs a Model (got {type(model).__name__}). Load a file first: "
            "whetsim.load(path)."
        )
    spec, rounds = _input_spec(model.input, input_scale, input_bits)
    builder = _Builder(model, spec)
    source = InputPopulation(spec.shape, spec.low, spec.high, "graded", spec, rounds=rounds)
    is_binary = (spec.low, spec.high, spec.scale) == (0, 1, 1.0)
    image = Affine.of_population(INPUT, spec.shape, is_binary)
    if not is_binary:
        image = image.times(np.full(spec.size, spec.scale))
    values: dict[str, Affine | _Pooled] = {INPUT: image}
    # Weights too large to add up are refused by name below, not warned of by numpy.
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in model.layers:
            values[layer.name] = builder.value_of(layer, [values[i] for i in layer.inputs])
    output = _output_population(model, values[model.output])
    populations = sorted(builder.populations.values(), key=lambda p: p.depth)
    depth = {INPUT: 0, **{p.name: p.depth for p in populations}}
    projections = tuple(
        Projection(source, target, connectivity, depth[target] - depth[source])
        for source, target, connectivity in builder.projections
    )
    return SpikingNetwork(
        name=model.name,
        input=source,
        populations=tuple(populations),
        projections=projections,
        output=output,
        readout=model.readout,
    )


def _output_population(model: Model, value: Affine | _Pooled) -> str:
    if isinstance(value, Affine) and len(value.terms) == 1:
        ((source, op),) = value.terms
        if source != INPUT and isinstance(op, Pick) and op.is_identity and value.is_binary:
            return source
    raise MappingError(
        f"layer {model.output!r}: the output is a {model[model.output].kind}, not a step, so it "
        "has no spikes. End the network with a step; decode its spikes with a readout key."
    )


def _input_spec(spec: InputSpec, scale: float | None, bits: int | None) -> tuple[InputSpec, bool]:
    if bits is not None:
        if scale is not None:
            raise MappingError("give input_scale or input_bits, not both.")
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 24:
            raise MappingError(f"input_bits must be a whole number in 1..24 (got {bits!r}).")
        step = (spec.high - spec.low) * spec.scale / (2**bits - 1)
        low = round(spec.low * spec.scale / step)
        return InputSpec(spec.shape, low, low + 2**bits - 1, step), True
    return (spec if scale is None else replace(spec, scale=scale)), False


class _Builder:
    def __init__(self, model: Model, spec: InputSpec) -> None:
        self.model = model
        self.spec = spec
        self.populations: dict[str, Population] = {}
        self.projections: list[tuple[str, str, Connectivity]] = []

    def value_of(self, layer: L.Layer, inputs: list[Affine | _Pooled]) -> Affine | _Pooled:
        """Return what `layer` makes of its inputs; build a population if it is a step."""
        shape = self.model.shapes[layer.name]
        first = inputs[0]
        match layer:
            case L.Step():
                return self._step(layer, first)
            case L.MaxPool():
                return self._max_pool(layer, first, shape)
            case L.GlobalMaxPool2D():
                h, w, _ = first.shape
                pool = L.MaxPool2D(name=layer.name, inputs=layer.inputs, pool_size=(h, w))
                return self._max_pool(pool, first, shape)
            case L.BatchNorm() if isinstance(first, _Pooled):
                return self._scale_pooled(layer, first)
            case L.Flatten() | L.Reshape() if isinstance(first, _Pooled):
                return replace(first, shape=shape)
        values = [self._affine(layer, value) for value in inputs]
        return self._rewrite(layer, values, shape)

    def _affine(self, layer: L.Layer, value: Affine | _Pooled) -> Affine:
        if isinstance(value, _Pooled):
            raise MappingError(
                f"layer {value.pools[-1].name!r}: a max pool on values that are no spikes, with "
                f"{layer.kind} {layer.name!r} behind it. A max pool is exact on 0/1 maps, or with "
                "nothing but batch norm and reshapes between it and a step. Put a step before the "
                "pool."
            )
        return value

    def _rewrite(self, layer: L.Layer, values: list[Affine], shape: Shape) -> Affine:
        (value, *_) = values
        match layer:
            case L.Dense():
                bias = 0.0 if layer.bias is None else layer.bias.astype(np.float64)
                return value.multiplied(shape, layer.weight.astype(np.float64), bias)
            case L.Conv2D() | L.DepthwiseConv2D():
                conv = layer.as_conv2d() if isinstance(layer, L.DepthwiseConv2D) else layer
                geometry = _convolution(conv, value.shape, shape)
                return value.convolved(conv.weight.astype(np.float64), geometry, conv.bias)
            case L.Conv3D():
                return _convolved_volume(layer, value, shape)
            case L.Conv2DTranspose():
                kernel, geometry = _transposed(layer, value.shape, shape)
                return value.convolved(kernel, geometry, layer.bias)
            case L.AveragePool():
                return _average(layer, value)
            case L.GlobalAveragePool2D():
                h, w, channels = value.shape
                place = np.arange(value.size)
                weight = np.full(value.size, 1 / (h * w))
                matrix = sparse.csr_array(
                    (weight, (place, place % channels)), shape=(value.size, channels)
                )
                return value.multiplied(shape, matrix)
            case L.BatchNorm():
                return value.scaled(*layer.scale_and_shift())
            case L.Flatten() | L.Reshape():
                return value.reshaped(shape)
            case L.Permute():
                order = np.arange(value.size).reshape(value.shape).transpose(layer.axes)
                return value.gathered(shape, order.ravel())
            case L.ZeroPad2D():
                cells = np.arange(value.size).reshape(value.shape)
                cells = np.pad(cells, (*layer.padding, (0, 0)), constant_values=-1)
                return value.gathered(shape, cells.ravel())
            case L.Upsample2D():
                cells = np.arange(value.size).reshape(value.shape)
                cells = cells.repeat(layer.size[0], axis=0).repeat(layer.size[1], axis=1)
                return value.gathered(shape, cells.ravel())
            case L.Add():
                return Affine.total(values, shape)
            case L.Concat():
                return _side_by_side(layer, values, shape)
            case L.Activation():
                detail = f" with sharpness {layer.sharpness}" if layer.sharpness else ""
                raise MappingError(
                    f"layer {layer.name!r}: {layer.function}{detail} is not a step, so its values "
                    "are no spikes. Sharpen the activation to a step and export again."
                )
        raise MappingError(f"layer {layer.name!r}: {layer.kind} has no spiking counterpart.")

    def _max_pool(self, pool: L.MaxPool, value: Affine | _Pooled, shape: Shape) -> Affine | _Pooled:
        ones = np.ones(shape[-1])
        if isinstance(value, _Pooled):
            if value.shape[-1] != value.before.shape[-1]:
                raise MappingError(
                    f"layer {pool.name!r}: a max pool behind max pool {value.pools[-1].name!r} and "
                    "a reshape that mixes its channels. Put a step before the reshape."
                )
            return replace(
                value,
                pools=(*value.pools, pool),
                reads=(*value.reads, value.shape),
                signs=(*value.signs, ones),
                shape=shape,
            )
        if not value.is_binary:
            return _Pooled(value, (pool,), (value.shape,), (ones,), shape)
        self._pool_population(pool.name, pool, value, ones, shape)
        return Affine.of_population(pool.name, shape, is_binary=True)

    def _scale_pooled(self, norm: L.BatchNorm, value: _Pooled) -> _Pooled:
        channels = value.before.shape[-1]
        if value.shape[-1] != channels:
            raise MappingError(
                f"layer {norm.name!r}: batch norm over {value.shape[-1]} flattened values behind "
                f"max pool {value.pools[-1].name!r} cannot move in front of it. Put it before the "
                "flatten."
            )
        scale, shift = norm.scale_and_shift()
        signs = tuple(sign * np.where(scale < 0, -1.0, 1.0) for sign in value.signs)
        return replace(value, before=value.before.scaled(scale, shift), signs=signs)

    def _step(self, layer: L.Step, value: Affine | _Pooled) -> Affine:
        shape = self.model.shapes[layer.name]
        if isinstance(value, Affine):
            self._population(layer.name, value, layer.threshold, layer.strict)
            return Affine.of_population(layer.name, shape, is_binary=True)
        names = [f"{layer.name}/before_{value.pools[0].name}"]
        names += [f"{layer.name}/after_{pool.name}" for pool in value.pools[:-1]]
        self._population(names[0], value.before, layer.threshold, layer.strict)
        current = Affine.of_population(names[0], value.before.shape, is_binary=True)
        for pool, reads, sign, name in zip(
            value.pools, value.reads, value.signs, [*names[1:], layer.name], strict=True
        ):
            target = pool.output_shape(reads)
            final = shape if name == layer.name else target
            self._pool_population(name, pool, current.reshaped(reads), sign, final)
            current = Affine.of_population(name, target, is_binary=True)
        return Affine.of_population(layer.name, shape, is_binary=True)

    def _pool_population(
        self, name: str, pool: L.MaxPool, value: Affine, sign: Floats, shape: Shape
    ) -> None:
        """Add a population that is 1 where any input of its window is (or all, if sign is -1)."""
        window = cells_in_windows(pool, value.shape)
        # A sum of n spikes reaches the threshold 0.5 with bias 1 - n only if all n are there.
        bias = np.where(np.tile(sign, len(window) // len(sign)) < 0, 1.0 - window, 0.0)
        pooled = replace(value.pooled(pool), constant=bias, shape=shape)
        self._population(name, pooled, THRESHOLD)

    def _population(self, name: str, value: Affine, threshold: float, strict: bool = False) -> None:
        if name in self.populations:
            raise MappingError(f"layer {name!r}: two populations would have this name. Rename it.")
        bias = value.constant + (THRESHOLD - threshold)
        terms = [(source, _plain(op)) for source, op in value.terms]
        period = _shared_period([op for _, op in terms], value.size)
        if period is None:
            terms = [(source, Matrix(as_matrix(op))) for source, op in terms]
            period = value.size
        depth = 1 + max((self._depth(source) for source, _ in terms), default=0)
        largest = max((self._largest(source) for source, _ in terms), default=1)
        sums = np.abs(bias)
        for source, op in terms:
            sums = sums + self._largest(source) * _absolute_sums(op)
        by_channel = sums.reshape(-1, period).max(axis=0)
        if not np.isfinite(by_channel).all():
            raise MappingError(f"layer {name!r}: weights are too large to add up. Rescale them.")
        exponent, bits = choose_exponents(by_channel, largest)
        # One more bit may still fit once rounded; too many never stay.
        exponent = np.minimum(exponent + 1, bits)
        while True:
            try:
                built = [(s, _connect(op, exponent)) for s, op in terms]
                integer_bias = to_grid(bias.reshape(-1, period), exponent).ravel()
                # Sums are whole numbers there: above the threshold means one more at least.
                integer_bias = integer_bias - int(strict)
            except MappingError as error:
                raise MappingError(f"layer {name!r}: {error}") from None
            total = np.abs(integer_bias)
            for source, connectivity in built:
                total = total + self._largest(source) * connectivity.absolute_sums()
            too_large = total.reshape(-1, period).max(axis=0) >= np.left_shift(np.int64(1), bits)
            if not too_large.any():
                break
            exponent = exponent - too_large
        if int(exponent.min(initial=1)) < 1:
            raise MappingError(
                f"layer {name!r}: sums up to {float(by_channel.max()):.3g} leave no room for a "
                "grid step of 1/2. Rescale the layer."
            )
        full = np.tile(exponent, value.size // period)
        self.populations[name] = Population(name, value.shape, depth, integer_bias, full)
        self.projections += [(source, name, connectivity) for source, connectivity in built]

    def _depth(self, source: str) -> int:
        return 0 if source == INPUT else self.populations[source].depth

    def _largest(self, source: str) -> int:
        return max(abs(self.spec.low), abs(self.spec.high)) if source == INPUT else 1


def _convolution(conv: L.Conv2D, source: Shape, target: Shape) -> Geometry:
    h, w, channels = source
    (top, _), (left, _) = conv.explicit_padding((h, w))
    return Geometry(
        source=(h, w, channels),
        target=(target[0], target[1], target[2]),
        kernel=(conv.weight.shape[0], conv.weight.shape[1]),
        strides=conv.strides,
        dilation=conv.dilation,
        before=(top, left),
        groups=conv.groups,
    )


def _transposed(conv: L.Conv2DTranspose, source: Shape, target: Shape) -> tuple[Floats, Geometry]:
    """Return kernel and geometry of the plain convolution over the spread-out input."""
    ((top, _), (left, _)), _ = conv.explicit_padding()
    (kh, kw), (dy, dx) = conv.kernel, conv.dilation
    kernel = conv.weight.astype(np.float64)[::-1, ::-1].transpose(0, 1, 3, 2)
    geometry = Geometry(
        source=(source[0], source[1], source[2]),
        target=(target[0], target[1], target[2]),
        kernel=(kh, kw),
        dilation=conv.dilation,
        input_dilation=conv.strides,
        before=((kh - 1) * dy - top, (kw - 1) * dx - left),
    )
    return kernel, geometry


def _convolved_volume(conv: L.Conv3D, value: Affine, shape: Shape) -> Affine:
    matrix = volume_matrix(
        conv.weight.astype(np.float64),
        value.shape,
        shape,
        strides=conv.strides,
        dilation=conv.dilation,
        before=[before for before, _ in conv.explicit_padding(value.shape[:-1])],
        groups=conv.groups,
    )
    bias = np.zeros(shape[-1]) if conv.bias is None else conv.bias.astype(np.float64)
    return value.multiplied(shape, matrix, np.tile(bias, math.prod(shape[:-1])))


def _average(pool: L.AveragePool, value: Affine) -> Affine:
    cells = math.prod(pool.pool_size)
    window = cells_in_windows(pool, value.shape)
    if pool.count_padding or (window == cells).all():
        return value.pooled(pool, 1.0 / cells)
    return value.pooled(pool).times(1.0 / window)


def _side_by_side(layer: L.Concat, values: list[Affine], shape: Shape) -> Affine:
    axis = layer.axis % len(shape)
    parts, start = [], 0
    for value in values:
        place = np.full(shape, -1, dtype=np.int64)
        stop = start + value.shape[axis]
        where = [slice(None)] * len(shape)
        where[axis] = slice(start, stop)
        place[tuple(where)] = np.arange(value.size).reshape(value.shape)
        parts.append(value.gathered(shape, place.ravel()))
        start = stop
    whole = Affine.total(parts, shape)
    return replace(whole, is_binary=all(value.is_binary for value in values))


def _plain(op: Operator) -> Operator:
    """Return `op` as a convolution or a matrix."""
    return Matrix(as_matrix(op)) if isinstance(op, Pick) else op


def _shared_period(operators: list[Operator], size: int) -> int | None:
    """Return after how many neurons exponents must repeat because kernels are shared."""
    periods = {op.geometry.target[2] for op in operators if isinstance(op, Conv)}
    if len(periods) > 1:
        return None
    return periods.pop() if periods else size


def _absolute_sums(op: Operator) -> Floats:
    if isinstance(op, Conv):
        total = np.zeros(op.geometry.target)
        size = np.abs(op.weight).sum(axis=2)
        for i, j, out_y, out_x, _, _ in op.geometry.positions():
            total[out_y[:, None], out_x[None, :]] += size[i, j]
        return total.ravel()
    return np.asarray(abs(as_matrix(op)).sum(axis=0)).ravel()


def _connect(op: Operator, exponent: NDArray[np.int64]) -> Connectivity:
    """Put an operator on the grid; `exponent` is per channel for a convolution."""
    if isinstance(op, Conv):
        return Convolution(narrow(to_grid(op.weight, exponent)), op.geometry)
    matrix = as_matrix(op)
    n_targets = int(matrix.shape[1])
    full = np.tile(exponent, n_targets // len(exponent))
    if isinstance(matrix, np.ndarray):
        return Dense(narrow(to_grid(matrix, full)))
    matrix = sparse.csr_array(matrix)
    matrix.sort_indices()
    weight = to_grid(matrix.data, full[matrix.indices])
    start, target = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    return Listed(start, target, narrow(weight), n_targets)
