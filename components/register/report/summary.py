"""The numbers of a comparison outside its page: a row of the run table, KFP's metrics and its confusion matrix."""

from typing import Any

from components.register.comparison.comparison import Comparison, Confusion, ModelResults

_ROLES = ("base", "candidate")
_CONFUSION_OF = "pubmedqa"


def summary(comparison: Comparison, name: str, version: str) -> dict[str, Any]:
    """Return one flat row: names to numbers and words. A number that does not exist is left out."""
    verdict = comparison.verdict
    row = {"model": name, "version": version, "passed": verdict.passed, "reason": verdict.reason}
    if candidate := _as_is(comparison).get("candidate"):
        # Not `fingerprint`: the cache takes what has one for a manifest.
        row["model_fingerprint"] = candidate.model
    return row | numbers(comparison)


def numbers(comparison: Comparison) -> dict[str, float]:
    """Return perplexities and accuracies of base and candidate as they are, such as ``medqa_candidate``."""
    models = _as_is(comparison)
    found = {
        f"perplexity_{role}": model.perplexity.value for role, model in models.items() if model.perplexity is not None
    }
    for role, model in models.items():
        found |= {f"{name}_{role}": score.accuracy.value for name, score in model.benchmarks.items()}
    return found


def confusion(comparison: Comparison) -> Confusion | None:
    """Return what the candidate answered to PubMedQA where what was right; None where it was not asked."""
    candidate = _as_is(comparison).get("candidate")
    score = candidate.benchmarks.get(_CONFUSION_OF) if candidate else None
    return score.confusion if score else None


def _as_is(comparison: Comparison) -> dict[str, ModelResults]:
    return {each.role: each for each in comparison.models if each.fine_tuning is None and each.role in _ROLES}
