"""A model that is judged goes into the registry, by reference to its weights: the same whatever its gate asks."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from components.common import storage
from components.common.errors import InputError
from components.common.lock import StoreLock
from components.common.manifest import Manifest
from components.common.model_registry import CANDIDATE, CHAMPION
from components.common.settings import get_settings
from components.register.comparison.compare import compare
from components.register.comparison.comparison import Comparison
from components.register.evidence.champion import load_champion
from components.register.evidence.evidence import Evidence
from components.register.gate.verdict import Check, Verdict, conclude
from components.register.registry.promotion import ChampionChanged, exclusive, move_champion, rolled_back
from components.register.registry.registry import Registry
from components.register.registry.tags import PROMOTED, verdict_tags
from components.register.settings import RegisterSettings

log = logging.getLogger(__name__)

CARD = "README.md"
_ATTEMPTS = 5
_FORCED = PROMOTED[-1]


@dataclass(frozen=True)
class Registered:
    """What came of a registration.

    Attributes:
        comparison: Everything that the verdict rests on.
        card: The model card, in Markdown.
        tags: Of the version.
    """

    version: str
    aliases: list[str]
    comparison: Comparison
    card: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Registration:
    """A model on its way into the registry.

    Attributes:
        registry: The versions of its name.
        evidence: What is known of it, without the champion, who is looked up when its turn has come.
        settings: The policy.
        tags: What is known before the gate has spoken.
        judge: The gate.
        card: Writes the model card from the comparison and the version's tags.
        description: Writes the text of the registry's page from the comparison and the card's address.
        champion_eval: Evaluation of the champion on the same questions, where the run has made one.
        benchmarks: The benchmark files, for the texts of questions.
    """

    registry: Registry
    model: Manifest
    evidence: Evidence
    settings: RegisterSettings
    tags: Mapping[str, str]
    judge: Callable[[Evidence], Verdict]
    card: Callable[[Comparison, Mapping[str, str]], str]
    description: Callable[[Comparison, str], str]
    champion_eval: Manifest | None = None
    benchmarks: Manifest | None = None

    def run(self) -> Registered:
        """Judge the model and register it; one that fails the gate is registered too, but not as champion.

        Registrations of one name wait for each other. It is judged again when somebody moves the champion past the
        lock while the gate deliberates.

        Raises:
            InputError: A manifest is not what it should be.
            PipelineError: The registry refuses.
            StorageError: The store cannot be read or written.
        """
        store = get_settings().store_uri
        with exclusive(self.registry, store) as lock:
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._attempt(lock, storage.to_uri(store))
                except ChampionChanged as change:
                    log.warning("%s", change)
            return self._attempt(lock, storage.to_uri(store))

    def _attempt(self, lock: StoreLock, store: str) -> Registered:
        holder = self.registry.champion()
        number = str(holder.version) if holder else None
        evidence = dataclasses.replace(self.evidence, champion=load_champion(holder, self.champion_eval))
        comparison = compare(evidence, self._verdict(evidence), self.settings, self.benchmarks)
        uris = {
            "comparison_uri": storage.join(
                store, "comparisons", self.registry.name, self.tags["evaluation_fingerprint"], "comparison.json"
            ),
            "card_uri": storage.join(self.tags["model_uri"], CARD),
        }
        tags = {**self.tags, **verdict_tags(comparison, number, self.settings.compare_with_champion), **uris}
        card = self.card(comparison, tags)
        lock.confirm()
        storage.write(uris["comparison_uri"], comparison.model_dump_json().encode())
        storage.write(uris["card_uri"], card.encode())
        version = self._version(tags, comparison)
        aliases = self._settle(lock, version, number, comparison.verdict)
        log.info("%s version %s (%s): %s", self.registry.name, version, ", ".join(aliases), comparison.verdict.reason)
        return Registered(version, aliases, comparison, card, tags)

    def _verdict(self, evidence: Evidence) -> Verdict:
        """Ask the gate; what a person has taken out of service does not come back by itself."""
        verdict = self.judge(evidence)
        refusals = [said for each in self.registry.versions_of(self.model.fingerprint) if (said := rolled_back(each))]
        if not refusals:
            return verdict
        detail = f"{refusals[0]}; promote it by hand if it is to be champion again"
        return conclude([*verdict.checks, Check("rolled back", False, detail)])

    def _version(self, tags: Mapping[str, str], comparison: Comparison) -> str:
        run_id = self.tags.get("mlflow_run_id", "")
        text = self.description(comparison, tags["card_uri"])
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


def tracking_address() -> str:
    """Return the address of MLflow.

    Raises:
        InputError: There is none.
    """
    address = get_settings().tracking_uri
    if not address:
        raise InputError("There is no registry to register in; set MLFLOW_TRACKING_URI.")
    return address


def weights_of(model: Manifest) -> str:
    """Return the folder of a whole model.

    Raises:
        InputError: It is an adapter alone, or no model.
    """
    uri = model.extra.get("model_uri")
    if model.kind == "model" and isinstance(uri, str):
        return uri
    if "adapter_uri" in model.extra:
        raise InputError(
            f"Model {model.fingerprint} is an adapter, which cannot be loaded by itself, so it is not registered; set "
            "finetune.merge_adapter where it is made, and the merged model is."
        )
    raise InputError(f"The {model.kind} manifest {model.fingerprint} names no model folder (model_uri).")
