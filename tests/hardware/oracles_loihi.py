"""A Loihi compartment in plain whole numbers, written from the published arithmetic.

Steps as in the emulator of nengo-loihi 1.1.0; it keeps no array and shares no code with the one
that is tested.
"""

from __future__ import annotations


def delivered(register: int, exponent: int) -> int:
    """Return what a weight register delivers: times 2^(6 + exponent), a multiple of 64."""
    up, down = max(6 + exponent, 0), max(-6 - exponent, 0)
    return register * 2**up // 2**down // 64 * 64


def wrapped(value: int, bits: int) -> int:
    """Return two's complement with so many bits and a sign."""
    while value >= 2**bits:
        value -= 2 ** (bits + 1)
    while value < -(2**bits):
        value += 2 ** (bits + 1)
    return value


def decayed(value: int, lost: int) -> int:
    """Return the value less `lost` parts of 4096, rounded toward 0."""
    kept = abs(value) * (4096 - lost) // 4096
    return kept if value >= 0 else -kept


class Compartment:
    """One compartment with its registers; a step at a time."""

    def __init__(
        self,
        vth: int,
        bias: int,
        decay_u: int = 4095,
        decay_v: int = 4096,
        vmin: int = -(2**23) + 1,
        vmax: int = 2**23 - 1,
        refract: int = 1,
    ) -> None:
        self.vth, self.bias = vth, bias
        self.decay_u, self.decay_v = decay_u, decay_v
        self.vmin, self.vmax, self.refract = vmin, vmax, refract
        self.u = self.v = self.waiting = 0

    def step(self, arriving: list[int]) -> tuple[bool, set[str]]:
        happened = set()
        q = 0
        for weight in arriving:
            q += weight
        if wrapped(q, 21) != q:
            happened.add("accumulator wraps")
        q = wrapped(q, 21)
        u = decayed(self.u, self.decay_u + 1) + q
        if wrapped(u, 23) != u:
            happened.add("current wraps")
        self.u = wrapped(u, 23)
        driven = self.u + self.bias
        if wrapped(driven, 23) != driven:
            happened.add("current wraps")
        v = decayed(self.v, self.decay_v) + wrapped(driven, 23)
        if v < self.vmin:
            happened.add("membrane saturations")
            v = self.vmin
        if v > self.vmax:
            happened.add("membrane saturations")
            v = self.vmax
        if self.waiting > 0:
            happened.add("waits")
            v = 0
        fires = v > self.vth
        if fires:
            v = 0
            self.waiting = self.refract
        self.waiting = max(self.waiting - 1, 0)
        self.v = v
        return fires, happened
