"""Train a network in Keras 3 whose activations become exact steps, and export it.

Needs the extra `train`; nothing else in whetsim imports Keras.
"""

from __future__ import annotations

from whetsim.sharpen.require import require_keras

require_keras()  # before the imports below, which need it

from whetsim.sharpen.adaptive_sharpener import AdaptiveSharpener  # noqa: E402
from whetsim.sharpen.checkpoint import Checkpoint  # noqa: E402
from whetsim.sharpen.checks import TrainingError  # noqa: E402
from whetsim.sharpen.dead_units import (  # noqa: E402
    DeadUnitWarning,
    find_dead_units,
    warn_of_dead_outputs,
)
from whetsim.sharpen.diary import Diary  # noqa: E402
from whetsim.sharpen.export import export, to_model  # noqa: E402
from whetsim.sharpen.keep_best import KeepBestSharp  # noqa: E402
from whetsim.sharpen.keys import generate_key, smallest_distance  # noqa: E402
from whetsim.sharpen.layers import (  # noqa: E402
    SoftmaxDecode,
    SpikingActivation,
    SpikingBReLU,
    SpikingSigmoid,
)
from whetsim.sharpen.observe import LayerActivity, Observation, observe  # noqa: E402
from whetsim.sharpen.schedule import scheduled_sharpness  # noqa: E402
from whetsim.sharpen.sharpeners import ScheduledSharpener, Sharpener, SimpleSharpener  # noqa: E402
from whetsim.sharpen.state import is_fully_sharp, set_sharpness, spiking_layers  # noqa: E402
from whetsim.sharpen.step_sharpener import StepSharpener  # noqa: E402

__all__ = [
    "AdaptiveSharpener",
    "Checkpoint",
    "DeadUnitWarning",
    "Diary",
    "KeepBestSharp",
    "LayerActivity",
    "Observation",
    "ScheduledSharpener",
    "Sharpener",
    "SimpleSharpener",
    "SoftmaxDecode",
    "SpikingActivation",
    "SpikingBReLU",
    "SpikingSigmoid",
    "StepSharpener",
    "TrainingError",
    "export",
    "generate_key",
    "find_dead_units",
    "is_fully_sharp",
    "observe",
    "scheduled_sharpness",
    "set_sharpness",
    "smallest_distance",
    "spiking_layers",
    "to_model",
    "warn_of_dead_outputs",
]
