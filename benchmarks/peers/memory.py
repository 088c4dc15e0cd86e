"""Peak memory of the stage's processes: ``python -m benchmarks.peers.memory [--articles archive] [--sizes 1000 5000]``.

Each step in a process of its own, as in the pipeline, on one shard of every size; what counts is the most memory that
the step's process and each of its workers ever held (VmHWM).
"""

import argparse
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.peers import articles, runner
from benchmarks.peers.planted import plant, planted
from components.common import storage
from components.common.manifest import Manifest
from components.download.sample import TOKENIZER_DIR

NAME = "benchmarks.peers.memory"
_SECONDS_BETWEEN_LOOKS = 0.1


def arguments() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 5_000, 20_000], help="articles in the shard")
    return parser


def run(options: argparse.Namespace, folder: Path) -> None:
    """Run the three steps on a shard of every size."""
    originals = list(articles.read(options.articles).values())
    table = Table(title="Most memory held (VmHWM, MB), each step in a process of its own")
    for number, column in enumerate(("Articles in the shard", *_COLUMNS, "Seconds")):
        table.add_column(column, justify="right" if number else "left")
    for size in options.sizes:
        place = folder / str(size)
        raw = plant(originals, place, [size])[0].shards[0]
        shutil.copytree(options.tokenizer, place / "tokenizer")
        found = [runner.measure(NAME, step, place) for step in CONTENDERS]
        peaks = [found[0]["peak"], found[0]["worker_peak"], found[1]["peak"], found[2]["peak"]]
        seconds = sum(each["wall"] for each in found)
        label = f"{size:,} ({raw.bytes / 1e6:,.0f} MB)"
        table.add_row(label, *(f"{peak:,.0f}" for peak in peaks), f"{seconds:,.0f}")
        shutil.rmtree(place)
    runner.show(table)


def _step(run_step: Callable[[Path, str], None]) -> runner.Contender:
    def contender(folder: Path) -> Callable[[], runner.Found]:
        def work() -> runner.Found:
            with _Watch() as watch:
                run_step(folder, storage.to_uri(folder / "store"))
            return {"peak": _peak("self"), "worker_peak": watch.most}

        return work

    return contender


class _Watch:
    """Notes the most memory that any process started by this one has held."""

    def __enter__(self) -> "_Watch":
        self.most = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            self.most = max([self.most, *(_peak(str(child.pid)) for child in me.children(recursive=True))])


def _peak(process: str) -> float:
    # Not ru_maxrss, which a process takes over from the one that started it.
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc", process, "status").read_text())
    except OSError:  # it has ended
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


# The steps, as the pipeline runs them.


def extract(folder: Path, root: str) -> None:
    """Raw shard to clean shard."""
    from components.preprocess.clean import clean_shard
    from components.preprocess.settings import PreprocessSettings

    no_questions = Manifest(kind="benchmarks", fingerprint="none", inputs={}, settings={}, shards=[], totals={})
    clean_shard(planted(folder)[0], PreprocessSettings(), root, no_questions).save(folder / "clean.json")


def find_duplicates(folder: Path, root: str) -> None:
    """Clean shard to the list of its duplicates."""
    from components.preprocess.deduplication.duplicates import find_duplicates as find
    from components.preprocess.settings import DeduplicateSettings

    find(Manifest.load(folder / "clean.json").shards, DeduplicateSettings(), root, 1.0).save(folder / "unique.json")


def tokenise(folder: Path, root: str) -> None:
    """Clean shard to token shards."""
    from components.preprocess.settings import TokenizeSettings
    from components.preprocess.tokenization.tokenize import tokenize_shard

    unique = Manifest.load(folder / "unique.json")
    tokenize_shard(unique, unique.shards[0].name, folder / "tokenizer", TokenizeSettings(), root)


_COLUMNS = ("Extract: the step", "Its largest worker", "Find duplicates", "Tokenise")
CONTENDERS: dict[str, runner.Contender] = {
    "extract": _step(extract),
    "find duplicates": _step(find_duplicates),
    "tokenise": _step(tokenise),
}


if __name__ == "__main__":
    runner.main(CONTENDERS, arguments, run)
