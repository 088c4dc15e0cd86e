"""What the steps of a run measured; it travels with every checkpoint."""

import json
from typing import Any

History = list[dict[str, Any]]
RECORDED = ("loss", "gradient_norm", "learning_rate", "seconds", "validation_loss")


def to_json_lines(history: History) -> str:
    """One line of JSON per step."""
    return "".join(json.dumps(record) + "\n" for record in history)


def from_json_lines(text: str) -> History:
    """Read what :func:`to_json_lines` wrote."""
    return [json.loads(line) for line in text.splitlines()]
