"""The train stage before anything is trained: what is refused, and which corpora it takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from train_helpers import END, VOCABULARY, documents, tiny_settings, write_corpus, write_model

from components.common.errors import InputError, TrainingError
from components.common.manifest import Manifest
from components.train.launching.job import TrainJob
from components.train.modelling.load import check_fits
from components.train.sources import corpora, token_shards, token_sources
from components.train.train import train


def test_manifests_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(f"file://{tmp_path}", [documents(5)])
    with pytest.raises(InputError, match="needs a corpus manifest, but manifest b0 is of kind model"):
        train(_model_manifest(), _model_manifest(), tiny_settings(), f"file://{tmp_path}")
    with pytest.raises(InputError, match="needs a model manifest, but manifest c0 is of kind corpus"):
        train(corpus, corpus, tiny_settings(), f"file://{tmp_path}")


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    empty = write_corpus(f"file://{tmp_path}", [documents(5)]).model_copy(update={"shards": []})
    with pytest.raises(InputError, match="no training documents"):
        train(empty, write_model(tmp_path / "base"), tiny_settings(), f"file://{tmp_path}")


def test_a_tokenizer_that_did_not_make_the_corpus_is_refused(tmp_path: Path) -> None:
    corpus, base = write_corpus(f"file://{tmp_path}", [documents(5)]), write_model(tmp_path / "base")
    file = tmp_path / "base" / "tokenizer.json"
    file.write_text(file.read_text().replace('"63"', '"sixty-three"'))  # a vocabulary of the same size
    with pytest.raises(InputError, match=r"Corpus c0 was tokenised with another tokenizer\.json than that of file://"):
        train(corpus, base, tiny_settings(), f"file://{tmp_path}")


def test_documents_that_end_already_are_not_joined_by_a_second_end_token(tmp_path: Path) -> None:
    corpus, base = write_corpus(f"file://{tmp_path}", [documents(5)]), write_model(tmp_path / "base")
    corpus.extra["eos_id"] = END
    with pytest.raises(InputError, match="ends with an end token already"):
        train(corpus, base, tiny_settings(sampling="packed"), f"file://{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "end", "padding"),
    [({}, 61, 61), ({"padding_token_id": 3}, 61, 3), ({"end_token_id": 4}, 4, 4)],
)
def test_documents_are_joined_and_filled_up_with_the_base_models_own_end_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], end: int, padding: int
) -> None:
    corpus, base = write_corpus(f"file://{tmp_path}", [documents(5)]), write_model(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"eos_token": "61"}')
    jobs: list[TrainJob] = []

    def launch(job: TrainJob) -> None:
        jobs.append(job)
        raise TrainingError("seen")

    monkeypatch.setattr("components.train.train.launch", launch)
    with pytest.raises(TrainingError, match="seen"):
        train(corpus, base, tiny_settings(sampling="packed", **changes), f"file://{tmp_path}")
    assert [(job.end_token_id, job.padding_token_id) for job in jobs] == [(end, padding)]


def test_a_base_model_that_does_not_fit_the_corpus_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    check_fits(tmp_path, 64, VOCABULARY, 2)
    with pytest.raises(InputError, match=r"has 64 token embeddings, but .* vocabulary of 65"):
        check_fits(tmp_path, 64, VOCABULARY + 1, 2)
    with pytest.raises(InputError, match="context_length 65 exceeds the base model's 64 positions"):
        check_fits(tmp_path, 65, VOCABULARY, 2)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no file model\.safetensors"):
        check_fits(tmp_path, 64, VOCABULARY, 2)


def test_the_launching_side_never_imports_torch() -> None:
    code = "import sys, components.train.train, components.train.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def stored_corpus(folder: Path, **extra: object) -> str:
    """Another corpus; returns its manifest's URI."""
    manifest = write_corpus(f"file://{folder}", [documents(4, seed=1)])
    manifest = manifest.model_copy(update={"fingerprint": "c1", "extra": manifest.extra | extra})
    manifest.save_uri(f"file://{folder}/manifest.json")
    return f"file://{folder}/manifest.json"


def test_a_mixture_names_corpora_by_their_manifests(tmp_path: Path) -> None:
    own, other = write_corpus(f"file://{tmp_path}/own", [documents(5)]), stored_corpus(tmp_path / "other")
    settings = tiny_settings(sampling="mixed", mixture={other: 0.25, "corpus": 0.75})
    by_name = corpora(own, settings)
    sources = token_sources(by_name, settings)
    assert [manifest.fingerprint for manifest in by_name.values()] == ["c0", "c1"]
    assert [(source.name, source.weight, len(source.shards)) for source in sources] == [
        ("corpus", 0.75, 1),
        (other, 0.25, 1),
    ]
    assert sources[1].shards == token_shards(by_name[other], "train")


@pytest.mark.parametrize("extra", [{"vocab_size": 65}, {"dtype": "uint32"}, {"tokenizer_sha256": "another"}])
def test_corpora_of_different_tokenizers_do_not_mix(tmp_path: Path, extra: dict[str, object]) -> None:
    own, other = write_corpus(f"file://{tmp_path}/own", [documents(5)]), stored_corpus(tmp_path / "other", **extra)
    settings = tiny_settings(sampling="mixed", mixture={"corpus": 1, other: 1})
    with pytest.raises(InputError, match=rf"has {next(iter(extra))} .*: tokenise both with one tokenizer"):
        corpora(own, settings)


def test_a_mixture_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    own = write_corpus(f"file://{tmp_path}/own", [documents(5)])
    settings = tiny_settings(sampling="mixed", mixture={"corpus": 1, f"file://{tmp_path}/no.json": 1})
    with pytest.raises(InputError, match=r"no\.json, but nothing is there"):
        corpora(own, settings)


def _model_manifest() -> Manifest:
    extra = {"model_uri": "file:///nowhere"}
    return Manifest(kind="model", fingerprint="b0", inputs={}, settings={}, shards=[], totals={}, extra=extra)
