"""The real work on articles, with trouble on certain ones; importable, so that it can travel."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from components.preprocess.article_work import ArticleWork, Fate, RawArticle
from components.preprocess.decontamination.decontaminate import Verdict
from tests.pool_helpers import make_trouble


@dataclass(frozen=True)
class TroubledArticleWork(ArticleWork):
    """Real work, but an article whose XML begins with a comment such as <!--kill--> makes that trouble."""

    def article(self, raw: RawArticle) -> Fate:
        xml = raw["xml"] or b""
        if xml.startswith(b"<!--"):
            make_trouble(xml[4 : xml.index(b"-->")].decode())
        return super().article(raw)


@dataclass(frozen=True)
class Slow:
    """In place of the search for test questions: leaves a mark, and takes a while."""

    def examine(self, _article_id: str, _pmid: str, text: str) -> Verdict:
        """Find nothing, slowly."""
        Path(os.environ["TEST_MARK"]).touch()
        time.sleep(0.05)
        return Verdict(text)
