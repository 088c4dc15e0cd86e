"""The champion as the gate meets it: its results, or the sentence that says why it cannot be compared with."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow.entities.model_registry import ModelVersion

from components.common.absent import absent, is_absent
from components.common.errors import PipelineError
from components.common.manifest import Manifest
from components.register.comparison.comparison import Comparison
from components.register.evidence.results import Evaluation, FineTuning, load_evaluation
from components.register.registry.layout import missing_files
from components.register.registry.registry import FINGERPRINT_TAG

log = logging.getLogger(__name__)

EVALUATION_TAG = "evaluation_uri"
MODEL_TAG = "model_manifest_uri"
COMPARISON_TAG = "comparison_uri"


@dataclass(frozen=True)
class Champion:
    """The model that holds the place.

    Attributes:
        version: Its number in the registry.
        model: Its fingerprint.
        evaluation: Its results; None when they cannot be had.
        fine_tuned: Its results after fine-tuning, where it has any.
        obstacle: Why nothing can be compared with it, as a clause without a full stop; empty when something can.
    """

    version: str
    model: str
    evaluation: Evaluation | None = None
    fine_tuned: Mapping[FineTuning, Evaluation] = field(default_factory=dict)
    obstacle: str = ""

    @property
    def refusal(self) -> str:
        """Why it cannot be compared with at all; empty when it can."""
        return self.obstacle or ("" if self.evaluation else f"the champion, version {self.version}, was not evaluated")


def champion_model(holder: ModelVersion | None, candidate: str = "") -> Manifest:
    """Return the manifest of the champion's model, so that the pipeline can evaluate it on this run's questions.

    Args:
        holder: The version that holds the alias; None when nobody does.
        candidate: Fingerprint of this run's model: on a rerun it may be the champion itself, and has nobody to beat.

    Returns:
        Manifest of kind ``model``, or an absent one: with the obstacle, when there is a champion that cannot be had.
    """
    if holder is None or holder.tags.get(FINGERPRINT_TAG) == candidate != "":
        log.info("There is no other champion to compare with.")
        return absent("model")
    if obstacle := _weights_obstacle(holder):
        log.warning("The champion cannot be evaluated: %s.", obstacle)
        return absent("model", obstacle)
    try:
        return Manifest.load_uri(holder.tags[MODEL_TAG])
    except KeyError:
        obstacle = f"the champion, version {holder.version}, does not say where its manifest lies (tag {MODEL_TAG})"
    except PipelineError as error:
        obstacle = f"the manifest of the champion, version {holder.version}, cannot be read: {_clause(error)}"
    log.warning("The champion cannot be evaluated: %s.", obstacle)
    return absent("model", obstacle)


def load_champion(holder: ModelVersion | None, fresh: Manifest | None = None) -> Champion | None:
    """Return what is known of the champion; what is wrong with it becomes its obstacle and is never raised.

    Args:
        holder: The version that holds the alias; None when nobody does.
        fresh: Its evaluation on this run's questions and articles, or an absent manifest. It counts only when it is of
            this very champion: the place may have changed hands since; then the evaluation of its own run does.
    """
    if holder is None:
        return None
    version, model = str(holder.version), str(holder.tags.get(FINGERPRINT_TAG, ""))
    if obstacle := _weights_obstacle(holder):
        return Champion(version, model, obstacle=obstacle)
    try:
        evaluation = load_evaluation(_evaluation(holder, model, fresh))
        return Champion(version, model, evaluation, _fine_tuned(holder))
    except KeyError:
        obstacle = f"the champion, version {version}, has no evaluation to compare with (tag {EVALUATION_TAG})"
    except PipelineError as error:
        obstacle = f"the evaluation of the champion, version {version}, cannot be read: {_clause(error)}"
    return Champion(version, model, obstacle=obstacle)


def _evaluation(holder: ModelVersion, model: str, fresh: Manifest | None) -> Manifest:
    if fresh is not None and not is_absent(fresh) and fresh.inputs.get("model") == model:
        return fresh
    return Manifest.load_uri(holder.tags[EVALUATION_TAG])


def _weights_obstacle(holder: ModelVersion) -> str:
    try:
        missing = missing_files(str(holder.source))
    except PipelineError as error:
        return f"the weights of the champion, version {holder.version}, cannot be looked at: {_clause(error)}"
    if not missing:
        return ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"the weights of the champion, version {holder.version}, are gone ({', '.join(missing[:3])}{more} missing at "
        f"{holder.source}); restore them, or give the alias to another version"
    )


def _fine_tuned(holder: ModelVersion) -> dict[FineTuning, Evaluation]:
    """Read the evaluations after fine-tuning that the champion's own comparison names."""
    uri = holder.tags.get(COMPARISON_TAG)
    if not uri:
        return {}
    comparison = Comparison.load(uri)
    return {
        one.fine_tuning: load_evaluation(Manifest.load_uri(one.evaluation_uri))
        for one in comparison.models
        if one.role == "candidate" and one.fine_tuning is not None
    }


def _clause(error: Exception) -> str:
    return str(error).rstrip(".")
