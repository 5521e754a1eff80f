"""How sharp each layer is at a moment of a schedule: plain functions of numbers."""

from __future__ import annotations

from whetsim.sharpen.checks import TrainingError


def scheduled_sharpness(
    progress: float,
    index: int,
    n_layers: int,
    start: float,
    stop: float,
    *,
    bottom_up: bool = True,
    intermission: float = 0.0,
) -> float:
    """Return the sharpness of one layer at a moment of a schedule.

    Parameters
    ----------
    progress : float
        How far the training is: a part of it, or a count of epochs, batches or steps.
    index : int
        Number of the layer, 0 is the one next to the input.
    n_layers : int
        Number of layers that are sharpened.
    start, stop : float
        Progress at which the first layer starts to be sharpened and at which the last is sharp.
    bottom_up : bool
        One layer after the other, from the input up, each with an equal share of the time.
        Otherwise all at once.
    intermission : float
        Progress between the end of one layer's turn and the start of the next one's.

    Returns
    -------
    float
        0 before the layer's turn, growing linearly in it, 1 after it.

    Examples
    --------
    >>> [scheduled_sharpness(p, 1, 2, start=0.0, stop=1.0) for p in (0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0]
    >>> [scheduled_sharpness(p, 1, 2, start=0.0, stop=1.0, bottom_up=False) for p in (0.5, 1.0)]
    [0.5, 1.0]
    """
    if progress >= stop:  # said by itself, so that rounding never leaves 0.99999
        return 1.0
    if not bottom_up:
        return min(max((progress - start) / (stop - start), 0.0), 1.0)
    turn = _turn_length(n_layers, start, stop, intermission)
    begins = start + index * (turn + intermission)
    return min(max((progress - begins) / turn, 0.0), 1.0)


def sharpness_of_layers(
    progress: float,
    n_layers: int,
    start: float,
    stop: float,
    *,
    bottom_up: bool = True,
    intermission: float = 0.0,
) -> list[float]:
    """Return the sharpness of all layers, from the input up; see `scheduled_sharpness`."""
    return [
        scheduled_sharpness(
            progress, index, n_layers, start, stop, bottom_up=bottom_up, intermission=intermission
        )
        for index in range(n_layers)
    ]


def check_intermission(
    where: str, n_layers: int, start: float, stop: float, intermission: float
) -> None:
    """Check that a schedule from the input up leaves time for every layer.

    Raises
    ------
    TrainingError
        If the intermissions take all of it; `where` is named.
    """
    if _turn_length(n_layers, start, stop, intermission) <= 0:
        most = (stop - start) / (n_layers - 1)
        raise TrainingError(
            f"{where}: intermission leaves no time to sharpen {n_layers} layers (got "
            f"{intermission}; need < {most:g}). Take a shorter one, or more time between start "
            f"({start}) and stop ({stop})."
        )


def _turn_length(n_layers: int, start: float, stop: float, intermission: float) -> float:
    """Return the time in which one layer is sharpened; not positive if there is none left."""
    return (stop - start - (n_layers - 1) * intermission) / n_layers
