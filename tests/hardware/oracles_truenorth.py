"""A TrueNorth core in plain whole numbers: axon lines, their types, crossbar bits, ticks."""

from __future__ import annotations

MEMBRANE_MIN, MEMBRANE_MAX = -(2**19), 2**19 - 1


def lines_for(weight: int, values: list[int]) -> list[int]:
    """Return the types of the lines of a source that must be connected for a weight.

    Tries all of them.
    """
    for chosen in range(2 ** len(values)):
        types = [t for t in range(len(values)) if chosen >> t & 1]
        if sum(values[t] for t in types) == weight and all(values[t] for t in types):
            return types
    raise AssertionError(f"no lines of values {values} make {weight}")


class Neuron:
    """One neuron with its four values; `arriving` are the values of the lines that spiked."""

    def __init__(self, leak: int, alpha: int = 0, beta: int = 0, reset: int = 0) -> None:
        self.leak, self.alpha, self.beta, self.reset = leak, alpha, beta, reset
        self.v = 0

    def step(self, arriving: list[int]) -> tuple[bool, set[str]]:
        happened = set()
        v = self.v
        for value in arriving:
            v += value
        v += self.leak
        if v > MEMBRANE_MAX:
            happened.add("membrane saturations")
            v = MEMBRANE_MAX
        if v < MEMBRANE_MIN:
            happened.add("membrane saturations")
            v = MEMBRANE_MIN
        if v >= self.alpha:
            self.v = self.reset
            return True, happened
        if v < -self.beta:
            v = -self.reset
        self.v = v
        return False, happened
