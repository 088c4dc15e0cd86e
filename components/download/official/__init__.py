"""What the benchmarks' authors published: how many questions each split has, and which make PubMedQA's test set."""

import json
from functools import cache
from importlib.resources import files

# PubMedQA: Jin et al. 2019 (PQA-L, 500 of the 1,000 are the test set). MedMCQA: Pal et al. 2022; its test set has no
# answers, so everybody tests on its dev set. MedQA: Jin et al. 2020, the United States' exam with 4 options.
COUNTS = {
    "pubmedqa-test": 500,
    "pubmedqa-train": 500,
    "medmcqa-test": 4_183,
    "medmcqa-train": 182_822,
    "medqa-test": 1_273,
    "medqa-dev": 1_272,
    "medqa-train": 10_178,
}


@cache
def pubmedqa_test_ids() -> frozenset[str]:
    """Return the PubMed ids of PubMedQA's official test set; the hub's copy does not say which they are."""
    text = (files(__name__) / "pubmedqa_test_ids.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["pmids"])
