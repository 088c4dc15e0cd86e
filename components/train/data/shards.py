"""A run's token shards on this node: all processes together open them, one per node fetches."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch.distributed as dist

from components.common.errors import PipelineError
from components.train.data.background import BackgroundFetch, NodeArrivals
from components.train.data.corpus import Corpus
from components.train.data.fetch import check_room, fetch_index, fetch_tokens, local_file
from components.train.data.shelf import Shelf
from components.train.distributed import Layout
from components.train.launching.job import TokenShard, TrainJob

_PARALLEL_INDEXES = 16


@dataclass(frozen=True)
class NodeShards:
    """Shards whose indexes are here, and whose tokens come in the background."""

    folder: Path
    dtype: str
    arrivals: NodeArrivals
    fetching: BackgroundFetch | None

    def corpus(self, shards: Sequence[TokenShard]) -> Corpus:
        """The documents of some of them."""
        return Corpus([local_file(shard, self.folder) for shard in shards], self.dtype, self.arrivals)

    def start(self, shards: Sequence[TokenShard]) -> None:
        """Fetch the tokens of these, in this order, where this process is the one that does."""
        if self.fetching is not None:
            self.fetching.start([local_file(shard, self.folder) for shard in shards])


def open_shards(job: TrainJob, shards: Sequence[TokenShard], folder: Path, layout: Layout) -> NodeShards:
    """Bring the indexes of shards to every node and check them; every process calls it, and gets the same errors.

    Raises:
        InputError: A shard is missing, its index is not what the manifest says, or the disk is too small.
        StorageError: The store is down.
    """
    by_file = {local_file(shard, folder): shard for shard in shards}
    shelf = Shelf(folder, list(by_file))

    def prepare() -> None:
        shelf.clear()
        check_room(list(by_file.values()), folder, job.token_dtype)
        with ThreadPoolExecutor(_PARALLEL_INDEXES) as pool:
            list(pool.map(lambda shard: fetch_index(shard, folder, job.token_dtype, Event()), by_file.values()))

    def fetch(file: Path, stop: Event) -> None:
        fetch_tokens(by_file[file], folder, job.token_dtype, job.vocabulary_size, stop)

    _once_per_node(prepare, layout)
    fetching = BackgroundFetch(fetch, shelf) if layout.is_first_on_node else None
    return NodeShards(folder, job.token_dtype, NodeArrivals(shelf, fetching), fetching)


def _once_per_node(action: Callable[[], None], layout: Layout) -> None:
    """Do something in one process of each node while the others wait; where it fails, all raise the first error."""
    failure = None
    if layout.is_first_on_node:
        try:
            action()
        except PipelineError as error:
            failure = error
    failures: list[PipelineError | None] = [None] * layout.world
    dist.all_gather_object(failures, failure, group=layout.patient_group)
    for found in failures:
        if found is not None:
            raise found
