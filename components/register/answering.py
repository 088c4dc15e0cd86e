"""Registers a model that follows instructions, under a name of its own beside the model that it was taught from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.common.errors import InputError
from components.common.instruction_set import instruction_shard
from components.common.manifest import Manifest
from components.register.card.answering_card import EXAMPLE, Instructions, answering_card, answering_description
from components.register.comparison.comparison import Comparison
from components.register.evidence.contamination import load_contamination
from components.register.evidence.evidence import Evidence, corpora_of
from components.register.evidence.licences import count_licences
from components.register.evidence.results import load_evaluation
from components.register.gate.answering_gate import TaughtFrom, decide_answering, unreadable
from components.register.gate.verdict import Verdict
from components.register.registry.layout import add_mlflow_files
from components.register.registry.registration import Registration, tracking_address, weights_of
from components.register.registry.registry import Registry
from components.register.registry.tags import TAUGHT_FROM, TAUGHT_WITH, version_tags
from components.register.report.summary import summary
from components.register.settings import RegisterSettings


@dataclass(frozen=True)
class AnsweringResult:
    """The registered version and why it is, or is not, the champion of its name.

    Attributes:
        comparison: Everything that the verdict rests on; its base is the model that it was taught from.
        card: The model card, in Markdown.
        summary: Flat numbers and words for a table of runs.
    """

    name: str
    version: str
    aliases: list[str]
    verdict: Verdict
    model_uri: str
    comparison: Comparison
    card: str
    summary: dict[str, Any]


def register_answering(
    run: str,
    model: Manifest,
    evaluation: Manifest,
    parent: Manifest,
    parent_eval: Manifest,
    taught_from: TaughtFrom,
    corpus: Manifest,
    benchmarks: Manifest,
    settings: RegisterSettings,
    lineage: Mapping[str, str],
) -> AnsweringResult:
    """Judge a model that was taught to follow instructions and register it as ``<model name>-<run>``.

    All is as :func:`components.register.register.register` does it, but for the gate
    (:func:`components.register.gate.answering_gate.decide_answering`).

    Args:
        run: Name of the fine-tuning run.
        model: What it made: a whole model; an adapter is merged into its base before.
        evaluation: Evaluation of `model`: its written answers.
        parent: The trained model that it was taught from.
        parent_eval: Evaluation of `parent` as it is.
        taught_from: What the registration of `parent` says.
        corpus: What `parent` was trained on.
        benchmarks: The benchmark files, with the instruction set.
        settings: The policy and the name of `parent`.
        lineage: Tags of the version, such as the pipeline run, the recipe, the git revision; ``mlflow_run_id`` becomes
            the version's run.

    Raises:
        InputError: A manifest is not what it should be, or there is no MLflow to register in.
        PipelineError: The registry refuses.
        StorageError: The store cannot be read or written.
    """
    address, uri = tracking_address(), weights_of(model)
    _check_origin(model, evaluation, parent, parent_eval, taught_from)
    taught = _instructions(model, benchmarks)
    corpora = corpora_of(parent, corpus)
    evidence = Evidence(
        base=load_evaluation(parent_eval),
        candidate=load_evaluation(evaluation),
        contamination=load_contamination(corpora),
        licences=count_licences(corpora),
        learned_questions=bool(taught.tasks),
    )
    name = f"{settings.model_name}-{run}"
    tags = version_tags(model, corpus, parent_eval, evaluation, None, benchmarks, lineage)
    add_mlflow_files(uri, model.fingerprint, EXAMPLE)
    done = Registration(
        registry=Registry(address, name),
        model=model,
        evidence=evidence,
        settings=settings,
        tags=tags
        | {TAUGHT_FROM: taught_from.title}
        | dict(zip(TAUGHT_WITH, (taught.place, taught.fingerprint, str(taught.learned)), strict=True)),
        judge=lambda evidence: decide_answering(evidence, taught_from, settings),
        card=lambda comparison, tags: answering_card(name, model, corpus, comparison, settings.card, tags, taught),
        description=lambda comparison, card_uri: answering_description(comparison, taught_from.title, card_uri),
        benchmarks=benchmarks,
    ).run()
    return AnsweringResult(
        name=name,
        version=done.version,
        aliases=done.aliases,
        verdict=done.comparison.verdict,
        model_uri=uri,
        comparison=done.comparison,
        card=done.card,
        summary=summary(done.comparison, name, done.version)
        | {f"{each}_unreadable": unreadable(found) for each, found in evidence.candidate.benchmarks.items()}
        | {TAUGHT_FROM: taught_from.title},
    )


def _check_origin(
    model: Manifest, evaluation: Manifest, parent: Manifest, parent_eval: Manifest, taught_from: TaughtFrom
) -> None:
    """Refuse what does not belong together: the verdict would be on another model."""
    claims = {
        "evaluation": (evaluation.inputs.get("model"), model),
        "evaluation of the model that it was taught from": (parent_eval.inputs.get("model"), parent),
        "registration": (taught_from.model_fingerprint, parent),
        "fine-tuning": (model.inputs.get("base_model"), parent),
    }
    for what, (claimed, meant) in claims.items():
        if claimed != meant.fingerprint:
            raise InputError(f"The {what} is of model {claimed}, not of {meant.fingerprint}.")
    if model.settings.get("objective") != "instruct":
        raise InputError(
            f"Model {model.fingerprint} was given as one that follows instructions, and was not taught to."
        )


def _instructions(model: Manifest, benchmarks: Manifest) -> Instructions:
    if model.inputs.get("benchmarks") != benchmarks.fingerprint:
        raise InputError(
            f"Model {model.fingerprint} learned from the benchmarks {model.inputs.get('benchmarks')}, not from "
            f"{benchmarks.fingerprint}."
        )
    shard = instruction_shard(benchmarks)
    return Instructions(
        place=str(benchmarks.settings.get("instructions", "")),
        fingerprint=shard.sha256,
        lines=shard.rows,
        learned=int(model.totals.get("instructions", 0)),
        tasks=tuple(sorted(model.settings.get("tasks", []))),
    )
