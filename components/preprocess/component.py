"""KFP interface of the preprocess stage."""

from typing import List  # noqa: UP035 - KFP's type system knows typing.List of artifacts only

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def extract_shard(
    preprocess: dict,
    raw: dsl.Input[dsl.Dataset],
    benchmarks: dsl.Input[dsl.Dataset],
    shard: str,
    clean: dsl.Output[dsl.Dataset],
):
    """Turn the JATS articles of one shard into clean text without test questions, and say what became of each."""
    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.preprocess.clean import clean_shard
    from components.preprocess.settings import PreprocessSettings

    with step(f"Extract text ({shard})") as current:
        root = storage.to_uri(get_settings().store_uri)
        questions = Manifest.load(benchmarks.path)
        manifest = clean_shard(Manifest.load(raw.path), PreprocessSettings(**preprocess), root, questions)
        manifest.save(clean.path)
        clean.metadata.update(manifest.metadata())
        current.report(manifest.totals)


@kfp_step
def find_duplicates(
    preprocess: dict, clean: dsl.Input[List[dsl.Dataset]], deduplicated: dsl.Output[dsl.Dataset]
) -> list[str]:
    """Find exact and near duplicates over all shards; returns the shards' names."""
    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.preprocess.deduplication.duplicates import find_duplicates as logic
    from components.preprocess.settings import PreprocessSettings

    with step("Find duplicates") as current:
        settings = PreprocessSettings(**preprocess)
        current.run.log_params({"preprocess": settings.model_dump(mode="json")})
        shards = [shard for artifact in clean for shard in Manifest.load(artifact.path).shards]
        root = storage.to_uri(get_settings().store_uri)
        manifest = logic(shards, settings.deduplicate, root, settings.max_rejected_fraction)
        manifest.save(deduplicated.path)
        deduplicated.metadata.update(manifest.metadata())
        current.report(manifest.totals)
    return [shard.name for shard in manifest.shards]


@kfp_step
def tokenize_shard(
    preprocess: dict,
    deduplicated: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    shard: str,
    tokens: dsl.Output[dsl.Dataset],
):
    """Encode the unique texts of one shard with the base model's tokenizer."""
    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.preprocess.settings import PreprocessSettings
    from components.preprocess.tokenization.tokens import tokenize_with_model

    with step(f"Tokenise ({shard})") as current:
        manifest = tokenize_with_model(
            Manifest.load(deduplicated.path),
            shard,
            Manifest.load(base_model.path),
            PreprocessSettings(**preprocess).tokenize,
            storage.to_uri(get_settings().store_uri),
        )
        manifest.save(tokens.path)
        tokens.metadata.update(manifest.metadata())
        current.report(manifest.totals)


@kfp_step
def assemble_corpus(
    preprocess: dict,
    deduplicated: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[List[dsl.Dataset]],
    benchmarks: dsl.Input[dsl.Dataset],
    corpus: dsl.Output[dsl.Dataset],
    data_card: dsl.Output[dsl.HTML],
    contamination: dsl.Output[dsl.HTML],
):
    """Assemble the corpus, which accounts for every article; write its data card and its page on contamination."""
    from pathlib import Path

    from components.common import storage
    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.preprocess.corpus import assemble_corpus as logic
    from components.preprocess.data_card import render_data_card
    from components.preprocess.decontamination.contamination import account_for_contamination
    from components.preprocess.decontamination.contamination_page import render_contamination
    from components.preprocess.settings import PreprocessSettings

    with step("Assemble the corpus") as current:
        unique = Manifest.load(deduplicated.path)
        parts = [Manifest.load(artifact.path) for artifact in tokens]
        root = storage.to_uri(get_settings().store_uri)
        settings = PreprocessSettings(**preprocess)
        overlaps = account_for_contamination(unique, Manifest.load(benchmarks.path), settings.decontaminate, root)
        manifest = logic(unique, parts, settings.tokenize, root, overlaps.summary)
        manifest.save(corpus.path)
        corpus.metadata.update(manifest.metadata())
        Path(contamination.path).write_text(render_contamination(overlaps), encoding="utf-8")
        Path(data_card.path).write_text(render_data_card(manifest, unique), encoding="utf-8")
        current.report(manifest.totals)
        current.run.log_dataset(manifest, "corpus")
        current.run.log_page(data_card.path, "data-card.html")
        current.run.log_page(contamination.path, "contamination.html")
