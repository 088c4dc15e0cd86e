"""Random choices that stay the same on every Python version and machine."""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A stream of choices seeded by a name.

    Everything goes through `Random.random`, the one method whose sequence Python promises to keep.
    """

    def __init__(self, name: str) -> None:
        """Start the stream that belongs to the name."""
        self._random = random.Random(name)

    def pick(self, items: Sequence[T]) -> T:
        """Return one item."""
        return items[int(self._random.random() * len(items))]

    def whole(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def between(self, low: float, high: float) -> float:
        """Return a number from low to high."""
        return low + self._random.random() * (high - low)

    def normal(self) -> float:
        """Return a standard normal number (Box-Muller)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self._random.random()))
        return radius * math.cos(2.0 * math.pi * self._random.random())

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return `count` different items in random order."""
        left = list(items)
        return [left.pop(int(self._random.random() * len(left))) for _ in range(count)]
