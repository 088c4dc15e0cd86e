"""The gate's checks of what a model learned from: no unexamined test questions, no forbidden licences."""

from collections.abc import Iterator, Mapping

from components.register.evidence.contamination import Contamination
from components.register.evidence.evidence import Evidence
from components.register.evidence.licences import not_allowed
from components.register.gate.verdict import Check, Numbers
from components.register.settings import RegisterSettings


def contamination(evidence: Evidence, settings: RegisterSettings) -> Iterator[Check]:
    """Check that every question was looked for in the corpus; those found there do not count elsewhere."""
    known, names = evidence.contamination, settings.benchmarks
    if known is None:
        detail = "the corpus was not searched for test questions, so the answers may be learned by heart"
        yield Check("contamination", False, f"{detail}; assemble it with the benchmarks")
        return
    counts = {name: len(known.flagged(name)) for name in names}
    numbers: Numbers = {f"flagged_{name}": float(count) for name, count in counts.items()}
    numbers |= {f"overlapping_{name}": float(len(known.overlapping(name))) for name in names}
    numbers |= {"threshold": known.coverage}
    if unknown := {name: ids for name in names if (ids := _not_examined(evidence, known, name))}:
        found = ", ".join(f"{len(ids)} of {name}, {ids[0]} among them" for name, ids in unknown.items())
        yield Check("contamination", False, f"the corpus was not searched for some test questions: {found}", numbers)
        return
    found = ", ".join(f"{count} of {name}" for name, count in counts.items())
    yield Check("contamination", True, f"questions that the corpus holds, which do not count: {found}", numbers)


def licences(counts: Mapping[str, int], settings: RegisterSettings) -> Iterator[Check]:
    """Check that every article that the model learned from has a licence that the policy allows."""
    if settings.licences == "any":
        return
    refused, articles = not_allowed(counts, settings.licences), sum(counts.values())
    numbers: Numbers = {"value": float(sum(refused.values())), "threshold": 0.0, "n": float(articles)}
    policy = f"the policy '{settings.licences}'"
    if not articles:
        yield Check("licences", False, f"no licence of any article is recorded, and {policy} asks for them", numbers)
    elif refused:
        named = ", ".join(f"{number:,} {name}" for name, number in refused.items())
        detail = f"{policy} does not allow the licences of {sum(refused.values()):,} of {articles:,} articles ({named})"
        yield Check("licences", False, detail, numbers)
    else:
        yield Check("licences", True, f"{policy} allows the licences of all {articles:,} articles", numbers)


def _not_examined(evidence: Evidence, known: Contamination, name: str) -> list[str]:
    asked = evidence.candidate.benchmarks.get(name)
    return sorted(asked.questions.keys() - known.benchmarks.get(name, {}).keys()) if asked else []
