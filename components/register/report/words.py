"""Numbers and names as the report's readers see them."""

from components.register.comparison.comparison import Estimate

_TITLES = {"pubmedqa": "PubMedQA", "medmcqa": "MedMCQA", "medqa": "MedQA-USMLE"}
_SUITES = {"mmlu": "MMLU"}
_SMALLEST_P = 0.001


def title(benchmark: str) -> str:
    """Return a benchmark's name as people write it."""
    suite, _, rest = benchmark.partition("_")
    if suite in _SUITES and rest:
        return f"{_SUITES[suite]} {rest.replace('_', ' ')}"
    return _TITLES.get(benchmark, benchmark)


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{share:.1%}"


def points(share: float) -> str:
    """Return a change of a share in percentage points, with its sign."""
    return _signed(100 * share)


def points_with_interval(change: Estimate) -> str:
    """Return a change of a share in points, and its interval."""
    return f"{points(change.value)} ({points(change.low)} to {points(change.high)})"


def relative(change: float) -> str:
    """Return a relative change as a percentage, with its sign."""
    return f"{_signed(100 * change)}%"


def relative_with_interval(change: Estimate) -> str:
    """Return a relative change and its interval, with the sign of each."""
    return f"{relative(change.value)} ({relative(change.low)} to {relative(change.high)})"


def number(value: float) -> str:
    """Return a number with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def p_value(p: float) -> str:
    """Return a p-value."""
    return f"p < {_SMALLEST_P}" if p < _SMALLEST_P else f"p = {p:.2g}"


def _signed(number: float) -> str:
    text = f"{number:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text
