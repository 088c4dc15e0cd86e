"""The instruction set that the download step wrote, one JSON object a line: what a model learns to answer from."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes
from components.common.instructions import Instruction
from components.common.manifest import Manifest, Shard
from components.common.validation import first_problem

INSTRUCTIONS = "instructions-train"
"""The set's shard in the benchmarks' manifest."""


class SolvedInstruction(BaseModel):
    """A request and its answer; the id is a hash of both."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    instruction: str = Field(min_length=1)
    input: str = ""
    output: str = Field(min_length=1)

    @property
    def request(self) -> Instruction:
        """What is asked."""
        return Instruction(self.instruction, self.input)


def instruction_shard(benchmarks: Manifest) -> Shard:
    """Return the set's shard.

    Raises:
        InputError: The manifest has none.
    """
    for shard in benchmarks.shards:
        if shard.name == INSTRUCTIONS:
            return shard
    raise InputError(
        f"The benchmarks {benchmarks.fingerprint} come without an instruction set: set download.instructions (sample, "
        "a folder, an s3:// prefix, or owner/name@commit on the hub)."
    )


def read_instructions(benchmarks: Manifest) -> Iterator[SolvedInstruction]:
    """Yield the instructions in their order.

    Raises:
        InputError: The manifest has no set, the file is not what the manifest says, or a line is no instruction.
        StorageError: The file cannot be read.
    """
    shard = instruction_shard(benchmarks)
    data = storage.read(shard.uri)
    if sha256_bytes(data) != shard.sha256:
        raise InputError(f"{shard.uri} is not the file that its manifest names; delete it and rerun the download.")
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield _parse(line, shard.uri, number)


def _parse(line: bytes, uri: str, number: int) -> SolvedInstruction:
    try:
        return SolvedInstruction.model_validate_json(line)
    except ValidationError as error:
        problem = first_problem(error)
        raise InputError(f"Line {number} of {uri} is no instruction ({problem}); rerun the download.") from error
