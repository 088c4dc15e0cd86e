"""The gate of a model that follows instructions: may it answer people in the place of the champion of its name?

It does not judge what the model knows: that is the question put to the model which it was taught from. It asks whether
the answers can be read, and whether fewer of them are right than the champion's; what is not there is a refusal.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from components.common.errors import InputError
from components.common.validation import first_problem
from components.register.evidence.evidence import Evidence
from components.register.evidence.results import Benchmark
from components.register.gate.answers import loss
from components.register.gate.pairs import Pair, differences, incomparable, pairs
from components.register.gate.training_data import licences
from components.register.gate.verdict import Check, Verdict, conclude
from components.register.settings import RegisterSettings


class TaughtFrom(BaseModel):
    """What the registration of a model says of it, for one that was taught from it.

    Attributes:
        model: Its registered name.
        version: Its number there.
        model_fingerprint: Its own.
        passed: Whether it passed its own gate.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    model: str
    version: str
    model_fingerprint: str
    passed: bool

    @property
    def title(self) -> str:
        """Name and version, as MLflow takes them."""
        return f"{self.model}/{self.version}"

    @classmethod
    def read(cls, text: str) -> "TaughtFrom":
        """Read what the registration wrote.

        Raises:
            InputError: It is something else.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = first_problem(error, "text")
            raise InputError(f"The registration is none ({problem}); register the model again.") from error


def decide_answering(evidence: Evidence, taught_from: TaughtFrom, settings: RegisterSettings) -> Verdict:
    """Judge a model that follows instructions.

    Args:
        evidence: What is known of it: its base is the model that it was taught from.
        taught_from: What the registration of that model says.
        settings: The policy.
    """
    checks = [_parent(taught_from)]
    checks += [_readable(evidence.candidate.benchmarks.get(name), name, settings) for name in settings.benchmarks]
    checks += licences(evidence.licences, settings)
    rival = evidence.rival if settings.compare_with_champion else None
    if rival is not None:
        checks += [Check("champion", False, rival.refusal)] if rival.refusal else _against_champion(evidence, settings)
    last = "no benchmark lost more than it may" if rival is not None else "there is no champion to fall behind"
    return conclude(checks, f"its answers can be read, and {last}")


def unreadable(answered: Benchmark) -> int:
    """Count the answers that name no option."""
    return sum(not each.prediction for each in answered.questions.values())


def _parent(taught_from: TaughtFrom) -> Check:
    who = f"version {taught_from.version} of {taught_from.model}, which it was taught from,"
    said = "passed its own gate" if taught_from.passed else "did not pass its own gate"
    return Check("taught from", taught_from.passed, f"{who} {said}")


def _readable(answered: Benchmark | None, name: str, settings: RegisterSettings) -> Check:
    title = f"{name} readable"
    if answered is None or not answered.questions:
        return Check(title, False, f"it has no answers to {name}")
    if any(each.loglikelihoods for each in answered.questions.values()):
        return Check(title, False, f"its answers to {name} were not written: options were scored")
    count, of = unreadable(answered), len(answered.questions)
    passed = count / of <= settings.max_unreadable
    detail = f"{count:,} of {of:,} answers to {name} name no option"
    if not passed:
        detail += f", more than the {settings.max_unreadable:.1%} allowed"
    numbers = {"value": count / of, "threshold": settings.max_unreadable, "n": float(of)}
    return Check(title, passed, detail, numbers, noteworthy=count > 0)


def _against_champion(evidence: Evidence, settings: RegisterSettings) -> Iterator[Check]:
    pair: Pair = pairs(evidence, "champion")[0]
    if obstacles := [*incomparable(pair, settings.benchmarks)]:
        yield Check("comparable with champion", False, "; ".join(obstacles))
        return
    yield Check("comparable with champion", True, "asked the same as the champion")
    found = differences(pair, settings.benchmarks, evidence.contamination, settings.confidence)
    for name, difference in found.items():
        yield loss(pair, name, difference, None, settings)
