"""Checks that run at the same time, each within its time."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from components.common.errors import PipelineError
from components.preflight.findings import Finding, State, failed, unknown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        subject: What it is; its findings may have subjects of their own.
        look: Looks, and says what was found.
        seconds: After so long it counts as hanging.
        silent: State of a check that hangs: `failed` where the run needs the same answer, `unknown` elsewhere.
        remedy: For when it hangs.
    """

    subject: str
    look: Callable[[], Iterable[Finding]]
    seconds: float = 30
    silent: State = "failed"
    remedy: str = "See whether its address is right and the network lets us through."


def run_all(checks: Sequence[Check]) -> list[Finding]:
    """Run checks in parallel and wait for each no longer than it may take.

    Returns:
        Their findings in the order of the checks; one that hangs, or breaks, is a finding too.
    """
    # No pool: its threads are waited for when the process ends, and one that hangs would keep it from ending.
    runs = [_Run(check) for check in checks]
    started = time.monotonic()
    for run in runs:
        run.start()
    found = []
    for run in runs:
        run.join(max(0.0, started + run.check.seconds - time.monotonic()))
        found += run.outcome()
    return found


class _Run(threading.Thread):
    def __init__(self, check: Check) -> None:
        super().__init__(daemon=True, name=f"preflight-{check.subject}")
        self.check = check
        self._found: list[Finding] | None = None

    def run(self) -> None:
        try:
            self._found = list(self.check.look())
        except PipelineError as error:
            self._found = [failed(self.check.subject, str(error), "Mend that and try again.")]
        except Exception as error:
            log.exception("Looking at %s failed with an error of the preflight itself; please report it.", self.name)
            text = f"Looking at it failed with {type(error).__name__}: {error}"
            self._found = [
                unknown(self.check.subject, text[:500], "This is a fault of the preflight; please report it.")
            ]

    def outcome(self) -> list[Finding]:
        found = self._found
        if found is None:
            text = f"It has not answered within {self.check.seconds:g} s."
            return [Finding(self.check.subject, self.check.silent, text, self.check.remedy)]
        return found
