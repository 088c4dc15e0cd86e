"""Decides whether a model may become champion and puts it into the registry, by reference to its weights."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.lock import StoreLock
from components.common.manifest import Manifest
from components.common.model_registry import CANDIDATE, CHAMPION
from components.common.settings import get_settings
from components.register.card import description, model_card
from components.register.champion import load_champion
from components.register.compare import compare
from components.register.comparison import Comparison
from components.register.evidence import Evidence, load_evidence
from components.register.gate import Check, Verdict, conclude, decide
from components.register.layout import add_mlflow_files
from components.register.promotion import ChampionChanged, exclusive, move_champion, rolled_back
from components.register.registry import Registry
from components.register.report.page import render
from components.register.report.summary import summary
from components.register.settings import RegisterSettings
from components.register.tags import PROMOTED, verdict_tags, version_tags

log = logging.getLogger(__name__)

CARD = "README.md"
_ATTEMPTS = 5
_FORCED = PROMOTED[-1]


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
    place = get_settings()
    if not place.tracking_uri:
        raise InputError("There is no registry to register in; set MLFLOW_TRACKING_URI.")
    uri = _model_uri(model)
    evidence = load_evidence(model, corpus, base_eval, candidate_eval, None, fine_tuned_models, fine_tuned_evals)
    registry = Registry(place.tracking_uri, settings.model_name)
    add_mlflow_files(uri, model.fingerprint)
    known = version_tags(model, corpus, base_eval, candidate_eval, base_model, benchmarks, lineage)
    task = _Registration(registry, model, corpus, evidence, champion_eval, benchmarks, settings, known)
    with exclusive(registry, place.store_uri) as lock:
        return task.run(lock, storage.to_uri(place.store_uri))


@dataclass(frozen=True)
class _Registration:
    """A model that is being registered; the lock of its name is held."""

    registry: Registry
    model: Manifest
    corpus: Manifest
    evidence: Evidence
    champion_eval: Manifest | None
    benchmarks: Manifest | None
    settings: RegisterSettings
    tags: Mapping[str, str]

    def run(self, lock: StoreLock, store: str) -> RegistrationResult:
        """Register; judge again when somebody moves the champion past the lock while the gate deliberates."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._attempt(lock, store)
            except ChampionChanged as change:
                log.warning("%s", change)
        return self._attempt(lock, store)

    def _attempt(self, lock: StoreLock, store: str) -> RegistrationResult:
        holder = self.registry.champion()
        number = str(holder.version) if holder else None
        evidence = dataclasses.replace(self.evidence, champion=load_champion(holder, self.champion_eval))
        comparison = compare(evidence, self._verdict(evidence), self.settings, self.benchmarks)
        uris = {
            "comparison_uri": storage.join(
                store, "comparisons", self.settings.model_name, self.tags["evaluation_fingerprint"], "comparison.json"
            ),
            "card_uri": storage.join(self.tags["model_uri"], CARD),
        }
        tags = {**self.tags, **verdict_tags(comparison, number, self.settings.compare_with_champion), **uris}
        card = model_card(self.registry.name, self.model, self.corpus, comparison, self.settings.card, tags)
        lock.confirm()
        storage.write(uris["comparison_uri"], comparison.model_dump_json().encode())
        storage.write(uris["card_uri"], card.encode())
        version = self._version(tags, comparison)
        aliases = self._settle(lock, version, number, comparison.verdict)
        log.info("%s version %s (%s): %s", self.registry.name, version, ", ".join(aliases), comparison.verdict.reason)
        return self._result(version, aliases, comparison, card, tags)

    def _verdict(self, evidence: Evidence) -> Verdict:
        """Ask the gate; what a person has taken out of service does not come back by itself."""
        verdict = decide(evidence, self.settings)
        refusals = [said for each in self.registry.versions_of(self.model.fingerprint) if (said := rolled_back(each))]
        if not refusals:
            return verdict
        detail = f"{refusals[0]}; promote it by hand if it is to be champion again"
        return conclude([*verdict.checks, Check("rolled back", False, detail)])

    def _version(self, tags: Mapping[str, str], comparison: Comparison) -> str:
        run_id = self.tags.get("mlflow_run_id", "")
        text = description(comparison, tags["card_uri"])
        found = self.registry.add_version(tags["model_uri"], self.model.fingerprint, tags, text, run_id)
        return str(found.version)

    def _settle(self, lock: StoreLock, version: str, champion: str | None, verdict: Verdict) -> list[str]:
        """Make the version the candidate, and champion or not; returns the aliases it then has."""
        lock.confirm()
        self.registry.set_alias(CANDIDATE, version)
        if verdict.passed:
            move_champion(self.registry, lock, version, champion, verdict.reason)
        elif version == champion and not self.registry.version(version).tags.get(_FORCED):
            log.warning("Version %s of %s no longer passes and is champion no more", version, self.registry.name)
            self.registry.set_alias(CHAMPION, None)
        return sorted(alias for alias, holder in self.registry.aliases().items() if holder == version)

    def _result(
        self, version: str, aliases: list[str], comparison: Comparison, card: str, tags: Mapping[str, str]
    ) -> RegistrationResult:
        name = self.registry.name
        return RegistrationResult(
            name=name,
            version=version,
            aliases=aliases,
            verdict=comparison.verdict,
            comparison=comparison,
            card=card,
            html=render(comparison, self.model, self.corpus, self.settings, version, aliases, tags),
            summary=summary(comparison, name, version),
        )


def _model_uri(model: Manifest) -> str:
    uri = model.extra.get("model_uri")
    if model.kind == "model" and isinstance(uri, str):
        return uri
    if "adapter_uri" in model.extra:
        raise InputError(
            f"Model {model.fingerprint} is an adapter, which cannot be loaded by itself, so it is not registered; set "
            "finetune.merge_adapter where it is made, and the merged model is."
        )
    raise InputError(f"The {model.kind} manifest {model.fingerprint} names no model folder (model_uri).")
