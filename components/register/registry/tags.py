"""What a model version says about itself, as tags: MLflow and `lineage` show them, the next gate needs them."""

import json
from collections.abc import Mapping
from typing import Any

from components.common import storage
from components.common.manifest import Manifest
from components.common.model_registry import TAG_LIMIT
from components.common.settings import get_settings
from components.register.comparison.comparison import Comparison, Estimate

VERDICT = "verdict"
PASSED = "passed"
FAILED = "failed"
REASON = "verdict_reason"
JUDGED_AGAINST = "judged_against"
NO_CHAMPION = "none"
ANY_CHAMPION = "any"
PROMOTED = ("promoted_at", "promoted_by", "promotion_reason", "promotion_forced")
TAUGHT_FROM = "taught_from"
TAUGHT_WITH = ("instructions", "instructions_fingerprint", "instructions_learned")
ROLLED_BACK = ("rolled_back_at", "rolled_back_by", "rollback_reason")


def run_tags(recipe: str, mlflow_run_id: str) -> dict[str, str]:
    """Return which run, code and images a model comes from, as far as the environment says.

    Args:
        recipe: The recipe's name.
        mlflow_run_id: Of the step that registers; it becomes the version's run.
    """
    place = get_settings()
    return {
        "recipe": recipe,
        "pipeline_run_id": place.run_id,
        "pipeline_run_url": place.run_url,
        "git_revision": place.git_revision,
        "image": place.image,
        "trainer_image": place.trainer_image,
        "mlflow_run_id": mlflow_run_id,
    }


def version_tags(
    model: Manifest,
    corpus: Manifest,
    base_eval: Manifest,
    candidate_eval: Manifest,
    base_model: Manifest | None,
    benchmarks: Manifest | None,
    lineage: Mapping[str, str],
) -> dict[str, str]:
    """Return what is known before the gate has spoken; a tag that is empty is not kept.

    Args:
        model: The trained model.
        corpus: What it was trained on.
        base_eval: Evaluation of the model that training started from.
        candidate_eval: Evaluation of `model`.
        base_model: What training started from, for its name.
        benchmarks: The benchmark files.
        lineage: The caller's; ours come after it, so that it cannot lie about them.
    """
    base = base_model.extra if base_model else {}
    return {
        **lineage,
        "train_fingerprint": model.fingerprint,
        "model_uri": str(model.extra["model_uri"]),
        "model_manifest_uri": _manifest_uri(model),
        "base_fingerprint": base_eval.inputs.get("model", ""),
        "base_model": str(base.get("name", "")),
        "base_model_commit": str(base.get("commit", "")),
        "base_model_uri": str(model.extra.get("base_model_uri", base.get("model_uri", ""))),
        "corpus_fingerprint": corpus.fingerprint,
        "sources": json.dumps(corpus.extra.get("origins", []), sort_keys=True)[:TAG_LIMIT],
        "datasets": json.dumps(_datasets(corpus, candidate_eval, benchmarks), sort_keys=True),
        "evaluation_fingerprint": candidate_eval.fingerprint,
        "evaluation_uri": str(candidate_eval.extra.get("manifest_uri", "")),
        "base_evaluation_uri": str(base_eval.extra.get("manifest_uri", "")),
    }


def verdict_tags(comparison: Comparison, champion: str | None, compared: bool) -> dict[str, str]:
    """Return what the gate found.

    Args:
        comparison: What was measured, and the verdict.
        champion: Number of the version that was champion then.
        compared: Whether the policy compares with champions.
    """
    verdict = comparison.verdict
    return {
        VERDICT: PASSED if verdict.passed else FAILED,
        REASON: verdict.reason,
        JUDGED_AGAINST: (champion or NO_CHAMPION) if compared else ANY_CHAMPION,
        "licences": json.dumps(_fitting(comparison.licences.counts)),
        "articles": str(sum(comparison.licences.counts.values())),
        "evaluation": json.dumps(_numbers(comparison)),
    }


def _manifest_uri(model: Manifest) -> str:
    """Where the train stage keeps the manifest of a model; empty for one that came otherwise."""
    uri = storage.join(str(model.extra["model_uri"]).rstrip("/").rpartition("/")[0], "manifest.json")
    return uri if storage.exists(uri) else ""


def _datasets(corpus: Manifest, candidate_eval: Manifest, benchmarks: Manifest | None) -> dict[str, str]:
    hashes = {
        "corpus": corpus.fingerprint,
        "benchmarks": candidate_eval.inputs.get("benchmarks", ""),
        "held_out": str(candidate_eval.extra.get("validation_hash", "")),
        **{f"{name} questions": mark for name, mark in candidate_eval.extra.get("question_hashes", {}).items()},
        **{shard.name: shard.sha256 for shard in (benchmarks.shards if benchmarks else [])},
    }
    return {name: mark for name, mark in hashes.items() if mark}


def _fitting(counts: Mapping[str, int]) -> dict[str, int]:
    """Keep the largest counts, as many as a tag can hold."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = len(ordered)
    while len(json.dumps(dict(ordered[:kept]))) > TAG_LIMIT - 40:
        kept -= 1
    rest = sum(count for _, count in ordered[kept:])
    return dict(ordered[:kept]) | ({"others": rest} if rest else {})


def _numbers(comparison: Comparison) -> dict[str, Any]:
    """Return the results of candidate and base as they are: value, low, high of each measure."""
    found: dict[str, Any] = {}
    for each in comparison.models:
        if each.fine_tuning is None and each.role in ("candidate", "base"):
            measures = {"perplexity": each.perplexity} | {
                name: score.accuracy for name, score in each.benchmarks.items()
            }
            for name, estimate in measures.items():
                if estimate is not None:
                    found.setdefault(name, {})[each.role] = _rounded(estimate)
    return found


def _rounded(estimate: Estimate) -> list[float]:
    return [round(number, 5) for number in (estimate.value, estimate.low, estimate.high)]
