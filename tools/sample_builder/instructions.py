"""The bundled instruction set: requests and short answers as JSON lines."""

import json
import tomllib
from pathlib import Path

SOURCE = Path(__file__).with_name("instructions.toml")


def instruction_lines() -> str:
    """Return the set, one object with `instruction`, `input` and `output` a line."""
    groups = tomllib.loads(SOURCE.read_text(encoding="utf-8"))["groups"]
    entries = [_entry(group["instruction"], *pair) for group in groups for pair in group["pairs"]]
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _entry(instruction: str, asked: str, answer: str) -> dict[str, str]:
    if not instruction:
        return {"instruction": asked, "input": "", "output": answer}
    return {"instruction": instruction, "input": asked, "output": answer}
