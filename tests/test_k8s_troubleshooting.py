"""The messages in docs/troubleshooting.md are those of the code."""

import ast
import re
from collections.abc import Iterator

from tools.cluster_manifests.installation import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "\0"
# What Kubernetes and others say, in their own words.
OTHERS = re.compile(
    r"Pending|serviceaccount \"|workflowtaskresults|conflict with|no matches for|unhandled system error|403|timed out|"
    r"Init:|OOMKilled$|Invalid Host header|SlowDown|503|\"ServingRuntime\"|AccessDenied|Could not connect|aws s3 ls"
)


def test_every_quoted_message_is_one_of_the_code() -> None:
    texts = list(messages_of_the_code())
    quoted = [message for message in quoted_messages() if not OTHERS.match(message)]
    assert len(quoted) > 35
    lost = [message for message in quoted if not any(says(text, message) for text in texts)]
    assert lost == []


def quoted_messages() -> Iterator[str]:
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| you see"):
            yield from re.findall(r"`([^`]+)`", line.split(" | ")[0])


def says(text: str, message: str) -> bool:
    """Whether a text of the code can be the message: its parts, in order."""
    place = 0
    for part in message.split("..."):
        place = text.find(part.strip(), place)
        if place < 0:
            return False
        place += len(part.strip())
    return True


def messages_of_the_code() -> Iterator[str]:
    for folder in ("components", "pipelines", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(str(each.value) if isinstance(each, ast.Constant) else HOLE for each in node.values)
