"""Print the requirements of this package with given extras, one a line, sorted: `requirements.py FOLDER EXTRA ...`.

FOLDER holds pyproject.toml. An extra that refers to other extras of the package is resolved. Needs Python 3.11 alone.
"""

import re
import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the requirement lines of the package and of some of its extras.

    Args:
        pyproject: The file.
        extras: Names of the extras.

    Raises:
        SystemExit: There is no such extra.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    own = re.compile(re.escape(project["name"]) + r"\[(.+)\]")
    found, seen, waiting = set(project["dependencies"]), set(), list(extras)
    while waiting:
        extra = waiting.pop()
        if extra not in optional:
            raise SystemExit(f"{pyproject} has no extra {extra!r}; there are {', '.join(optional)}")
        others = [own.fullmatch(line) for line in optional[extra]]
        found |= {line for line, other in zip(optional[extra], others, strict=True) if not other}
        seen.add(extra)
        named = {name.strip() for other in others if other for name in other[1].split(",")}
        waiting += sorted(named - seen)
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in requirements(Path(sys.argv[1], "pyproject.toml"), sys.argv[2:]))
