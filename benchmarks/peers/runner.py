"""Measuring contenders fairly: each in a process of its own, one thread, in turn with the others.

A benchmark module has a table of contenders: each gets ready (imports, models, warming up) and returns a function that
does the work. Only that function is measured. The module starts itself once more for each measurement.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.environment import ROOT, interpreter

Found = dict[str, Any]
"""What one measurement gave: `cpu` and `wall` seconds, and what the contender says itself, such as `documents`."""
Contender = Callable[[Path], Callable[[], Found]]
Results = dict[str, list[Found]]

_ONE_THREAD = {
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}
_MEASURE = "--measure"


def main(
    contenders: Mapping[str, Contender],
    arguments: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace, Path], None],
) -> None:
    """Run the benchmark of a module, or one of its contenders if this process was started for that.

    Args:
        contenders: By name.
        arguments: Returns the options of the benchmark.
        run: Runs it with these, in a scratch folder.
    """
    if not measured_here(contenders):
        options = arguments().parse_args()
        with tempfile.TemporaryDirectory() as folder:
            run(options, Path(folder))


def measured_here(contenders: Mapping[str, Contender]) -> bool:
    """Measure one contender and print what was found, if this process was started for that."""
    if sys.argv[1:2] != [_MEASURE]:
        return False
    name, folder = sys.argv[2:4]
    work = contenders[name](Path(folder))
    cpu, began = cpu_seconds(), time.perf_counter()
    found = work()
    taken = {"wall": time.perf_counter() - began, "cpu": cpu_seconds() - cpu}
    print(json.dumps(taken | found), flush=True)
    return True


def alternate(module: str, contenders: Sequence[str], folder: Path, repetitions: int) -> Results:
    """Measure contenders of a module in turn, each time in a fresh process of the peers' environment."""
    results: Results = {name: [] for name in contenders}
    for repetition in range(repetitions):
        for name in contenders:
            found = measure(module, name, folder)
            results[name].append(found)
            note = f"{repetition + 1}/{repetitions} {name}: {found['wall']:.1f} s, {found['cpu']:.1f} CPU s"
            print(note, file=sys.stderr, flush=True)
    return results


def measure(module: str, contender: str, folder: Path) -> Found:
    """Measure one contender in a process of its own."""
    command = [str(interpreter()), "-m", module, _MEASURE, contender, str(folder)]
    environment = {**os.environ, **_ONE_THREAD, "HF_HOME": str(folder / "hf-home")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{contender} failed:\n{ended.stderr[-4000:]}")
    found: Found = json.loads(ended.stdout.splitlines()[-1])
    return found


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children so far, in user and kernel."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def rates(found: Sequence[Found], unit: str, per: str = "cpu") -> list[float]:
    """Return how many of a unit each measurement did per second, of CPU or of the clock (`wall`)."""
    return [each[unit] / each[per] for each in found]


def compare(title: str, results: Results, unit: str, per: str = "cpu", notes: Mapping[str, str] | None = None) -> None:
    """Print a table of rates: median, lowest, highest, and how many times the others' the first one's median is."""
    table = Table(title=title)
    table.add_column("What")
    for column in (f"{unit.capitalize()}/{'CPU s' if per == 'cpu' else 's'}", "Lowest", "Highest", "Ours is"):
        table.add_column(column, justify="right")
    if notes:
        table.add_column("Note")
    ours = statistics.median(rates(next(iter(results.values())), unit, per))
    for name, found in results.items():
        values = rates(found, unit, per)
        middle = statistics.median(values)
        cells = [f"{value:,.{_decimals(middle)}f}" for value in (middle, min(values), max(values))]
        table.add_row(name, *cells, f"{ours / middle:.2f}x", *([notes.get(name, "")] if notes else []))
    show(table)


def show(table: Table) -> None:
    """Print a table."""
    Console(width=140).print(table)


def _decimals(value: float) -> int:
    return 0 if value >= 100 else 1
