"""How a worker's process ends."""

import subprocess
import sys
from pathlib import Path

import pytest

_WORKER = """
import sys
from components.train.launching.process import end_with

class Clearing:
    def __del__(self):
        print("cleared up")

kept = Clearing()

def main():
    print("worked")
    {end}

end_with(main)
"""


def work(end: str) -> subprocess.CompletedProcess[str]:
    """A worker whose last line is given."""
    return subprocess.run(
        [sys.executable, "-c", _WORKER.format(end=end)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(143)", 143)])
def test_a_worker_ends_with_its_code_and_nothing_of_python_runs_after_it(end: str, code: int) -> None:
    done = work(end)
    assert (done.returncode, done.stdout, done.stderr) == (code, "worked\n", "")


@pytest.mark.parametrize("end", ["raise ValueError('no corpus')", "sys.exit('no corpus')"])
def test_a_worker_that_fails_says_why(end: str) -> None:
    done = work(end)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("no corpus")
