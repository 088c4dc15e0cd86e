"""KFP interface of the register stage."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List of artifacts only

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def champion_model(register: dict, candidate: dsl.Input[dsl.Model], model: dsl.Output[dsl.Model]):
    """Find the champion that the candidate will be compared with, for it to be evaluated on the same questions."""
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.register.evidence.champion import champion_model as logic
    from components.register.registry.registry import Registry
    from components.register.settings import RegisterSettings

    with step("Find the champion") as current:
        settings, place = RegisterSettings(**register), get_settings()
        holder = Registry(place.tracking_uri, settings.model_name).champion() if place.tracking_uri else None
        manifest = logic(holder if settings.compare_with_champion else None, Manifest.load(candidate.path).fingerprint)
        manifest.save(model.path)
        model.metadata.update(manifest.metadata() | ({"version": str(holder.version)} if holder else {}))
        current.report({"champion_version": int(holder.version) if holder else 0})


@kfp_step
def register_model(
    recipe: str,
    register: dict,
    model: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    base_evaluation: dsl.Input[dsl.Dataset],
    candidate_evaluation: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    card: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    pubmedqa: dsl.Output[dsl.ClassificationMetrics],
    base_model: dsl.Input[dsl.Model] | None = None,
    benchmarks: dsl.Input[dsl.Dataset] | None = None,
    champion_evaluation: dsl.Input[dsl.Dataset] | None = None,
    fine_tuned_bases: dsl.Input[List[dsl.Model]] | None = None,
    fine_tuned_candidates: dsl.Input[List[dsl.Model]] | None = None,
    fine_tuned_base_evaluations: dsl.Input[List[dsl.Dataset]] | None = None,
    fine_tuned_candidate_evaluations: dsl.Input[List[dsl.Dataset]] | None = None,
):
    """Compare the candidate with the base (and the champion), register it, and promote it if it passes the gate."""
    import json
    from pathlib import Path

    from components.common.manifest import Manifest
    from components.common.step import step
    from components.register.register import register as logic
    from components.register.registry.tags import run_tags
    from components.register.report.summary import confusion, numbers
    from components.register.settings import RegisterSettings

    def manifest(artifact):
        return Manifest.load(artifact.path) if artifact else None

    def manifests(*lists):
        return [manifest(each) for artifacts in lists for each in artifacts or []]

    with step("Register the model") as current:
        settings = RegisterSettings(**register)
        current.run.log_params({"register": settings.model_dump(mode="json")})
        trained = Manifest.load(model.path)
        result = logic(
            trained,
            Manifest.load(corpus.path),
            Manifest.load(base_evaluation.path),
            Manifest.load(candidate_evaluation.path),
            settings,
            run_tags(recipe, current.run.run_id),
            champion_eval=manifest(champion_evaluation),
            fine_tuned_models=manifests(fine_tuned_bases, fine_tuned_candidates),
            fine_tuned_evals=manifests(fine_tuned_base_evaluations, fine_tuned_candidate_evaluations),
            base_model=manifest(base_model),
            benchmarks=manifest(benchmarks),
        )
        Path(registration.path).write_text(json.dumps(result.summary, indent=1), encoding="utf-8")
        registration.metadata.update(result.summary)
        registration.metadata.update({"aliases": result.aliases, "model_uri": trained.extra["model_uri"]})
        Path(report.path).write_text(result.html, encoding="utf-8")
        Path(card.path).write_text(result.card, encoding="utf-8")
        # An artifact without a file counts as missing, and its step would never come from the cache.
        found, table = numbers(result.comparison), confusion(result.comparison)
        Path(metrics.path).write_text(json.dumps(found), encoding="utf-8")
        for name, value in found.items():
            metrics.log_metric(name, value)
        Path(pubmedqa.path).write_text(table.model_dump_json() if table else "null", encoding="utf-8")
        if table:
            pubmedqa.log_confusion_matrix(table.labels, table.counts)
        current.run.log_page(report.path, "report.html")
        current.run.log_page(card.path, "model_card.md")
        current.run.log_text(result.comparison.model_dump_json(indent=1), "comparison.json")
        current.report({"gate_passed": int(result.verdict.passed), "version": int(result.version)})


@kfp_step
def register_answering_model(
    recipe: str,
    register: dict,
    finetune: dict,
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Dataset],
    parent: dsl.Input[dsl.Model],
    parent_evaluation: dsl.Input[dsl.Dataset],
    parent_registration: dsl.Input[dsl.Artifact],
    corpus: dsl.Input[dsl.Dataset],
    benchmarks: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
    card: dsl.Output[dsl.Markdown],
):
    """Register the model that run `finetune` taught to answer, beside its parent; promote it if it passes its gate."""
    import json
    from pathlib import Path

    from components.common.manifest import Manifest
    from components.common.step import step
    from components.register.answering import register_answering as logic
    from components.register.gate.answering_gate import TaughtFrom
    from components.register.registry.tags import run_tags
    from components.register.settings import RegisterSettings

    run = finetune["name"]
    with step(f"Register the model that answers ({run})") as current:
        settings = RegisterSettings(**register)
        current.run.log_params({"register": settings.model_dump(mode="json")})
        result = logic(
            run,
            Manifest.load(model.path),
            Manifest.load(evaluation.path),
            Manifest.load(parent.path),
            Manifest.load(parent_evaluation.path),
            TaughtFrom.read(Path(parent_registration.path).read_text(encoding="utf-8")),
            Manifest.load(corpus.path),
            Manifest.load(benchmarks.path),
            settings,
            run_tags(recipe, current.run.run_id),
        )
        Path(registration.path).write_text(json.dumps(result.summary, indent=1), encoding="utf-8")
        registration.metadata.update(result.summary)
        registration.metadata.update({"aliases": result.aliases, "model_uri": result.model_uri})
        Path(card.path).write_text(result.card, encoding="utf-8")
        current.run.log_page(card.path, "model_card.md")
        current.run.log_text(result.comparison.model_dump_json(indent=1), "comparison.json")
        current.report({"gate_passed": int(result.verdict.passed), "version": int(result.version)})
