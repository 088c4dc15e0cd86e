"""Decides whether a model may become champion and puts it into the registry, by reference to its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.common import storage
from components.common.manifest import Manifest
from components.register.card.card import description, model_card
from components.register.comparison.comparison import Comparison
from components.register.evidence.evidence import load_evidence
from components.register.gate.gate import Verdict, decide
from components.register.registry.layout import add_mlflow_files
from components.register.registry.registration import Registration, tracking_address, weights_of
from components.register.registry.registry import Registry
from components.register.registry.tags import version_tags
from components.register.report.page import render
from components.register.report.summary import summary
from components.register.settings import RegisterSettings

REPORT = "report.html"


@dataclass(frozen=True)
class RegistrationResult:
    """The registered version and why it is, or is not, the champion.

    Attributes:
        comparison: Everything that the verdict rests on.
        card: The model card, in Markdown.
        html: The report, one self-contained page.
        summary: Flat numbers and words for a table of runs.
    """

    name: str
    version: str
    aliases: list[str]
    verdict: Verdict
    comparison: Comparison
    card: str
    html: str
    summary: dict[str, Any]


def register(
    model: Manifest,
    corpus: Manifest,
    base_eval: Manifest,
    candidate_eval: Manifest,
    settings: RegisterSettings,
    lineage: Mapping[str, str],
    champion_eval: Manifest | None = None,
    fine_tuned_models: Sequence[Manifest] = (),
    fine_tuned_evals: Sequence[Manifest] = (),
    base_model: Manifest | None = None,
    benchmarks: Manifest | None = None,
) -> RegistrationResult:
    """Judge a trained model and register it; a model that fails the gate is registered too, but not as champion.

    Registrations of one model's name wait for each other. A model that is registered already keeps its version.

    Args:
        model: The trained model: a whole one; an adapter is merged into its base before.
        corpus: What it was trained on.
        base_eval: Evaluation of the model that training started from.
        candidate_eval: Evaluation of `model`.
        settings: The policy and the registered model's name.
        lineage: Tags of the version, such as the pipeline run, the recipe, the git revision; ``mlflow_run_id`` becomes
            the version's run.
        champion_eval: Evaluation of the champion on the same questions, where the run has made one.
        fine_tuned_models: Fine-tuned bases and candidates.
        fine_tuned_evals: Their evaluations.
        base_model: What training started from, for its name.
        benchmarks: The benchmark files, for the texts of questions.

    Raises:
        InputError: A manifest is not what it should be, or there is no MLflow to register in.
        PipelineError: The registry refuses.
        StorageError: The store cannot be read or written.
    """
    address, uri = tracking_address(), weights_of(model)
    evidence = load_evidence(model, corpus, base_eval, candidate_eval, None, fine_tuned_models, fine_tuned_evals)
    name = settings.model_name
    registry = Registry(address, name)
    add_mlflow_files(uri, model.fingerprint)
    done = Registration(
        registry=registry,
        model=model,
        evidence=evidence,
        settings=settings,
        tags=version_tags(model, corpus, base_eval, candidate_eval, base_model, benchmarks, lineage),
        judge=lambda evidence: decide(evidence, settings),
        card=lambda comparison, tags: model_card(name, model, corpus, comparison, settings.card, tags),
        description=description,
        champion_eval=champion_eval,
        benchmarks=benchmarks,
    ).run()
    html = render(done.comparison, model, corpus, settings, done.version, done.aliases, done.tags)
    report_uri = storage.join(done.tags["comparison_uri"].rpartition("/")[0], REPORT)
    storage.write(report_uri, html.encode())
    registry.tag(done.version, {"report_uri": report_uri})
    return RegistrationResult(
        name=name,
        version=done.version,
        aliases=done.aliases,
        verdict=done.comparison.verdict,
        comparison=done.comparison,
        card=done.card,
        html=html,
        summary=summary(done.comparison, name, done.version) | {"report_uri": report_uri},
    )
