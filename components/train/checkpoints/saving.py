"""A save under way: started in the loop, carried out by a thread."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from components.common.errors import StorageError
from components.train.checkpoints.writer import StoreWriter


@dataclass(frozen=True)
class Commit:
    """A checkpoint that is complete: its step, the seconds from the start of the save until then, its size."""

    step: int
    seconds: float
    bytes: int


class Save:
    """One checkpoint on its way to the store."""

    def __init__(
        self,
        step: int,
        uri: str,
        tensors: dict[str, Any],
        writer: StoreWriter,
        stager: DefaultStager,
        group: ProcessGroup,
    ) -> None:
        """Copy the tensors and start storing the copy; every process must do so."""
        self.step, self._uri = step, uri
        # A thread, not a process: the writer leaves Python's lock alone, so that training is slowed no more by the one
        # than by the other (benchmarks/checkpoints.py), and there is no second process to start and to see die.
        self._written = cast(
            Future[Any],
            dcp.async_save(
                tensors,
                storage_writer=writer,
                planner=DefaultSavePlanner(flatten_state_dict=False),
                process_group=group,
                async_stager=stager,
            ),
        )

    @property
    def done(self) -> bool:
        """Whether it is complete or has failed."""
        return self._written.done()

    def wait(self, seconds: float | None = None) -> None:
        """Return when it is complete.

        Raises:
            StorageError: It failed in one of the processes.
            TimeoutError: It is not complete after so many seconds.
        """
        try:
            self._written.result(seconds)
        except CheckpointException as error:  # no Exception: a handler of those would not see it
            causes = {str(cause) for cause, _ in error.failures.values()}
            raise StorageError(
                f"The checkpoint {self._uri} could not be stored ({'; '.join(sorted(causes))}); mend that and run "
                "again: it goes on from the checkpoint before."
            ) from error


def build_stager(device: torch.device) -> DefaultStager:
    """Copies a state to main memory, to the same place each time; from a GPU into pinned memory."""
    gpu = device.type == "cuda"
    return DefaultStager(
        StagingOptions(
            use_pinned_memory=gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=gpu
        )
    )
