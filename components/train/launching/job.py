"""What a worker is told: the one JSON file that the launcher writes and the trainer reads."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from components.train.settings import FinetuneSettings, TrainSettings


class TokenShard(BaseModel):
    """One `.bin` file of token ids; its `.idx` lies beside it.

    Attributes:
        name: Of the shard in its corpus.
        uri: Of the `.bin` file.
        documents: How many there are.
        tokens: Ids in the `.bin` file.
        sha256: Of the `.bin` file.
        index_sha256: Of the `.idx` file; empty where an older manifest does not say it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    uri: str
    documents: int
    tokens: int
    sha256: str
    index_sha256: str = ""


class TokenSource(BaseModel):
    """One corpus's training documents.

    Attributes:
        name: What metrics call it.
        shards: In order: it decides the numbers of the documents.
        weight: Share of the windows, for mixed sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shards: list[TokenShard]
    weight: float = 1.0


class TrainJob(BaseModel):
    """One training run, complete: nothing else is read but the environment of tracking and credentials.

    Attributes:
        fingerprint: Names the run; part of `output_uri`.
        base_model_uri: Hugging Face folder with safetensors weights and tokenizer.
        sources: What is trained on; more than one only with mixed sampling.
        validation: Held-out shards of the run's own corpus.
        token_dtype: `uint16` or `uint32`.
        vocabulary_size: Of the tokenizer; no token id reaches it.
        end_token_id: Joins documents in packed sampling.
        padding_token_id: Fills windows of short documents.
        output_uri: Prefix of everything the run writes: `checkpoints/`, `model/`, `losses.jsonl`, `result.json`.
        scratch_folder: Local folder for copies; may vanish between runs.
        settings: The recipe's section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    base_model_uri: str
    sources: list[TokenSource]
    validation: list[TokenShard] = []
    token_dtype: str
    vocabulary_size: int
    end_token_id: int
    padding_token_id: int
    output_uri: str
    scratch_folder: Path
    settings: Annotated[TrainSettings | FinetuneSettings, Field(discriminator="objective")]

    @property
    def shards(self) -> list[TokenShard]:
        """Training shards of all sources."""
        return [shard for source in self.sources for shard in source.shards]


class TrainResult(BaseModel):
    """What a finished run leaves as `result.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_uri: str
    files: list[dict[str, Any]]
    totals: dict[str, int | float]
