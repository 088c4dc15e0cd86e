"""The images that pods will run: how they are named, and whether their registry has them."""

from collections.abc import Iterator

from components.common.settings import get_settings
from components.preflight.findings import Finding, failed, ok, unknown, warning
from components.preflight.registry import Reference, look_up, read_reference
from components.preflight.settings import Situation


def look_at_trainer_image(situation: Situation) -> Iterator[Finding]:
    """Say whether the job's pods can pull their image, as far as that can be known from here."""
    yield _image("Image of the trainer", situation.train.cluster.image or get_settings().trainer_image)


def look_at_steps_image(_situation: Situation) -> Iterator[Finding]:
    """Say the same of the steps' image, where no step runs yet."""
    yield _image("Image of the steps", get_settings().image)


def _image(subject: str, name: str) -> Finding:
    reference = read_reference(name)
    if reference is None:
        return failed(
            subject, f"{name!r} is no name of an image.", "Write registry/name:tag or registry/name@sha256:..."
        )
    state, said = look_up(reference)
    if state == "missing":
        return failed(
            subject, f"{reference.registry} has no {name}: {said}.", "Push it (make push), or correct its name."
        )
    by_hand = f"See it by hand on a node: crictl pull {name}"
    if problem := _naming(reference):
        seen = f"{name} can be pulled" if state == "there" else f"{name} cannot be looked up from here ({said})"
        remedy = "Name it by its digest, as make push prints it: a tag can move between two pods of a run."
        return warning(subject, f"{seen}; {problem}.", remedy if state == "there" else f"{remedy} {by_hand}.")
    if state == "there":
        return ok(subject, f"{name} can be pulled, {said}.")
    return unknown(subject, f"{reference.registry} does not show us {name}: {said}.", f"{by_hand}.")


def _naming(reference: Reference) -> str:
    if reference.digest:
        return ""
    if reference.tag == "latest":
        return "it is called latest, which is another image tomorrow"
    return "it has no digest"
