"""What goes through the model: every input once, however many options and questions share it.

A **row** is a prompt with its options. Options of one token need the prompt alone; of a longer one all but the last
token follow the prompt as a **branch**, and several branches lie one after another in the row: a mask keeps them from
seeing each other, and each counts its positions from the end of the prompt. A **group** is the rows that begin alike,
such as with the same solved examples: that beginning is computed once.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

Request = tuple[tuple[str, str], list[int], list[int]]
"""What lm-eval asks: the strings of context and continuation, and the token ids of both."""

# A shorter common beginning saves less than the handling of its keys and values costs.
_LEAST_SHARED = 24


@dataclass(frozen=True)
class Option:
    """One request within a row: `places` in the row predict its `tokens`, one each."""

    request: int
    places: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass
class Row:
    """A prompt (`stem` tokens of `tokens`), the branches after it, and what is scored."""

    tokens: list[int]
    stem: int
    branches: list[int] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary sequence, which needs no mask of its own."""
        return len(self.branches) < 2

    @property
    def positions(self) -> list[int]:
        """The position of each token, as if its branch alone followed the prompt."""
        return [*range(self.stem), *chain.from_iterable(range(self.stem, self.stem + n) for n in self.branches)]

    def without(self, beginning: int) -> "Row":
        """The row after so many tokens of its prompt."""
        options = [Option(o.request, tuple(p - beginning for p in o.places), o.tokens) for o in self.options]
        return Row(self.tokens[beginning:], self.stem - beginning, self.branches, options)


@dataclass(frozen=True)
class Group:
    """Rows after their common beginning `prefix`, which may be empty; the longest row first."""

    prefix: list[int]
    rows: list[Row]


def make_groups(
    requests: Sequence[Request], max_length: int, longest_shared: int | None = None, token_cost: float = math.inf
) -> list[Group]:
    """Arrange requests so that nothing is computed twice.

    Args:
        requests: What lm-eval asks.
        max_length: Of an input in tokens; a longer one loses its start, each option for itself, as in lm-eval.
        longest_shared: A longer row (a sliding window would move within it) is computed by itself, option by option.
        token_cost: What a token costs a layer before it attends to any, in pairs of tokens of which one attends to the
            other; a beginning is only shared where that is cheaper. Infinite: attention costs nothing.
    """
    rows = _make_rows(requests, max_length, longest_shared)
    alone = [row for row in rows if longest_shared is not None and _extent(row) > longest_shared]
    alike: defaultdict[tuple[int, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if longest_shared is None or _extent(row) <= longest_shared:
            alike[tuple(row.tokens[: min(_LEAST_SHARED, row.stem)])].append(row)
    for beginning in list(alike):
        if len(beginning) < _LEAST_SHARED or len(alike[beginning]) < 2:
            alone += alike.pop(beginning)
    groups = []
    for members in alike.values():
        group = _group(members)
        if _saves(group, token_cost):
            groups.append(group)
        else:
            alone += members
    return [*groups, Group([], _longest_first(alone))] if alone else groups


def make_batches(group: Group, tokens: int, rows: int | None = None) -> Iterator[list[Row]]:
    """Cut a group into batches of at most so many tokens, padding included; at least one row each.

    Keys and values of the common beginning are copied for every row, which an eighth of a token stands for.
    """
    start = 0
    while start < len(group.rows):
        # Longest first: the first row of a batch is what the others are padded to.
        cost = len(group.rows[start].tokens) + len(group.prefix) // 8
        count = max(1, tokens // cost) if rows is None else max(1, min(rows, tokens // cost))
        yield group.rows[start : start + count]
        start += count


def _make_rows(requests: Sequence[Request], max_length: int, longest_shared: int | None) -> list[Row]:
    by_prompt: defaultdict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for index, (_, context, option) in enumerate(requests):
        kept = max(max_length + 1 - len(option), 1)
        by_prompt[tuple(context[-kept:])].append((index, tuple(option)))
    rows = []
    for prompt, options in by_prompt.items():
        row = _row(prompt, options)
        too_long = longest_shared is not None and _extent(row) > longest_shared
        rows += [_row(prompt, [option]) for option in options] if too_long and not row.is_plain else [row]
    return rows


def _row(prompt: tuple[int, ...], options: Sequence[tuple[int, tuple[int, ...]]]) -> Row:
    """Lay out a prompt and its options; an option that begins another one shares its branch."""
    row = Row(list(prompt), len(prompt))
    starts: dict[tuple[int, ...], int] = {}
    for given in sorted({tokens[:-1] for _, tokens in options}, reverse=True):
        if not any(known[: len(given)] == given for known in starts):
            starts[given] = len(row.tokens)
            row.tokens += given
            row.branches += [len(given)] if given else []
    for index, tokens in options:
        start = next(start for known, start in starts.items() if known[: len(tokens) - 1] == tokens[:-1])
        places = (len(prompt) - 1, *range(start, start + len(tokens) - 1))
        row.options.append(Option(index, places, tokens))
    return row


def _group(rows: list[Row]) -> Group:
    first, last = min(row.tokens[: row.stem] for row in rows), max(row.tokens[: row.stem] for row in rows)
    # The last token of a prompt is never shared: what the model makes of it is what is scored.
    limit = min(row.stem for row in rows) - 1
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    common = min(common, limit)
    return Group(first[:common], _longest_first([row.without(common) for row in rows]))


def _saves(group: Group, token_cost: float) -> bool:
    """Whether a beginning that is computed once saves more than what it costs.

    A row by itself attends to what is before each token only. After a shared beginning it needs a mask, with which
    every token attends to all and half of that is thrown away.
    """
    if token_cost == math.inf:
        return True
    before = len(group.prefix)
    alone = sum((before + n) * (token_cost + (before + n) / 2) for n in (len(row.tokens) for row in group.rows))
    shared = before * (token_cost + before / 2)
    shared += sum(n * (token_cost + before + n) for n in (len(row.tokens) for row in group.rows))
    return shared < alone


def _longest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-len(row.tokens), row.tokens))


def _extent(row: Row) -> int:
    return row.stem + max(row.branches, default=0)
