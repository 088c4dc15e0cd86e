"""The quickest words that datatrove's MinHash can be given, in place of spaCy's."""

from datatrove.utils.word_tokenizers import WordTokenizer


class SpaceWords(WordTokenizer):
    """Words are what stands between spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the text as one sentence: nobody asks for them."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the text as one span: nobody asks for them."""
        return [(0, len(text))]
