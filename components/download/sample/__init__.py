"""The bundled synthetic sample: articles, questions, instructions, a tiny language model.

Made by tools/make_sample.py; all of it is in the public domain (CC0 1.0), and none of it is medical evidence.
"""

import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
ARTICLES_DIR = _HERE / "articles"
BENCHMARKS_DIR = _HERE / "benchmarks"
INSTRUCTIONS_DIR = _HERE / "instructions"
TOKENIZER_DIR = _HERE / "tokenizer"


def load_index() -> list[dict[str, Any]]:
    """Return what each file of the sample is for.

    Returns:
        One entry per file, in order, with `id`, `file`, `title`, `article_type`, `features` (what it exercises) and
        `fate`: kept, broken, no-body, too-short, language, article-type, exact-duplicate or near-duplicate.
        Duplicates also have `duplicate_of`, the id of the article that stays.
    """
    index: list[dict[str, Any]] = json.loads((_HERE / "articles.json").read_text(encoding="utf-8"))
    return index
