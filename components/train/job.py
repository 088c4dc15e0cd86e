"""What a worker is told: the one JSON file that the launcher writes and the trainer reads."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.train.settings import TrainSettings


class TokenShard(BaseModel):
    """One `.bin` file of token ids; its `.idx` lies beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    uri: str
    documents: int
    sha256: str


class TrainJob(BaseModel):
    """One training run, complete: nothing else is read but the environment of tracking and credentials.

    Attributes:
        fingerprint: Names the run; part of `output_uri`.
        base_model_uri: Hugging Face folder with safetensors weights and tokenizer.
        shards: Token shards of the training split, in order.
        token_dtype: `uint16` or `uint32`.
        vocabulary_size: Of the tokenizer; no token id reaches it.
        output_uri: Prefix of everything the run writes: `checkpoints/`, `model/`, `losses.jsonl`, `result.json`.
        scratch_folder: Local folder for copies; may vanish between runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    base_model_uri: str
    shards: list[TokenShard]
    token_dtype: str
    vocabulary_size: int
    output_uri: str
    scratch_folder: Path
    settings: TrainSettings


class TrainResult(BaseModel):
    """What a finished run leaves as `result.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_uri: str
    files: list[dict[str, Any]]
    totals: dict[str, int | float]
