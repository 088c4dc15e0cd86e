"""What happens when a step's loss or gradient is no number, or the loss jumps."""

import logging
import math
from collections import deque
from statistics import median
from typing import Any

from components.common.errors import TrainingError
from components.train.settings import TrainingSettings

log = logging.getLogger(__name__)

_COMPARED = 100  # steps whose median says what a usual loss is
_NEEDED = 20  # before so many there is no usual loss yet


class LossGuard:
    """Decides, before weights are changed, whether a step counts; every process comes to the same decision."""

    def __init__(self, settings: TrainingSettings, history: list[dict[str, Any]]) -> None:
        """Go on after the steps in `history`, skipped ones (`"skipped": True`) among them."""
        self._settings = settings
        self._skipped = sum(bool(record.get("skipped")) for record in history)
        good = [record["loss"] for record in history if not record.get("skipped")]
        self._recent: deque[float] = deque(good[-_COMPARED:], maxlen=_COMPARED)

    @property
    def skipped(self) -> int:
        """Steps left out so far."""
        return self._skipped

    def accepts(self, loss: float, gradient_norm: float, where: str) -> bool:
        """Whether the step is to change the weights.

        Args:
            loss: Mean cross entropy of the step, over all processes.
            gradient_norm: Its gradient's L2 norm.
            where: The step and its windows, for the message.

        Raises:
            TrainingError: The step is bad, and the recipe says stop or too many were skipped.
        """
        fault = self._fault(loss, gradient_norm)
        if fault is None:
            self._recent.append(loss)
            return True
        advice = "lower learning_rate or set max_gradient_norm"
        if self._settings.on_bad_loss == "stop":
            raise TrainingError(f"{fault} at {where}; {advice}, or go on with on_bad_loss: skip.")
        self._skipped += 1
        if self._skipped > self._settings.max_skipped_steps:
            raise TrainingError(
                f"{fault} at {where}, and more than max_skipped_steps ({self._settings.max_skipped_steps}) steps were "
                f"skipped; {advice}, or go on with a higher max_skipped_steps."
            )
        log.warning("%s at %s: the step is skipped (%d so far).", fault, where, self._skipped)
        return False

    def _fault(self, loss: float, gradient_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"The loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"The gradient norm is {gradient_norm}"
        factor = self._settings.loss_spike_factor
        if factor is None or len(self._recent) < _NEEDED:
            return None
        usual = median(self._recent)
        if loss > factor * usual:
            return f"The loss jumps to {loss:.4f}, more than {factor} times the usual {usual:.4f},"
        return None
