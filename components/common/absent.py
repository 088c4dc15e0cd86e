"""A manifest that says there is nothing: what a step hands on when its subject does not exist, such as a champion."""

from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest

_KIND = "absent"


def absent(kind: str, obstacle: str = "") -> Manifest:
    """Return the manifest that stands for one that does not exist.

    Args:
        kind: What it would have been, such as ``model``.
        obstacle: Why it cannot be had, where it should exist; empty when there simply is none.
    """
    return Manifest(
        kind=_KIND,
        fingerprint=fingerprint(_KIND, kind, obstacle),
        inputs={},
        settings={},
        shards=[],
        totals={},
        extra={"of": kind, "obstacle": obstacle},
    )


def is_absent(manifest: Manifest) -> bool:
    """Tell whether a manifest stands for nothing."""
    return manifest.kind == _KIND
