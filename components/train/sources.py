"""Which token shards a run trains on: those of its own corpus, and of others where the recipe mixes them."""

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.train.launching.job import TokenShard, TokenSource
from components.train.settings import OWN_CORPUS, TrainSettings

_MUST_BE_EQUAL = ("dtype", "vocab_size", "tokenizer_sha256")


def corpora(corpus: Manifest, settings: TrainSettings) -> dict[str, Manifest]:
    """Read the manifests of all corpora that the run trains on, by name, in the settings' order.

    Raises:
        InputError: One of them cannot be used, or was tokenised otherwise than the run's own.
        StorageError: One cannot be read.
    """
    found = {name: corpus if name == OWN_CORPUS else _read(name, corpus) for name in settings.corpora}
    if empty := next((manifest for manifest in found.values() if not token_shards(manifest, "train")), None):
        raise InputError(f"Corpus {empty.fingerprint} has no training documents: nothing passed the filters.")
    return found


def token_sources(by_name: dict[str, Manifest], settings: TrainSettings) -> list[TokenSource]:
    """What a job says of its corpora."""
    return [
        TokenSource(name=name, shards=token_shards(manifest, "train"), weight=settings.mixture.get(name, 1.0))
        for name, manifest in by_name.items()
    ]


def token_shards(corpus: Manifest, split: str) -> list[TokenShard]:
    """A corpus's shards of a split, `train` or `validation`, that hold documents."""
    return [
        TokenShard(
            name=shard.name,
            uri=shard.uri,
            documents=shard.stats["documents"],
            tokens=shard.stats["tokens"],
            sha256=shard.sha256,
            index_sha256=shard.stats.get("index_sha256", ""),
        )
        for shard in corpus.shards
        if shard.stats["split"] == split and shard.stats["documents"] > 0
    ]


def _read(uri: str, own: Manifest) -> Manifest:
    if not storage.exists(uri):
        raise InputError(f"train.mixture names {uri}, but nothing is there; give the URI of a corpus's manifest.json.")
    manifest = Manifest.load_uri(uri)
    if manifest.kind != "corpus":
        raise InputError(f"train.mixture names {uri}, which is a manifest of kind {manifest.kind} and no corpus.")
    for name in _MUST_BE_EQUAL:
        theirs, ours = manifest.extra.get(name), own.extra.get(name)
        if theirs != ours:
            raise InputError(
                f"The corpus {uri} has {name} {theirs}, but the run's own has {ours}: tokenise both with one tokenizer."
            )
    return manifest
