"""Text from outside, made harmless for Markdown: it shows as it was written, and is neither markup nor HTML."""

import html
import re
from typing import Any

_SPECIAL = re.compile(r"[\\`*_{}\[\]|~]")
_AT_THE_START = re.compile(r"^(?:#+|[-+=](?=[-=\s]|$)|\d+(?=[.)](?:\s|$)))")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp|www)([:.])")


class Verbatim(str):
    """Markdown of our own, which is not to be escaped."""

    __slots__ = ()


def escaped(value: Any) -> str:
    """Return a value as one line of Markdown that shows exactly it.

    Markdown's characters get a backslash (https://spec.commonmark.org/0.31.2/#backslash-escapes), HTML's their
    entities, and an address does not become a link.
    """
    if isinstance(value, Verbatim):
        return value
    text = html.escape(" ".join(str(value).split()), quote=False)
    text = _SPECIAL.sub(r"\\\g<0>", text)
    text = _AT_THE_START.sub(lambda start: "".join(f"&#{ord(character)};" for character in start[0]), text)
    return _ADDRESS.sub(lambda found: f"{found[1]}&#{ord(found[2])};", text)


def code(value: Any) -> Verbatim:
    """Return a value as a span of code; not for tables, where a ``|`` would end it."""
    text = " ".join(str(value).split())
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest or not text else ""
    return Verbatim(f"{fence}{space}{text}{space}{fence}")


def literal(value: Any) -> Verbatim:
    """Return a value as a string of Python for a block of code, which it cannot end."""
    return Verbatim(repr(" ".join(str(value).split())).replace("`", "\\x60").replace("~", "\\x7e"))
