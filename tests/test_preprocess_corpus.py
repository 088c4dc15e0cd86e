"""A corpus accounts for every listed article and refuses parts that do not belong together."""

import random
from pathlib import Path

import pytest
from preprocess_helpers import TOKENIZER, clean_shard, corpus_of, deduplicate, document, prose, tokens_of

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest, Shard
from components.preprocess.corpus import assemble_corpus
from components.preprocess.settings import TokenizeSettings

REJECTED = ({"id": "PMC900", "reason": "not-xml", "detail": "line 1"},)
FILTERED = tuple(
    {"id": f"PMC80{n}", "reason": reason} for n, reason in enumerate(["too-short", "too-short", "language"])
)


def clean(root: Path | str) -> list[Shard]:
    first = [document(f"PMC{n}", prose(n, words=50 + n), year=2000 + n, licence="CC0 1.0") for n in range(20)]
    second = [document(f"PMC{n}", prose(n, words=50 + n), year=0) for n in range(20, 40)]
    second += [document("PMC50", first[0]["text"], year=1995), document("PMC1", prose(99), year=1990)]
    return [
        clean_shard(root, "shard-00000", first, rejected=REJECTED),
        clean_shard(root, "shard-00001", second, filtered=FILTERED),
    ]


def corpus(root: Path | str, **settings: float) -> Manifest:
    return corpus_of(root, deduplicate(root, clean(root)), **{"validation_fraction": 0.2, **settings})


def test_every_listed_article_is_accounted_for(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    totals = manifest.totals
    assert totals["listed"] == 46
    assert totals["documents"] == totals["kept"] == totals["train_documents"] + totals["validation_documents"] == 40
    assert totals["tokens"] == totals["train_tokens"] + totals["validation_tokens"]
    assert {reason: count for reason, count in manifest.dropped.items() if count} == {
        "too-short": 2,
        "language": 1,
        "exact-duplicate": 1,
        "duplicate-id": 1,
    }
    assert [(item.id, item.reason, item.detail) for item in manifest.rejected] == [("PMC900", "not-xml", "line 1")]
    assert totals["listed"] == totals["kept"] + sum(manifest.dropped.values()) + len(manifest.rejected)


def test_it_describes_what_was_kept(tmp_path: Path) -> None:
    extra = corpus(tmp_path).extra
    assert extra["counts"]["licence"] == {"CC0 1.0": 20, "CC BY 4.0": 20}
    assert extra["counts"]["language"] == {"en": 40}
    assert extra["counts"]["year"]["2003"] == 1
    assert extra["counts"]["year"]["unknown"] == 20
    assert sum(extra["lengths"].values()) == 40
    assert len(extra["samples"]) == 3
    assert (extra["dtype"], extra["vocab_size"]) == ("uint16", 2048)


def test_its_shards_are_what_a_trainer_reads(tmp_path: Path) -> None:
    manifest = corpus(tmp_path)
    for name, part in manifest.extra["splits"].items():
        shards = [shard for shard in manifest.shards if shard.stats["split"] == name]
        assert [shard.name for shard in shards] == part["shards"]
        assert sum(shard.stats["documents"] for shard in shards) == part["documents"] > 0
        assert sum(shard.stats["tokens"] for shard in shards) == part["tokens"]
        for shard in shards:
            assert set(shard.stats) == {"split", "documents", "tokens", "index_sha256"}
            assert shard.bytes == 2 * shard.stats["tokens"]
            assert storage.exists(shard.uri.removesuffix(".bin") + ".idx")


def test_shards_without_a_document_are_left_out(tmp_path: Path) -> None:
    manifest = corpus(tmp_path, validation_fraction=1e-9)
    assert manifest.extra["splits"]["validation"]["documents"] == 1
    assert len(manifest.extra["splits"]["validation"]["shards"]) == 1
    assert all(shard.rows for shard in manifest.shards)


def test_it_is_the_same_in_whatever_order_the_shards_come_and_is_kept_in_the_store(tmp_path: Path) -> None:
    unique = deduplicate(tmp_path, clean(tmp_path))
    settings = TokenizeSettings(validation_fraction=0.2)
    parts = tokens_of(tmp_path, unique, validation_fraction=0.2)
    root = storage.to_uri(tmp_path)
    one, other = (assemble_corpus(unique, order, settings, root) for order in (parts, parts[::-1]))
    assert one == other
    assert Manifest.load_uri(storage.join(root, "corpus", one.fingerprint, "manifest.json")) == one


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    unique = deduplicate(tmp_path, clean(tmp_path))
    parts = tokens_of(tmp_path, unique)
    root = storage.to_uri(tmp_path)
    for wrong in (parts[:1], [*parts, parts[1]]):
        with pytest.raises(InputError, match="train-shard-00001, validation-shard-00001"):
            assemble_corpus(unique, wrong, TokenizeSettings(), root)


def test_parts_of_another_run_or_tokenizer_are_refused(tmp_path: Path) -> None:
    unique = deduplicate(tmp_path, clean(tmp_path))
    parts = tokens_of(tmp_path, unique)
    root = storage.to_uri(tmp_path)
    stale = parts[1].model_copy(update={"inputs": {"deduplicated": "0123456789abcdef"}})
    with pytest.raises(InputError, match="0123456789abcdef"):
        assemble_corpus(unique, [parts[0], stale], TokenizeSettings(), root)
    other = tmp_path / "other"
    other.mkdir()
    text = (TOKENIZER / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text + "\n")
    mixed = [parts[0], tokens_of(tmp_path, unique, other)[1]]
    with pytest.raises(InputError, match=r"shard-00001 has tokenizer_sha256"):
        assemble_corpus(unique, mixed, TokenizeSettings(), root)


def test_one_document_is_no_corpus(tmp_path: Path) -> None:
    unique = deduplicate(tmp_path, [clean_shard(tmp_path, "shard-00000", [document("PMC1", prose(1))])])
    with pytest.raises(InputError, match="Only 1 document"):
        corpus_of(tmp_path, unique)


def test_the_whole_way_is_the_same_on_s3(tmp_path: Path, s3_server: str) -> None:
    here = corpus(tmp_path)
    there = corpus_of(s3_server, deduplicate(s3_server, clean(s3_server)), validation_fraction=0.2)
    assert there.fingerprint == here.fingerprint
    assert there.totals == here.totals
    assert all(shard.uri.startswith(s3_server) for shard in there.shards)
    assert [storage.read(shard.uri) for shard in there.shards] == [storage.read(shard.uri) for shard in here.shards]
    again = corpus_of(s3_server, deduplicate(s3_server, clean(s3_server)), validation_fraction=0.2)
    assert again == there


def test_an_account_that_does_not_add_up_is_an_error(tmp_path: Path) -> None:
    shards = clean(tmp_path)
    wrong = shards[0].model_copy(update={"stats": {**shards[0].stats, "listed": 30}})
    with pytest.raises(PipelineError, match="55 articles were listed, but 46 are accounted for"):
        corpus_of(tmp_path, deduplicate(tmp_path, [wrong, shards[1]]))


def test_random_corpora_always_add_up(tmp_path: Path) -> None:
    draw = random.Random(11)
    for trial in range(5):
        root = tmp_path / str(trial)
        texts = [prose(draw.randint(0, 12), words=60) for _ in range(40)]
        rows = [document(f"PMC{draw.randint(0, 30)}", text) for text in texts]
        count = draw.randint(1, 5)
        shards = [clean_shard(root, f"shard-{n:05d}", rows[n::count], filtered=FILTERED[:n]) for n in range(count)]
        manifest = corpus_of(root, deduplicate(root, shards))
        assert manifest.totals["listed"] == manifest.totals["kept"] + sum(manifest.dropped.values())
        assert manifest.totals["kept"] <= 13
