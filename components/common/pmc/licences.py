"""The licence codes of PubMed Central's metadata that are open ones; ``TDM`` and none at all are not."""

COMMERCIAL = ("CC0", "CC BY", "CC BY-SA", "CC BY-ND")
NONCOMMERCIAL = (*COMMERCIAL, "CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND")
OPEN = frozenset(NONCOMMERCIAL)
