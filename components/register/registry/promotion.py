"""Who is champion: promotion and rollback, so that an interruption at any moment leaves a champion that is right.

MLflow changes one alias at a time. What is about to happen is therefore noted first (the journal, a tag of the
registered model), then ``previous`` is set to the champion, then ``champion`` is moved: that single change decides.
Whoever takes the model's lock next finds the journal of an interrupted promotion, and finishes it if the champion had
been moved, or takes it back if not.
"""

import contextlib
import getpass
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict, ValidationError

from components.common.errors import InputError, PipelineError
from components.common.lock import StoreLock
from components.common.model_registry import CANDIDATE, CHAMPION, PREVIOUS, find_version
from components.common.settings import get_settings
from components.register.registry.layout import missing_files
from components.register.registry.registry import Registry
from components.register.registry.tags import (
    ANY_CHAMPION,
    JUDGED_AGAINST,
    NO_CHAMPION,
    PASSED,
    PROMOTED,
    REASON,
    ROLLED_BACK,
    VERDICT,
)

log = logging.getLogger(__name__)


class ChampionChanged(PipelineError):
    """Another version became champion since the decision was made."""


class Move(BaseModel):
    """A change of champion, as the journal keeps it while it is under way.

    Attributes:
        kind: What it is called.
        to: The version that becomes champion.
        champion: The champion before it, or None.
        previous: What ``previous`` stood for before it, or None.
        at: When it began (UTC).
        by: Who wanted it.
        reason: Why.
        forced: Whether it went against the gate's verdict.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["promotion", "rollback"]
    to: str
    champion: str | None
    previous: str | None
    at: str
    by: str
    reason: str
    forced: bool = False


def promote(tracking_uri: str, store_uri: str, wanted: str, force: bool = False, reason: str = "") -> str:
    """Make a version champion because a person says so.

    Args:
        tracking_uri: Address of MLflow.
        store_uri: The store; see :meth:`Registry.lock`.
        wanted: The version; see :func:`model_registry.find_version`. A name alone means its candidate.
        force: Promote although the gate's verdict does not allow it.
        reason: Recorded with the version; needed with `force`.

    Returns:
        What was done, as a sentence.

    Raises:
        InputError: There is no such version, its weights are gone, or it has no passing verdict against the present
            champion and `force` is not set, or set without a reason.
        PipelineError: MLflow does not answer.
        StorageError: The store cannot be used.
    """
    if force and not reason.strip():
        raise InputError("A forced promotion needs a reason, which is recorded: add --reason.")
    found = _find(tracking_uri, wanted, CANDIDATE)
    registry, number = Registry(tracking_uri, found.name), str(found.version)
    with exclusive(registry, store_uri) as lock:
        version, aliases = registry.version(number), registry.aliases()
        champion = aliases.get(CHAMPION)
        if champion == number:
            return f"Version {number} of {registry.name} is the champion already."
        _require_weights(registry.name, version)
        objection = _objection(version, champion)
        if objection and not force:
            raise InputError(f"{objection}; to promote it all the same, add --force and --reason.")
        move_champion(registry, lock, number, champion, reason.strip() or "promoted by hand", bool(objection))
    before = f"version {champion} is previous now" if champion else "there was none before"
    return f"Version {number} of {registry.name} is champion; {before}."


def roll_back(tracking_uri: str, store_uri: str, model: str, reason: str = "") -> str:
    """Make the previous champion champion again; the present one becomes ``previous``.

    The version that is rolled back is tagged with that, and no run of the pipeline promotes it again by itself.

    Args:
        tracking_uri: Address of MLflow.
        store_uri: The store; see :meth:`Registry.lock`.
        model: Name of the registered model.
        reason: Recorded with the version that is rolled back.

    Returns:
        What was done, as a sentence.

    Raises:
        InputError: There is no previous champion, or its weights are gone.
        PipelineError: MLflow does not answer.
        StorageError: The store cannot be used.
    """
    registry = Registry(tracking_uri, find_version(tracking_uri, model).name)
    with exclusive(registry, store_uri) as lock:
        aliases = registry.aliases()
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if previous is None or previous == champion:
            raise InputError(f"{registry.name} has no previous champion to go back to; promote a version instead.")
        _require_weights(registry.name, registry.version(previous))
        move_champion(registry, lock, previous, champion, reason.strip() or "rolled back by hand", kind="rollback")
    now = f"version {champion} is previous now" if champion else "there was no champion"
    return f"Version {previous} of {registry.name} is champion again; {now}."


@contextlib.contextmanager
def exclusive(registry: Registry, store_uri: str) -> Iterator[StoreLock]:
    """Hold a model's lock, with what an interrupted promotion left behind put right.

    Raises:
        PipelineError: MLflow does not answer.
        StorageError: The store cannot be used, or another process holds the lock for too long.
    """
    with registry.lock(store_uri) as lock:
        recover(registry)
        yield lock


def move_champion(
    registry: Registry,
    lock: StoreLock,
    to: str,
    expected: str | None,
    reason: str,
    forced: bool = False,
    kind: Literal["promotion", "rollback"] = "promotion",
) -> None:
    """Make a version champion, if the champion is still the one that the decision was made against.

    Args:
        registry: The model's versions.
        lock: Of the model, held.
        to: The version.
        expected: The champion that the decision was made against, or None.
        reason: Why, for the record.
        forced: Whether it goes against the gate's verdict.
        kind: What it is.

    Raises:
        ChampionChanged: Somebody moved the champion past the lock, such as in MLflow's own pages.
        PipelineError: MLflow does not answer.
        StorageError: The lock was lost.
    """
    before = registry.aliases()
    _require(expected, before.get(CHAMPION), registry.name)
    if expected == to:
        return
    move = Move(
        kind=kind,
        to=to,
        champion=expected,
        previous=before.get(PREVIOUS),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=_who(),
        reason=reason,
        forced=forced,
    )
    lock.confirm()
    registry.write_journal(move.model_dump_json())
    if expected is not None:
        registry.set_alias(PREVIOUS, expected)
    lock.confirm()
    now = registry.aliases().get(CHAMPION)
    if now != expected:
        _abandon(registry, move)
        _require(expected, now, registry.name)
    registry.set_alias(CHAMPION, to)
    _complete(registry, move)


def recover(registry: Registry) -> None:
    """Finish or take back a promotion that was interrupted; the lock is held.

    Raises:
        PipelineError: MLflow does not answer, or the journal cannot be read.
    """
    journal = registry.journal()
    if not journal:
        return
    try:
        move = Move.model_validate_json(journal)
    except ValidationError as error:
        raise PipelineError(
            f"The registered model {registry.name} has a note of an unfinished promotion that cannot be read; look at "
            "its aliases, and delete its tag promotion_in_progress."
        ) from error
    champion = registry.aliases().get(CHAMPION)
    if champion == move.to:
        log.warning("Finishing an interrupted %s: version %s of %s is champion", move.kind, move.to, registry.name)
        _complete(registry, move)
    else:
        log.warning("Taking back an interrupted %s of version %s of %s", move.kind, move.to, registry.name)
        _abandon(registry, move)


def rolled_back(version: ModelVersion) -> str:
    """Say that a person took this version out of service; empty if nobody did."""
    at, by, reason = (version.tags.get(tag, "") for tag in ROLLED_BACK)
    return f"version {version.version} was rolled back on {at[:10]} by {by} ({reason})" if at else ""


def _complete(registry: Registry, move: Move) -> None:
    """Record a move of the champion that has happened."""
    values = (move.at, move.by, move.reason, "yes" if move.forced else "")
    registry.tag(move.to, dict(zip(PROMOTED, values, strict=True)) | dict.fromkeys(ROLLED_BACK, ""))
    if move.kind == "rollback" and move.champion is not None:
        registry.tag(move.champion, dict(zip(ROLLED_BACK, (move.at, move.by, move.reason), strict=True)))
    if move.champion is None and move.previous == move.to:
        registry.set_alias(PREVIOUS, None)
    registry.write_journal("")


def _abandon(registry: Registry, move: Move) -> None:
    """Put ``previous`` back; where somebody moved the champion by hand, it already says who was champion before."""
    aliases = registry.aliases()
    if aliases.get(CHAMPION) == move.champion and aliases.get(PREVIOUS) != move.previous:
        registry.set_alias(PREVIOUS, move.previous)
    registry.write_journal("")


def _find(tracking_uri: str, wanted: str, alias: str) -> ModelVersion:
    """Find a version; a name alone means that alias of it."""
    found = find_version(tracking_uri, wanted)
    if wanted.strip().removeprefix("models:/").strip("/") != found.name:
        return found
    return find_version(tracking_uri, f"{found.name}@{alias}")


def _require_weights(name: str, version: ModelVersion) -> None:
    missing = missing_files(version.source)
    if missing:
        raise InputError(
            f"Version {version.version} of {name} cannot become champion: {version.source} lacks "
            f"{', '.join(missing[:3])}; run its training again, or choose another version."
        )


def _objection(version: ModelVersion, champion: str | None) -> str:
    """Why the gate does not allow a promotion; empty if it does."""
    what, verdict = f"Version {version.version} of {version.name}", version.tags.get(VERDICT)
    if verdict is None:
        return f"{what} has no verdict of the gate"
    if verdict != PASSED:
        return f"{what} did not pass the gate ({version.tags.get(REASON, 'no reason given').rstrip('.')})"
    against = version.tags.get(JUDGED_AGAINST, NO_CHAMPION)
    if against in (champion or NO_CHAMPION, ANY_CHAMPION):
        return ""
    then = {NO_CHAMPION: "when there was no champion", str(version.version): "while it was the champion itself"}
    now = f"version {champion} is champion" if champion else "there is none"
    when = then.get(against, f"against version {against}")
    return f"{what} was judged {when}, and now {now}: run its pipeline again to have it judged anew"


def _require(expected: str | None, found: str | None, name: str) -> None:
    if expected != found:
        raise ChampionChanged(
            f"The champion of {name} was {_named(expected)} when the decision was made, and is {_named(found)} now; "
            "nothing was changed: decide again."
        )


def _named(number: str | None) -> str:
    return f"version {number}" if number else "nobody"


def _who() -> str:
    run_id = get_settings().run_id
    if run_id:
        return f"pipeline run {run_id}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
