"""Decides whether a model may become champion and puts it into the registry, by reference to its weights."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.register import report
from components.register.gate import Check, Verdict, conclude, decide
from components.register.layout import add_mlflow_files
from components.register.registry import FINGERPRINT_TAG, Registry
from components.register.results import Evaluation, load_evaluation
from components.register.settings import RegisterSettings

log = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation_uri"


@dataclass(frozen=True)
class RegistrationResult:
    """The registered version and why it is, or is not, the champion.

    Attributes:
        html: The report, one self-contained page.
        summary: Flat numbers and words for a table of runs.
    """

    name: str
    version: str
    aliases: list[str]
    verdict: Verdict
    html: str
    summary: dict[str, Any]


def register(
    model: Manifest,
    corpus: Manifest,
    base_eval: Manifest,
    candidate_eval: Manifest,
    settings: RegisterSettings,
    lineage: Mapping[str, str],
) -> RegistrationResult:
    """Judge a trained model and register it; a model that fails the gate is registered too, but not as champion.

    Args:
        model: The trained model.
        corpus: What it was trained on.
        base_eval: Evaluation of the model that training started from.
        candidate_eval: Evaluation of ``model``.
        settings: Thresholds and the registered model's name.
        lineage: Tags of the version, such as the pipeline run, the recipe, the git revision; ``mlflow_run_id`` becomes
            the version's run.

    Raises:
        InputError: A manifest is not what it should be, or there is no MLflow to register in.
        PipelineError: The registry refuses.
        StorageError: The store cannot be read or written.
    """
    if candidate_eval.inputs.get("model") != model.fingerprint:
        raise InputError(
            f"The candidate's evaluation is of model {candidate_eval.inputs.get('model')}, not of {model.fingerprint}."
        )
    if not get_settings().tracking_uri:
        raise InputError("There is no registry to register in; set MLFLOW_TRACKING_URI.")
    base, candidate = load_evaluation(base_eval), load_evaluation(candidate_eval)
    registry = Registry(get_settings().tracking_uri, settings.model_name)
    champion, obstacles = _champion(registry, model, settings)
    verdict = decide(base, candidate, champion, settings)
    if obstacles:
        verdict = conclude([*verdict.checks, *obstacles])
    uri = _model_uri(model)
    add_mlflow_files(uri, model.fingerprint)
    tags = _tags(model, corpus, base_eval, candidate_eval, verdict, lineage)
    description = report.description(verdict, base, candidate, settings)
    version = registry.add_version(uri, model.fingerprint, tags, description, lineage.get("mlflow_run_id", ""))
    aliases = registry.set_aliases(str(version.version), champion=verdict.passed)
    log.info("%s version %s (%s): %s", settings.model_name, version.version, ", ".join(aliases), verdict.reason)
    return RegistrationResult(
        name=settings.model_name,
        version=str(version.version),
        aliases=aliases,
        verdict=verdict,
        html=report.render(verdict, base, candidate, champion, settings, str(version.version), tags),
        summary=report.summary(verdict, base, candidate, settings.model_name, str(version.version)),
    )


def _champion(registry: Registry, model: Manifest, settings: RegisterSettings) -> tuple[Evaluation | None, list[Check]]:
    """Return the champion's evaluation, or the failed check that it cannot be had.

    A model is not compared with itself: on a rerun the champion may be the candidate.
    """
    holder = registry.champion()
    if holder is None or not settings.compare_with_champion or holder.tags.get(FINGERPRINT_TAG) == model.fingerprint:
        return None, []
    try:
        return load_evaluation(Manifest.load_uri(holder.tags[EVALUATION_TAG])), []
    except KeyError:
        detail = f"the champion, version {holder.version}, has no evaluation to compare with (tag {EVALUATION_TAG})"
    except PipelineError as error:
        detail = f"the evaluation of the champion, version {holder.version}, cannot be read: {str(error).rstrip('.')}"
    return None, [Check("comparable with champion", False, detail)]


def _model_uri(model: Manifest) -> str:
    uri = model.extra.get("model_uri")
    if model.kind != "model" or not isinstance(uri, str):
        raise InputError(f"The {model.kind} manifest {model.fingerprint} names no model folder (model_uri).")
    return uri


def _tags(
    model: Manifest,
    corpus: Manifest,
    base_eval: Manifest,
    candidate_eval: Manifest,
    verdict: Verdict,
    lineage: Mapping[str, str],
) -> dict[str, str]:
    """What the version says about where it comes from; the caller's lineage first, so that it cannot lie about ours."""
    every = {
        **lineage,
        "base_fingerprint": base_eval.inputs.get("model", ""),
        "corpus_fingerprint": corpus.fingerprint,
        "evaluation_fingerprint": candidate_eval.fingerprint,
        EVALUATION_TAG: str(candidate_eval.extra.get("manifest_uri", "")),
        "base_evaluation_uri": str(base_eval.extra.get("manifest_uri", "")),
        "train_fingerprint": model.fingerprint,
        "sources": json.dumps(corpus.extra.get("origins", []), sort_keys=True),
        "licences": json.dumps(corpus.extra.get("counts", {}).get("licence", {}), sort_keys=True),
        "verdict": "passed" if verdict.passed else "failed",
        "verdict_reason": verdict.reason,
    }
    return {key: value for key, value in every.items() if value}
