"""Why a job failed: which pod, how its worker ended, what it said last, and what the cluster says."""

import re
from collections.abc import Iterable, Sequence

from components.common.cluster.settings import ClusterSettings
from components.train.launching.cluster.events import JobEvents, Said
from components.train.launching.cluster.pods import Cause, Ending, Pod

_MOST_EVENTS, _MOST_LINES, _MOST_ENDINGS = 5, 10, 4
_SIGTERM_CODE = 143
_SIGNALS = {137: "SIGKILL", 139: "SIGSEGV", 134: "SIGABRT", 135: "SIGBUS", _SIGTERM_CODE: "SIGTERM"}
_ERROR_LINE = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b.*")


def diagnosis(
    endings: Sequence[Ending],
    pods: Iterable[Pod],
    events: JobEvents,
    lines: dict[str, list[str]],
    verdict: str,
    cluster: ClusterSettings,
) -> str:
    """The text of the error that ends the step.

    Args:
        endings: Of all containers of the job, restarted ones too.
        pods: Last seen.
        events: That concern the job.
        lines: Last lines of each replica's log.
        verdict: The operator's words, or ours if we gave the job up.
        cluster: For what to change.

    Returns:
        One sentence that says what is wrong and what to do, and below it what supports it.
    """
    failed = sorted((each for each in endings if each.failed), key=_time)
    # Pods that the operator ends because of another's failure get SIGTERM.
    failed = [each for each in failed if each.exit_code != _SIGTERM_CODE] or failed
    first = failed[0] if failed else None
    # A worker's word on itself is worth more than its exit code, whichever pod ended first.
    told = min((each for each in failed if each.cause), key=lambda each: _cause(each).time, default=None)
    lost = [f"{pod.replica} was taken away by the cluster: {pod.lost}" for pod in pods if pod.lost]
    if told is not None and (first is None or first.reason != "OOMKilled"):
        head = _told(told.replica, _cause(told))
    elif first is not None and first.reason == "OOMKilled":
        head = (
            f"Training failed: {first.replica} used more memory than its limit of {cluster.memory} (OOMKilled); raise "
            "cluster.memory or lower micro_batch_size"
        )
    elif lost:
        head = f"Training failed: {lost[0]}; run the step again, and it goes on from the last checkpoint"
    elif first is not None:
        head = f"Training failed: {first.replica} ended with {ended_with(first)}{_last_error(lines, first)}"
    else:
        head = f"Training failed: {verdict or 'the operator gives no reason'}"
    details = [*_endings(failed), *lost, *_verdict(verdict, head)]
    details += _last_lines(lines, first.replica if first else "")
    details += [_event(said) for said in events.warnings()[-_MOST_EVENTS:]]
    return "\n".join([head.rstrip(".") + ".", *(f"  {each}" for each in details)])


def ended_with(ending: Ending) -> str:
    """Exit code, signal and Kubernetes' reason in few words."""
    signal = f", {_SIGNALS[ending.exit_code]}" if ending.exit_code in _SIGNALS else ""
    reason = f" ({ending.reason})" if ending.reason not in ("", "Error", "Completed") else ""
    return f"exit code {ending.exit_code}{signal}{reason}"


def _told(replica: str, cause: Cause) -> str:
    if cause.clear:
        return cause.message
    hint = "; lower micro_batch_size" if "OutOfMemoryError" in cause.message else ""
    return f"Training failed in {replica}, process {cause.rank}: {cause.message.rstrip('.')}{hint}"


def _endings(failed: Sequence[Ending]) -> list[str]:
    # The first says why; the last say that it went on like that.
    shown = failed if len(failed) <= _MOST_ENDINGS else [*failed[: _MOST_ENDINGS - 1], failed[-1]]
    return [
        f"{each.replica} ended with {ended_with(each)} at {each.finished_at}"
        + (f", after {each.restarts} restarts" if each.restarts else "")
        for each in shown
    ]


def _verdict(verdict: str, head: str) -> list[str]:
    return [f"the job: {verdict}"] if verdict and verdict not in head else []


def _last_error(lines: dict[str, list[str]], ending: Ending) -> str:
    found = [line for line in lines.get(ending.replica, []) if _ERROR_LINE.match(line)]
    return f": {found[-1]}" if found else ""


def _last_lines(lines: dict[str, list[str]], replica: str) -> list[str]:
    if replica not in lines:
        return []
    return [f"last lines of {replica}:", *(f"  {line}" for line in lines[replica][-_MOST_LINES:])]


def _event(said: Said) -> str:
    return f"{said.about[0]} {said.about[1]}: {said.reason}: {said.message}"


def _time(ending: Ending) -> tuple[str, str, int]:
    return ending.finished_at, ending.replica, ending.restarts


def _cause(ending: Ending) -> Cause:
    assert ending.cause is not None  # noqa: S101 - asked for before
    return ending.cause
