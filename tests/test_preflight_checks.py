"""Checks run at once; one that hangs or breaks is a finding."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.common.errors import InputError, PipelineError
from components.preflight.checks import Check, run_all
from components.preflight.findings import counted, failed, ok, require, unknown, warning


def test_checks_run_at_the_same_time_and_are_told_in_their_order() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def meet(name: str) -> list:
        meeting.wait()  # breaks unless all three are there together
        return [ok(name, "It came.")]

    found = run_all([Check(name, lambda name=name: meet(name)) for name in ("a", "b", "c")])
    assert found == [ok(name, "It came.") for name in ("a", "b", "c")]


def test_a_check_that_hangs_is_told_as_such_and_holds_up_nothing() -> None:
    hold = threading.Event()
    found = run_all(
        [
            Check("deaf", lambda: [hold.wait()], seconds=0.2, remedy="Wake it."),  # type: ignore[list-item]
            Check("mute", lambda: [hold.wait()], seconds=0.2, silent="unknown"),  # type: ignore[list-item]
            Check("well", lambda: [ok("well", "Fine.")]),
        ]
    )
    hold.set()
    assert [(each.subject, each.state) for each in found] == [("deaf", "failed"), ("mute", "unknown"), ("well", "ok")]
    assert found[0].found == "It has not answered within 0.2 s." and found[0].remedy == "Wake it."


def test_a_process_ends_although_a_check_hangs() -> None:
    program = (
        "import time; from components.preflight.checks import Check, run_all\n"
        "print(run_all([Check('deaf', lambda: time.sleep(600), seconds=0.1)])[0].state)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120
    )
    assert done.stdout == "failed\n" and done.returncode == 0
    assert time.monotonic() - started < 120


def test_a_check_that_breaks_is_a_finding_too(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> list:
        raise InputError("That is nothing.")

    def break_down() -> list:
        raise KeyError("oops")

    found = run_all([Check("input", refuse), Check("fault", break_down)])
    assert found[0] == failed("input", "That is nothing.", "Mend that and try again.")
    assert found[1].state == "unknown" and "KeyError: 'oops'" in found[1].found
    assert "please report it" in caplog.text and "Traceback" in caplog.text


def test_every_failed_finding_is_named_with_its_remedy() -> None:
    findings = [ok("a", "Fine."), warning("b", "Hm.", "Look."), unknown("c", "Dark.", "Light.")]
    require(findings)
    findings += [failed("d", "It is gone.", "Make it."), failed("e", "It is shut.", "Open it.")]
    with pytest.raises(PipelineError) as error:
        require(findings)
    assert str(error.value) == (
        "2 things stand in the way of this run. (1) d: It is gone. Make it. (2) e: It is shut. Open it."
    )
    assert counted(findings) == {"ok": 1, "warning": 1, "failed": 2, "unknown": 1}
