"""The model that a run starts from, on this node's disk."""

from pathlib import Path

from components.common import storage
from components.train.distributed import Layout
from components.train.launching.job import TrainJob
from components.train.modelling.load import check_fits


def fetch_base_model(job: TrainJob, layout: Layout) -> Path:
    """Local folder of the base model, fetched once per node; every process must call this.

    Raises:
        InputError: It does not fit the corpus or the recipe.
        StorageError: It cannot be read.
    """
    if job.base_model_uri.startswith(storage.FILE_SCHEME):
        folder = storage.local_path(job.base_model_uri)
    else:
        folder = job.scratch_folder / "base"
        if layout.is_first_on_node:
            storage.download_folder(job.base_model_uri, folder)
        layout.wait_for_all()
    check_fits(folder, job.settings.context_length, job.vocabulary_size, job.padding_token_id)
    return folder
