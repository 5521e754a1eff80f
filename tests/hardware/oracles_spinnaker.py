"""A neuron of sPyNNaker in plain whole numbers: two ring buffers, s16.15, one step at a time."""

from __future__ import annotations


class Neuron:
    """One neuron; `arriving` are weights, 0..65535, with the sign of their synapse type."""

    def __init__(self, threshold: int, shift: int, model: str = "lif") -> None:
        self.threshold, self.shift, self.model = threshold, shift, model
        self.v = 0

    def step(self, arriving: list[int]) -> tuple[bool, set[str]]:
        happened = set()
        buffers = {1: 0, -1: 0}
        for weight in arriving:
            assert 0 < abs(weight) <= 65535
            sign = 1 if weight > 0 else -1
            buffers[sign] += abs(weight)
            if buffers[sign] > 65535:
                happened.add("ring buffer saturations")
                buffers[sign] = 65535
        v = (buffers[1] << self.shift) - (buffers[-1] << self.shift)
        if self.model == "if_trunc":
            v += self.v
        while v >= 2**31:
            happened.add("membrane wraps")
            v -= 2**32
        while v < -(2**31):
            happened.add("membrane wraps")
            v += 2**32
        if self.model == "if_trunc" and v < 0:
            happened.add("floors")
            v = 0
        fires = v >= self.threshold
        self.v = 0 if fires else v
        return fires, happened
