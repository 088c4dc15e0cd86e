"""The bundled sample: it is what its index says, and it can be made again byte for byte."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from lxml import etree

from components.download.sample import ARTICLES_DIR, BENCHMARKS_DIR, TOKENIZER_DIR, load_index
from components.download.sample.tiny_llama import write_tiny_llama

ROOT = Path(__file__).resolve().parent.parent
MAKE_SAMPLE = ROOT / "tools" / "make_sample.py"
SAMPLE = ARTICLES_DIR.parent
FATES = ["kept", "broken", "no-body", "too-short", "language", "article-type", "exact-duplicate", "near-duplicate"]
XLINK = "{http://www.w3.org/1999/xlink}href"
FEATURE_PATHS = {
    "mathml": "//body//*[local-name()='math']",
    "tex-math": "//tex-math[contains(., 'documentclass')]",
    "table": "//table-wrap//td[@colspan]",
    "boxed-text": "//boxed-text//sec",
    "figure": "//fig/caption",
    "sub-article-review": "//sub-article[@article-type='reviewer-report']/front-stub",
    "sub-article-translation": "//sub-article[@article-type='translation']",
    "response": "//response",
    "footnote": "//p/fn",
    "nested-list": "//list//list",
    "disp-quote": "//disp-quote",
    "abstract-graphical": "//abstract[@abstract-type='graphical']",
    "abstract-plain-language": "//abstract[starts-with(@abstract-type, 'plain')]",
    "trans-abstract": "//trans-abstract",
    "structured-abstract": "//abstract/sec/title",
    "nested-4-deep": "//body/sec/sec/sec/sec",
    "author-notes": "//author-notes/corresp",
    "funding": "//funding-statement",
    "supplementary-material": "//supplementary-material",
    "citations-superscript": "//sup/xref[@ref-type='bibr']",
    "citations-superscript-inside": "//xref[@ref-type='bibr']/sup",
    "citations-author-year": "//xref[@ref-type='bibr']/italic",
    "nlm-2.3": "//article[@dtd-version='2.3']",
    "ext-link": "//body//ext-link",
    "notice-retraction": "//article[@article-type='retraction']//related-article",
}


def parse(path: Path) -> etree._Element:
    data = path.read_bytes().replace(b"&nbsp;", b"&#xA0;")
    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


@pytest.fixture(scope="module")
def index() -> list[dict]:
    return load_index()


@pytest.fixture(scope="module")
def articles(index: list[dict]) -> dict[str, etree._Element]:
    return {entry["id"]: parse(ARTICLES_DIR / entry["file"]) for entry in index if entry["fate"] != "broken"}


@pytest.fixture(scope="module")
def words(articles: dict[str, etree._Element]) -> dict[str, list[str]]:
    """Words of title, abstracts and body."""
    return {
        name: re.findall(r"\w+", " ".join("".join(part.itertext()) for part in readable(root)).lower())
        for name, root in articles.items()
    }


def readable(root: etree._Element) -> list[etree._Element]:
    return [part for path in ("front//article-title", "front//abstract", "body") for part in root.iterfind(path)]


def grams(words: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def jaccard(first: set, second: set) -> float:
    return len(first & second) / len(first | second)


def read_lines(path: str) -> list[dict]:
    return [json.loads(line) for line in (BENCHMARKS_DIR / path).read_text(encoding="utf-8").splitlines()]


# ------------------------------------------------------------------------------------------------ regeneration


def test_the_committed_files_are_what_the_generator_makes() -> None:
    done = subprocess.run([sys.executable, MAKE_SAMPLE, "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_every_file_that_differs_is_missing_or_is_foreign(tmp_path: Path, index: list[dict]) -> None:
    copy = tmp_path / "sample"
    shutil.copytree(SAMPLE, copy)
    changed, missing = (copy / "articles" / entry["file"] for entry in index[:2])
    changed.write_bytes(changed.read_bytes() + b"\n")
    missing.unlink()
    (copy / "benchmarks" / "notes.txt").write_text("mine")
    command = [sys.executable, MAKE_SAMPLE, "--check", "--folder", copy]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"missing: articles/{missing.name}",
        "not made by this tool: benchmarks/notes.txt",
        f"differs: articles/{changed.name}",
    ]


# ------------------------------------------------------------------------------------------------ articles


def test_the_index_names_every_file_once(index: list[dict]) -> None:
    assert sorted(entry["file"] for entry in index) == sorted(path.name for path in ARTICLES_DIR.iterdir())
    assert len({entry["id"] for entry in index}) == len(index)
    assert {Path(entry["file"]).suffix for entry in index} == {".xml", ".nxml"}


def test_enough_articles_stay_and_few_are_broken(index: list[dict]) -> None:
    fates = Counter(entry["fate"] for entry in index)
    assert set(fates) == set(FATES)
    assert len(index) >= 72
    assert fates["kept"] >= 55
    assert fates["broken"] / len(index) < 0.05


def test_the_articles_are_small_enough_for_a_package() -> None:
    assert sum(path.stat().st_size for path in ARTICLES_DIR.iterdir()) < 1_500_000


def test_every_article_says_that_it_is_synthetic_and_free(articles: dict[str, etree._Element]) -> None:
    for root in articles.values():
        assert any("SYNTHETIC" in str(comment) for comment in root.xpath("preceding-sibling::comment()"))
        assert "Synthetic Medicine (sample)" in root.findtext(".//journal-title")
        licence = root.find(".//permissions/license")
        texts = "".join(licence.itertext()) + licence.get(XLINK, "")
        assert "creativecommons.org/publicdomain/zero" in texts


def test_no_article_carries_an_identifier_that_a_real_one_could_have(articles: dict[str, etree._Element]) -> None:
    for name, root in articles.items():
        numbers = {node.get("pub-id-type"): node.text for node in root.iterfind("front//article-id")}
        assert f"PMC{(numbers.get('pmcid') or numbers['pmc']).removeprefix('PMC')}" == name
        assert len(numbers.get("pmid", "9" * 9)) == 9
        assert numbers.get("doi", "10.5555/").startswith("10.5555/")


def test_only_the_broken_article_and_undeclared_entities_trouble_the_parser(index: list[dict]) -> None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    failing = set()
    for entry in index:
        try:
            etree.fromstring((ARTICLES_DIR / entry["file"]).read_bytes(), parser)
        except etree.XMLSyntaxError:
            failing.add(entry["id"])
    # Where a document type is named, the parser leaves the entity unresolved instead of failing.
    expected = {e["id"] for e in index if e["fate"] == "broken" or "no-doctype" in e["features"]}
    assert failing == expected
    assert len(expected) >= 2


@pytest.mark.parametrize("feature", FEATURE_PATHS)
def test_files_hold_what_the_index_says(feature: str, index: list[dict], articles: dict[str, etree._Element]) -> None:
    named = [entry["id"] for entry in index if feature in entry["features"] and entry["id"] in articles]
    with_body = [name for name in named if articles[name].find("body/*") is not None or feature.startswith("nlm")]
    assert with_body
    for name in with_body:
        assert articles[name].xpath(FEATURE_PATHS[feature]), f"{name} has no {feature}"


@pytest.mark.parametrize(
    "marker", [b"<![CDATA[", b"&nbsp;", b"<!DOCTYPE article PUBLIC", b"ISO-8859-1", b"\xef\xbb\xbf<?xml"]
)
def test_files_hold_what_a_parsed_tree_no_longer_shows(marker: bytes) -> None:
    assert any(marker in path.read_bytes() for path in ARTICLES_DIR.iterdir())


def test_kept_articles_have_the_length_of_short_papers(index: list[dict], words: dict[str, list[str]]) -> None:
    lengths = [len(words[entry["id"]]) for entry in index if entry["fate"] == "kept"]
    assert min(lengths) >= 300
    assert max(lengths) <= 1500


def test_articles_without_text_are_so_for_the_reason_given(
    index: list[dict], articles: dict[str, etree._Element]
) -> None:
    for entry in index:
        if entry["fate"] in ("no-body", "too-short"):
            body = articles[entry["id"]].find("body")
            text = "" if body is None else "".join(body.itertext())
            assert (len(text.split()) == 0) == (entry["fate"] == "no-body")
            assert len(text.split()) < 30


def test_one_article_in_another_language_claims_to_be_english(
    index: list[dict], articles: dict[str, etree._Element]
) -> None:
    foreign = [entry for entry in index if entry["fate"] == "language"]
    languages = {feature for entry in foreign for feature in entry["features"] if feature.startswith("language-")}
    assert languages == {"language-es", "language-pt", "language-de"}
    xml_lang = "{http://www.w3.org/XML/1998/namespace}lang"
    assert [articles[e["id"]].get(xml_lang) for e in foreign if "mislabelled-language" in e["features"]] == ["en"]


def test_duplicates_are_as_close_as_named_and_nothing_else_is(index: list[dict], words: dict[str, list[str]]) -> None:
    shingles = {name: grams(text, 5) for name, text in words.items()}
    pairs = {(entry["duplicate_of"], entry["id"]): entry["fate"] for entry in index if "duplicate_of" in entry}
    assert Counter(pairs.values())["near-duplicate"] >= 3
    for pair in combinations(sorted(shingles), 2):
        similarity = jaccard(shingles[pair[0]], shingles[pair[1]])
        if pairs.get(pair) == "exact-duplicate":
            assert similarity == 1
        elif pair in pairs:
            assert 0.85 <= similarity < 1
            # The one that goes has less text, so that "keep the longer" and "keep the first" agree.
            assert len(words[pair[1]]) < len(words[pair[0]])
        else:
            assert similarity < 0.6


def test_a_decoy_shares_more_than_others_but_is_no_duplicate(index: list[dict], words: dict[str, list[str]]) -> None:
    decoy = next(entry["id"] for entry in index if "shared-methods" in entry["features"])
    others = [grams(words[entry["id"]], 5) for entry in index if entry["fate"] == "kept" and entry["id"] != decoy]
    assert 0.35 < max(jaccard(grams(words[decoy], 5), other) for other in others) < 0.6


# ------------------------------------------------------------------------------------------------ questions


def test_pubmedqa_has_the_official_form_and_balanced_answers() -> None:
    questions = json.loads((BENCHMARKS_DIR / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8"))
    truth = json.loads((BENCHMARKS_DIR / "pubmedqa/test_ground_truth.json").read_text(encoding="utf-8"))
    keys = "QUESTION CONTEXTS LABELS MESHES YEAR reasoning_required_pred reasoning_free_pred final_decision LONG_ANSWER"
    for question in questions.values():
        assert list(question) == keys.split()
        assert len(question["CONTEXTS"]) == len(question["LABELS"])
        assert not re.search(r"[{}<>]|&#?\w+;", json.dumps(question["CONTEXTS"]))
    assert truth == {pmid: questions[pmid]["final_decision"] for pmid in truth}
    assert len(truth) >= 30
    assert len(questions) - len(truth) >= 20
    for answers in (
        Counter(truth.values()),
        Counter(questions[pmid]["final_decision"] for pmid in set(questions) - set(truth)),
    ):
        assert set(answers) == {"yes", "no", "maybe"}
        assert max(answers.values()) <= 1.25 * min(answers.values())


@pytest.mark.parametrize(("name", "least"), [("dev", 30), ("train", 20)])
def test_medmcqa_has_the_official_form_and_counts_answers_from_one(name: str, least: int) -> None:
    questions = read_lines(f"medmcqa/{name}.json")
    keys = ["question", "exp", "cop", "opa", "opb", "opc", "opd", "subject_name", "topic_name", "id", "choice_type"]
    assert all(list(question) == keys for question in questions)
    assert len({question["id"] for question in questions}) == len(questions) >= least
    answers = Counter(question["cop"] for question in questions)
    assert set(answers) == {1, 2, 3, 4}
    assert max(answers.values()) - min(answers.values()) <= 1
    assert all(len({question[f"op{letter}"] for letter in "abcd"}) == 4 for question in questions)


def test_medmcqa_explanations_name_the_right_option() -> None:
    for question in read_lines("medmcqa/dev.json") + read_lines("medmcqa/train.json"):
        letter = "abcd"[question["cop"] - 1]
        assert question["exp"] in (None, f"Ans. is '{letter}' i.e., {question[f'op{letter}']}")


@pytest.mark.parametrize(("name", "least"), [("test", 30), ("train", 20)])
def test_medqa_has_the_official_form_and_balanced_answers(name: str, least: int) -> None:
    questions = read_lines(f"medqa/phrases_no_exclude_{name}.jsonl")
    keys = ["question", "answer", "options", "meta_info", "answer_idx", "metamap_phrases"]
    assert len(questions) >= least
    for question in questions:
        assert list(question) == keys
        assert list(question["options"]) == list("ABCD")
        assert len(set(question["options"].values())) == 4
        assert question["options"][question["answer_idx"]] == question["answer"]
    answers = Counter(question["answer_idx"] for question in questions)
    assert max(answers.values()) - min(answers.values()) <= 2


def test_no_kept_article_holds_half_of_a_test_question(index: list[dict], words: dict[str, list[str]]) -> None:
    truth = json.loads((BENCHMARKS_DIR / "pubmedqa/test_ground_truth.json").read_text(encoding="utf-8"))
    pubmedqa = json.loads((BENCHMARKS_DIR / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8"))
    questions = [" ".join([pubmedqa[pmid]["QUESTION"], *pubmedqa[pmid]["CONTEXTS"]]) for pmid in truth]
    questions += [
        " ".join(str(q[key]) for key in ("question", "opa", "opb", "opc", "opd"))
        for q in read_lines("medmcqa/dev.json")
    ]
    questions += [q["question"] for q in read_lines("medqa/phrases_no_exclude_test.jsonl")]
    corpus = set().union(*(grams(words[entry["id"]], 13) for entry in index if entry["fate"] == "kept"))
    for question in questions:
        text = re.findall(r"\w+", question.lower())
        covered = {i + k for i in range(len(text) - 12) if tuple(text[i : i + 13]) in corpus for k in range(13)}
        assert len(covered) < 0.5 * len(text), question


def test_no_article_has_the_number_of_a_pubmedqa_question(articles: dict[str, etree._Element]) -> None:
    questions = json.loads((BENCHMARKS_DIR / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8"))
    numbers = {node.text for root in articles.values() for node in root.iterfind(".//article-id[@pub-id-type='pmid']")}
    assert numbers
    assert not numbers & set(questions)


# ------------------------------------------------------------------------------------------------ model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_llama(folder)
    return folder


ODD_TEXTS = [
    "Hello world",
    " leading and trailing  ",
    "two  spaces\n\nlines\tand tabs",
    "ünïcödé – α ≥ β, 日本語, 🙂, e\u0301, a\u00a0b\u200b",
    "",
    "\n",
    "x" * 60,
]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(model_folder: Path, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "again")
    write_tiny_llama(tmp_path / "other", seed=1)
    for path in model_folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    weights = model_folder / "model.safetensors"
    assert (tmp_path / "other" / weights.name).read_bytes() != weights.read_bytes()


def test_writing_the_model_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from components.download.sample.tiny_llama import write_tiny_llama; "
        "write_tiny_llama(Path(sys.argv[1])); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_transformers_loads_the_model_and_it_knows_nothing_yet(model_folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        model_folder, output_loading_info=True, local_files_only=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.dtype == torch.float32
    assert abs(model.model.embed_tokens.weight.std().item() - 0.02) < 0.001
    ids = torch.randint(3, model.config.vocab_size, (2, 64), generator=torch.Generator().manual_seed(0))
    loss = model(ids, labels=ids).loss.item()
    # A uniform guess over the vocabulary costs ln(2048) = 7.62 nats.
    assert abs(loss - 7.62) < 0.1


def test_the_tokenizer_starts_with_bos_and_gives_every_text_back(model_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder, local_files_only=True)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, len(tokenizer)) == (1, 2, 0, 2048)
    for text in ODD_TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 1
        assert 0 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_fastokens_gives_the_same_ids(words: dict[str, list[str]]) -> None:
    fastokens = pytest.importorskip("fastokens")
    tokenizers = pytest.importorskip("tokenizers")
    path = str(TOKENIZER_DIR / "tokenizer.json")
    reference, fast = tokenizers.Tokenizer.from_file(path), fastokens.Tokenizer.from_file(path)
    for text in [*ODD_TEXTS, *map(" ".join, words.values()), "a <s> b </s>", (SAMPLE / "articles.json").read_text()]:
        assert list(fast.encode(text, add_special_tokens=True).ids) == reference.encode(text).ids
