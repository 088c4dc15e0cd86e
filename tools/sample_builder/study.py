"""Invented study results whose numbers agree with one another."""

import math
from dataclasses import dataclass

from sample_builder.draw import Draw

# verdict -> (lowest, highest true risk ratio, smallest, largest number per arm)
DESIGNS = {"yes": (0.50, 0.66, 320, 720), "no": (0.95, 1.06, 420, 900), "maybe": (0.76, 0.86, 170, 330)}


@dataclass(frozen=True)
class TwoArms:
    """Events in a treated and a control group, and the risk ratio with its 95% interval."""

    n1: int
    n2: int
    e1: int
    e2: int
    ratio: float
    low: float
    high: float
    p: float


def two_arms(draw: Draw, verdict: str) -> TwoArms:
    """Draw a two-arm study whose interval agrees with the verdict (yes, no, maybe)."""
    ratio_low, ratio_high, n_low, n_high = DESIGNS[verdict]
    while True:
        n1 = draw.whole(n_low, n_high)
        n2 = n1 + draw.whole(-4, 4)
        risk = draw.between(0.16, 0.31)
        e1 = round(n1 * risk * draw.between(ratio_low, ratio_high))
        study = _compare(n1, n2, e1, round(n2 * risk))
        if _agrees(study, verdict):
            return study


def _compare(n1: int, n2: int, e1: int, e2: int) -> TwoArms:
    """Risk ratio with Katz's log interval, and the P value of the same normal approximation."""
    log_ratio = math.log((e1 / n1) / (e2 / n2))
    error = math.sqrt(1 / e1 - 1 / n1 + 1 / e2 - 1 / n2)
    p = math.erfc(abs(log_ratio) / error / math.sqrt(2))
    return TwoArms(
        n1,
        n2,
        e1,
        e2,
        math.exp(log_ratio),
        math.exp(log_ratio - 1.96 * error),
        math.exp(log_ratio + 1.96 * error),
        p,
    )


def _agrees(study: TwoArms, verdict: str) -> bool:
    if verdict == "yes":
        return study.high < 0.92
    if verdict == "no":
        return 0.94 < study.ratio < 1.07 and study.high > 1.1
    return 0.72 < study.ratio < 0.88 and study.high > 1.03


def study_words(draw: Draw, verdict: str, measure: list, marker: list) -> dict[str, str]:
    """Return every number that the templates name, as text.

    Args:
        draw: Source of randomness.
        verdict: Whether the treatment works: yes, no or maybe.
        measure: [name, unit, typical value, standard deviation, change with treatment].
        marker: [name, unit, cut-off].
    """
    arms = two_arms(draw, verdict)
    n = arms.n1 + arms.n2
    p1, p2 = 100 * arms.e1 / arms.n1, 100 * arms.e2 / arms.n2
    words = {
        "n": _thousands(n),
        "n1": str(arms.n1),
        "n2": str(arms.n2),
        "e1": str(arms.e1),
        "e2": str(arms.e2),
        "etotal": str(arms.e1 + arms.e2),
        "p1": f"{p1:.1f}",
        "p2": f"{p2:.1f}",
        "p1r": f"{p1:.0f}",
        "p2r": f"{p2:.0f}",
        "rr": f"{arms.ratio:.2f}",
        "lo": f"{arms.low:.2f}",
        "hi": f"{arms.high:.2f}",
        "pvalue": "&lt; 0.001" if arms.p < 0.001 else f"= {arms.p:.3f}" if arms.p < 0.1 else f"= {arms.p:.2f}",
        "nnt": str(math.ceil(100 / abs(p2 - p1))) if p1 != p2 else "1000",
        "screened": _thousands(round(n * draw.between(1.3, 2.9))),
        "swing": str(draw.whole(6, 19)),
    }
    return words | _difference(draw, arms, measure) | _accuracy(draw, n, marker) | _details(draw, arms)


def _difference(draw: Draw, arms: TwoArms, measure: list) -> dict[str, str]:
    _, unit, typical, deviation, change = measure
    digits = 0 if abs(typical) >= 100 else 2 if abs(typical) < 1 or deviation < 0.1 else 1
    error = deviation * math.sqrt(1 / arms.n1 + 1 / arms.n2)
    delta = change + draw.normal() * error * 0.5
    return {
        "unit": _unit(unit),
        "base": _number(typical + draw.normal() * deviation * 0.1, digits),
        "sd": _number(deviation * draw.between(0.9, 1.1), digits),
        "delta": _number(delta, digits + (abs(change) < 1 <= abs(typical))),
        "dlo": _number(delta - 1.96 * error, digits + (abs(change) < 1 <= abs(typical))),
        "dhi": _number(delta + 1.96 * error, digits + (abs(change) < 1 <= abs(typical))),
    }


def _accuracy(draw: Draw, n: int, marker: list) -> dict[str, str]:
    _, unit, cutoff = marker
    cases = round(n * draw.between(0.18, 0.42))
    tp = round(cases * draw.between(0.82, 0.96))
    tn = round((n - cases) * draw.between(0.70, 0.93))
    sens, spec = tp / cases, tn / (n - cases)
    positive, negative = sens / (1 - spec), (1 - sens) / spec
    odds = cases / (n - cases)
    return {
        "N": _thousands(n),
        "munit": _unit(unit),
        "cutoff": _number(cutoff, 0 if abs(cutoff) >= 10 else 2 if abs(cutoff) < 1 else 1),
        "cases": str(cases),
        "prev": f"{100 * cases / n:.0f}",
        "tp": str(tp),
        "fn": str(cases - tp),
        "tn": str(tn),
        "fp": str(n - cases - tn),
        "sens": f"{100 * sens:.0f}",
        "spec": f"{100 * spec:.0f}",
        "lrp": f"{positive:.1f}",
        "lrn": f"{negative:.2f}",
        "ppv": f"{100 * odds * positive / (1 + odds * positive):.0f}",
        "ppn": f"{100 * odds * negative / (1 + odds * negative):.0f}",
        "auc": f"{min(0.98, (sens + spec) / 2 + draw.between(0.02, 0.05)):.2f}",
        "cv": f"{draw.between(2, 8):.1f}",
        "kappa": f"{draw.between(0.68, 0.91):.2f}",
    }


def _details(draw: Draw, arms: TwoArms) -> dict[str, str]:
    genes, trials = draw.whole(180, 940), draw.whole(11, 24)
    up = round(genes * draw.between(0.3, 0.7))
    year = draw.whole(2008, 2018)
    loss = draw.between(1.2, 7.9)
    return {
        "year0": str(year),
        "year1": str(year + draw.whole(2, 5)),
        "sites": str(draw.whole(4, 38)),
        "power": str(draw.pick([80, 85, 90])),
        "loss": f"{loss:.1f}",
        "adherence": str(draw.whole(71, 94)),
        "sae1": str(draw.whole(11, 36)),
        "sae2": str(draw.whole(11, 36)),
        "followup": f"{draw.between(2.1, 8.7):.1f}",
        "coverage": str(draw.whole(88, 99)),
        "accuracy": str(draw.whole(86, 97)),
        "validated": str(draw.whole(120, 480)),
        "cases2": str(draw.whole(19, 60)),
        "women": str(draw.whole(21, 62)),
        "evalue": f"{draw.between(1.6, 2.9):.1f}",
        "conc": str(draw.pick([5, 10, 20, 25, 50])),
        "fold": f"{draw.between(1.8, 4.6):.1f}",
        "genes": str(genes),
        "up": str(up),
        "down": str(genes - up),
        "donors": str(draw.whole(4, 9)),
        "hours": str(draw.pick([12, 24, 48, 72])),
        "depth": str(draw.whole(20, 45)),
        "viab": str(draw.whole(88, 96)),
        "pvalue2": draw.pick(["= 0.004", "= 0.012", "= 0.021", "&lt; 0.001"]),
        "trials": str(trials),
        "fulltext": str(trials * draw.whole(4, 7)),
        "small": str(draw.whole(24, 38)),
        "large": str(round((arms.n1 + arms.n2) * draw.between(0.3, 0.5))),
        "i2": str(draw.whole(8, 61)),
        "months": str(draw.whole(6, 24)),
        "delayweeks": str(draw.whole(2, 7)),
        "day": str(draw.whole(2, 9)),
        "hb": str(draw.whole(104, 141)),
        "wbc": f"{draw.between(4.8, 13.9):.1f}",
        "crp": str(draw.whole(3, 96)),
        "creat": str(draw.whole(58, 118)),
    }


def _unit(unit: str) -> str:
    return unit if unit.startswith("%") or not unit else f" {unit}"


def _thousands(number: int) -> str:
    return f"{number:,}"


def _number(value: float, digits: int) -> str:
    """Format with a true minus sign, as printed articles have it."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "&#x2212;")
