"""The gate: may this model become champion?

It compares on paired results only, by the policy of the recipe, and fails closed: what cannot be compared is refused,
with the reason. docs/evaluation.md defines every number.
"""

from collections.abc import Iterator

from components.register.evidence.evidence import Evidence
from components.register.gate.answers import above_majority, gain, loss
from components.register.gate.pairs import Pair, adjusted, differences, incomparable, pairs, same_articles
from components.register.gate.perplexity import perplexity, perplexity_obstacles, perplexity_set_aside
from components.register.gate.training_data import contamination, licences
from components.register.gate.verdict import Check, Verdict, conclude
from components.register.settings import RegisterSettings

__all__ = ["Check", "Verdict", "conclude", "decide"]


def decide(evidence: Evidence, settings: RegisterSettings) -> Verdict:
    """Judge a candidate by the recipe's policy.

    The held-out perplexity must be lower than the base's; something must have gained beyond chance; no benchmark may
    lose more than its margin; each must be above its majority baseline; the test questions must have been looked for in
    the training data, whose licences must allow what the recipe asks for. The champion, where there is one, is a second
    reference.

    Args:
        evidence: What is known of the models.
        settings: The policy.
    """
    checks = [*_against("base", evidence, settings)]
    rival = evidence.rival
    if settings.compare_with_champion and rival is not None:
        if rival.refusal:
            checks.append(Check("champion", False, rival.refusal))
        else:
            checks += _against("champion", evidence, settings)
    if settings.require_above_majority:
        checks += [
            above_majority(pair, name, evidence.contamination)
            for pair in _judged(evidence, "base", settings)
            for name in _names(pair, settings)
            if name in pair.candidate.benchmarks
        ]
    checks += [*contamination(evidence, settings), *licences(evidence.licences, settings)]
    return conclude(checks)


def _against(label: str, evidence: Evidence, settings: RegisterSettings) -> Iterator[Check]:
    as_is, judged = pairs(evidence, label)[0], _judged(evidence, label, settings)
    obstacles = [text for pair in judged for text in incomparable(pair, _names(pair, settings))]
    obstacles += [*_missing(label, judged, settings), *perplexity_obstacles(as_is, settings)]
    if obstacles:
        yield Check(f"comparable with {label}", False, "; ".join(obstacles))
        return
    yield Check(f"comparable with {label}", True, f"asked the same as the {label}")
    yield perplexity(as_is, settings) if same_articles(as_is) else perplexity_set_aside(as_is)
    yield from _benchmarks(label, judged, evidence, settings)


def _benchmarks(label: str, judged: list[Pair], evidence: Evidence, settings: RegisterSettings) -> Iterator[Check]:
    found = {
        (pair, name): difference
        for pair in judged
        for name, difference in differences(
            pair, _names(pair, settings), evidence.contamination, settings.confidence
        ).items()
    }
    keys = {(pair.setting, name): each for (pair, name), each in found.items()}
    p_adjusted = adjusted(keys)
    for (pair, name), difference in found.items():
        yield loss(pair, name, difference, p_adjusted.get((pair.setting, name)), settings)
    if settings.significant_gain == "benchmark" and (label == "base" or settings.against_champion == "better"):
        counted = {
            pair.title(name): (difference.counted, p_adjusted[pair.setting, name])
            for (pair, name), difference in found.items()
            if difference.counted
        }
        yield gain(label, counted, settings)


def _judged(evidence: Evidence, label: str, settings: RegisterSettings) -> list[Pair]:
    """Return the pairs that decide."""
    as_is, *tuned = pairs(evidence, label)
    return [as_is] if settings.judged_on == "as_is" else tuned


def _names(pair: Pair, settings: RegisterSettings) -> list[str]:
    """Return the benchmarks that decide; a fine-tuned model need not have answered them all."""
    if pair.tuning is None:
        return settings.benchmarks
    answered = pair.reference.benchmarks.keys() | pair.candidate.benchmarks.keys()
    return [name for name in settings.benchmarks if name in answered]


def _missing(label: str, judged: list[Pair], settings: RegisterSettings) -> Iterator[str]:
    """Say which benchmarks no pair has answered: of models as they are, :func:`incomparable` says it."""
    there = {name for pair in judged for name in _names(pair, settings)}
    if missing := [name for name in settings.benchmarks if name not in there]:
        yield f"the {label} and the candidate have no results for {', '.join(missing)} after the same fine-tuning"
