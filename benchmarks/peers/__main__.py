"""All benchmarks against other tools: ``python -m benchmarks.peers [--articles archive] [--tokenizer folder]``.

Each can be run alone, with options of its own: ``python -m benchmarks.peers.extraction --help``. The first run makes an
environment for the other tools; the machine should have nothing else to do.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.peers import extraction, memory, signatures, stage, tokenisation
from components.download.sample import TOKENIZER_DIR

BENCHMARKS = {
    "extraction": extraction,
    "signatures": signatures,
    "tokenisation": tokenisation,
    "stage": stage,
    "memory": memory,
}


def main() -> None:
    """Run one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    parser.add_argument("--skip", nargs="+", choices=[*BENCHMARKS], default=[])
    options = parser.parse_args()
    given = {"articles": options.articles, "tokenizer": options.tokenizer}
    for name, benchmark in BENCHMARKS.items():
        if name in options.skip:
            continue
        began = time.perf_counter()
        chosen = argparse.Namespace(**(vars(benchmark.arguments().parse_args([])) | given))
        with tempfile.TemporaryDirectory() as folder:
            benchmark.run(chosen, Path(folder))
        print(f"The benchmark of the {name} took {time.perf_counter() - began:.0f} s.\n", flush=True)


if __name__ == "__main__":
    main()
