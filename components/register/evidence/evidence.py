"""Everything that a verdict rests on, read from the store once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest
from components.register.evidence.champion import Champion
from components.register.evidence.contamination import Contamination, load_contamination
from components.register.evidence.licences import count_licences
from components.register.evidence.results import Evaluation, FineTuning, load_evaluation

_OWN_CORPUS = "corpus"  # what the train stage's mixture calls the corpus of the run itself

# Settings of fine-tuning that decide which model comes out; how fast it does is no matter.
_THAT_MATTER = (
    *("tasks", "method", "fraction", "loss_on", "packed", "context_length", "global_batch_size", "epochs", "seed"),
    *("learning_rate", "schedule", "warmup_fraction", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("max_gradient_norm", "precision", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets"),
)

FineTunedResults = Mapping[FineTuning, Evaluation]


@dataclass(frozen=True)
class Evidence:
    """What is known of a candidate and of the models it is compared with.

    Attributes:
        champion: The model that holds the place now; None when there is none.
        base_fine_tuned: Evaluations of the base after fine-tuning, by how it was fine-tuned.
        candidate_fine_tuned: The same of the candidate.
        contamination: Overlaps of the test questions with the corpora; None when they were not examined.
        licences: Articles that the candidate learned from, by licence.
        learned_questions: Whether the candidate, as it is, learned from benchmarks' training questions.
    """

    base: Evaluation
    candidate: Evaluation
    champion: Champion | None = None
    base_fine_tuned: FineTunedResults = field(default_factory=dict)
    candidate_fine_tuned: FineTunedResults = field(default_factory=dict)
    contamination: Contamination | None = None
    licences: Mapping[str, int] = field(default_factory=dict)
    learned_questions: bool = False

    @property
    def rival(self) -> Champion | None:
        """The champion, unless it is the candidate itself, as on a rerun."""
        if self.champion is not None and self.champion.model == self.candidate.model != "":
            return None
        return self.champion


def load_evidence(
    model: Manifest,
    corpus: Manifest,
    base_eval: Manifest,
    candidate_eval: Manifest,
    champion: Champion | None = None,
    fine_tuned_models: Sequence[Manifest] = (),
    fine_tuned_evals: Sequence[Manifest] = (),
) -> Evidence:
    """Read the results, and what the manifests say of the training data.

    Args:
        model: The candidate.
        corpus: The run's corpus.
        base_eval: Evaluation of the model that training started from.
        candidate_eval: Evaluation of `model`.
        champion: As :func:`components.register.evidence.champion.load_champion` found it.
        fine_tuned_models: Fine-tuned bases and candidates, in any order.
        fine_tuned_evals: Their evaluations, in any order.

    Raises:
        InputError: A manifest is not what it should be.
        StorageError: A file cannot be read.
    """
    if candidate_eval.inputs.get("model") != model.fingerprint:
        raise InputError(
            f"The candidate's evaluation is of model {candidate_eval.inputs.get('model')}, not of {model.fingerprint}."
        )
    corpora = corpora_of(model, corpus)
    tuned = list(_fine_tuned(fine_tuned_models, fine_tuned_evals))
    return Evidence(
        base=load_evaluation(base_eval),
        candidate=load_evaluation(candidate_eval),
        champion=champion,
        base_fine_tuned=_of(tuned, base_eval.inputs.get("model", "")),
        candidate_fine_tuned=_of(tuned, model.fingerprint),
        contamination=load_contamination(corpora),
        licences=count_licences(corpora),
    )


def fine_tuning_of(model: Manifest) -> FineTuning:
    """Return how a model manifest says that it was fine-tuned.

    Raises:
        InputError: It was not.
    """
    settings: dict[str, Any] = model.settings
    if settings.get("objective") != "finetune":
        raise InputError(f"Model {model.fingerprint} was given as a fine-tuned one and is none.")
    return FineTuning(
        tasks=tuple(sorted(settings["tasks"])),
        method=str(settings["method"]),
        fraction=float(settings["fraction"]),
        settings=fingerprint(model.inputs.get("benchmarks", ""), _that_matter(settings)),
    )


def corpora_of(model: Manifest, corpus: Manifest) -> list[Manifest]:
    """Return every corpus that a trained model learned from; a mixture names others by their address.

    Raises:
        InputError: It learned from another corpus than the given one.
        StorageError: A manifest cannot be read.
    """
    names = list(model.settings.get("mixture", {})) or [_OWN_CORPUS]
    found = {name: corpus if name == _OWN_CORPUS else Manifest.load_uri(name) for name in names}
    for name, manifest in found.items():
        if model.inputs.get(name, manifest.fingerprint) != manifest.fingerprint:
            raise InputError(
                f"Model {model.fingerprint} learned from the corpus {model.inputs[name]}, but {name} is "
                f"{manifest.fingerprint}; give the corpus that it was trained on."
            )
    return list(found.values())


def _that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes nothing: the order of lists, and an adapter's settings where there is no adapter."""
    names = [name for name in _THAT_MATTER if settings["method"] == "lora" or not name.startswith("lora_")]
    values = {name: settings.get(name) for name in names}
    return {name: sorted(value) if isinstance(value, list) else value for name, value in values.items()}


def _fine_tuned(
    models: Sequence[Manifest], evaluations: Sequence[Manifest]
) -> Iterable[tuple[str, FineTuning, Evaluation]]:
    by_fingerprint = {model.fingerprint: model for model in models}
    for manifest in evaluations:
        model = by_fingerprint.get(manifest.inputs.get("model", ""))
        if model is None:
            raise InputError(f"The evaluation {manifest.fingerprint} is of none of the fine-tuned models.")
        yield model.inputs.get("base_model", ""), fine_tuning_of(model), load_evaluation(manifest)


def _of(tuned: Iterable[tuple[str, FineTuning, Evaluation]], base: str) -> FineTunedResults:
    return {tuning: evaluation for of, tuning, evaluation in tuned if of == base}
