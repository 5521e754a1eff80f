"""What is raised when a network does not fit, with the numbers as attributes."""

from __future__ import annotations

from whetsim.errors import CapacityError

__all__ = ["DoesNotFitError"]

REMEDIES = {
    "neurons": "Make the layer smaller, or take a chip with larger cores",
    "in_axons": (
        "Give the layer fewer inputs: a smaller kernel, fewer channels, groups, pruned weights or, "
        "where it reads the samples, fewer bit planes (a binary input)"
    ),
    "axon_types": "Quantize to fewer weight bits, or read the samples as binary",
    "fan_in": "Give each neuron fewer synapses: a smaller kernel, fewer channels or pruned weights",
    "out_axons": "Make the layers behind it smaller, so that they take fewer cores",
    "synapses": "Give each neuron fewer synapses: a smaller kernel or fewer channels",
    "synapse_bits": "Quantize to fewer weight bits, or give each neuron fewer synapses",
    "memory_bits": "Quantize to fewer weight bits, or give each neuron fewer synapses",
    "thresholds": "Quantize, so that thresholds lie closer",
    "weight_formats": "Give the population fewer projections, or quantize to one exponent each",
    "delay": "Shorten the skip connection",
    "chips": "Make the network smaller, or allow more chips with max_chips",
    "kernel_words": "Make the kernel smaller or give the layer fewer channels",
    "neuron_words": "Make the map smaller or give the layer fewer channels",
    "kernel_size": "Use a smaller kernel, or a convolution in place of a fully connected layer",
    "strides": "Use a stride that the chip has",
    "padding": "Use less padding, or a smaller kernel",
    "channels": "Give the layer fewer channels",
    "input_size": "Make the map smaller, or pool it before",
    "output_size": "Make the map smaller: a larger stride, or no padding",
    "dense_inputs": "Give the fully connected layer fewer inputs: pool before it",
    "bias_words": "Give the layer fewer channels",
    "fan_out_cores": "Let fewer layers read the population",
    "axon_distance": "Make the network smaller, so that its cores lie closer",
    "layers_without_input": "Feed the population, or leave it out: its spikes never change",
    "projections": "Let the layer read one population alone",
    "cores": "Make the network shallower, or its layers small enough for the smaller cores",
    "geometry": "Use a convolution or a fully connected layer",
}


class DoesNotFitError(CapacityError):
    """A network does not fit a chip.

    Parameters
    ----------
    chip, population, resource : str
    needed, available : int
    detail : str
        What exactly needs that much.

    Attributes
    ----------
    chip, population, resource : str
    needed, available : int
    """

    def __init__(
        self,
        chip: str,
        population: str,
        resource: str,
        needed: int,
        available: int,
        detail: str,
    ) -> None:
        self.chip, self.population, self.resource = chip, population, resource
        self.needed, self.available = int(needed), int(available)
        remedy = REMEDIES.get(resource, "Make it smaller, or take another chip")
        super().__init__(
            f"population {population!r} on chip {chip!r}: {detail} "
            f"({resource}: needs {self.needed:,}; there are {self.available:,}). {remedy}."
        )
