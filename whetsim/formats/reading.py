"""What the caller says about a file that does not say it itself."""

from __future__ import annotations

from dataclasses import dataclass

from whetsim.errors import FormatError, quote
from whetsim.layers import Shape, finite
from whetsim.model import InputSpec

__all__ = ["GUESSED", "Reading"]

GUESSED = "the file does not say what it reads; taken for 8-bit images divided by 255."
"""What a reader remarks where it had to guess."""


@dataclass(frozen=True)
class Reading:
    """What the caller says about a file that does not say it itself.

    Parameters
    ----------
    input_scale : float, optional
        What one unit of a sample is worth.
    input_range : tuple of int, optional
        Smallest and largest value of a sample; by default 0 to ``1 / input_scale``.
    assume_sharp : bool
        Take activations that are nearly steps for steps.
    guess_input : bool
        Take the input for 8-bit images where neither file nor caller says; good for a look alone.
    """

    input_scale: float | None = None
    input_range: tuple[int, int] | None = None
    assume_sharp: bool = False
    guess_input: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether the caller left everything to the file."""
        return self == Reading(guess_input=self.guess_input)

    def input_spec(self, shape: Shape) -> InputSpec:
        """Return the input of a network whose file holds none."""
        if self.input_scale is None and self.guess_input:
            return InputSpec(shape, 0, 255, 1 / 255)
        if self.input_scale is None:
            raise FormatError(
                "input: the file does not say which whole numbers the network reads. Give "
                "input_scale: 1/255 for 8-bit images that were divided by 255, 1 for samples of 0 "
                "and 1."
            )
        scale = finite(self.input_scale, "input_scale")
        if self.input_range is None:
            # A scale that is not positive, or too small, is refused by InputSpec.
            low, high = 0, max(1, round(min(1 / scale, 2.0**25))) if scale > 0 else 1
        elif isinstance(self.input_range, (tuple, list)) and len(self.input_range) == 2:
            low, high = self.input_range
        else:
            raise FormatError(
                f"input_range must be two whole numbers (got {quote(self.input_range)}; need the "
                "smallest and the largest value of a sample)."
            )
        return InputSpec(shape, low, high, scale)
