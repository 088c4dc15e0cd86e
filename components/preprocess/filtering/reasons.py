"""What the reasons mean that articles are left out for, in words for a reader."""

from components.preprocess.deduplication.duplicates import DUPLICATE_ID, EXACT, NEAR

UNREADABLE = "could not be read"

MEANINGS = {
    UNREADABLE: "no whole JATS article; listed at the end",
    "article-type": "not an article to learn from (correction, retraction, ...)",
    "language": "not in a wanted language",
    "too-short": "too few words",
    "too-long": "too many words",
    "word-length": "words too short or too long in the mean",
    "low-alphabetic": "too many words without a letter",
    "many-digits": "too many digits",
    "upper-case": "too many capitals, as in sequences and listings",
    "markup": "full of signs that TeX and Markdown use",
    "few-stop-words": "hardly any of the words that every English sentence needs",
    "duplicate-lines": "too many of its lines are repeated",
    "top-ngram": "one phrase takes up too much of it",
    "duplicate-ngrams": "too much of it repeats what it said before",
    "contaminated": "holds a test question of a benchmark",
    "test-article": "a benchmark's test question is made of it",
    DUPLICATE_ID: "the article comes twice",
    EXACT: "same text as another article",
    NEAR: "nearly the same text as another article",
    "retracted": "retracted; the ids stay in the manifest",
    "not-open-access": "in PubMed Central, but not open access",
    "licence": "a licence that the policy does not allow",
    "manuscript": "an author manuscript",
    "historical-ocr": "read from scanned pages",
    "publication-date": "published outside the dates of the policy",
    "undated": "no day of publication is known",
    "no-xml": "no XML is offered",
    "no-pmc-id": "a record that is not in PubMed Central",
    "no-text": "a record without text",
    "no-body": "a record of which only the front matter is known",
    "not-sampled": "outside the sample",
}
"""By reason; a filter that is not here is shown by its name alone."""
