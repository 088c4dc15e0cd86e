"""Training against an S3 store: nothing is left to the local disk."""

from pathlib import Path

import pytest
from train_helpers import alone, documents, losses, make_job, tiny_settings, train_here, write_corpus, write_model

from components.common import storage
from components.train.checkpoint import complete_steps


def test_a_stopped_run_resumes_from_s3_on_another_machine_to_the_same_bits(tmp_path: Path, s3_server: str) -> None:
    corpus = write_corpus(f"{s3_server}/corpus", [documents(45)[:20], documents(45)[20:]])
    write_model(tmp_path / "base")
    storage.upload_folder(tmp_path / "base", f"{s3_server}/base/model")
    base = write_model(tmp_path / "base").model_copy(update={"extra": {"model_uri": f"{s3_server}/base/model"}})
    job = make_job(corpus, base, tiny_settings(checkpoint_every_steps=4), tmp_path / "whole")
    remote = job.model_copy(update={"output_uri": f"{s3_server}/train"})

    with alone() as layout:
        train_here(job, layout)
        with pytest.raises(SystemExit):
            train_here(remote.model_copy(update={"scratch_folder": tmp_path / "first"}), layout, stop_at_step=7)
        storage.write(f"{s3_server}/train/checkpoints/step-00000009/state/half", b"an upload that was cut short")
        train_here(remote.model_copy(update={"scratch_folder": tmp_path / "second"}), layout)

    assert complete_steps(f"{s3_server}/train/checkpoints") == [8, 12]
    (tmp_path / "fetched").mkdir()
    storage.download(f"{s3_server}/train/losses.jsonl", tmp_path / "fetched" / "losses.jsonl")
    assert losses(tmp_path / "fetched") == losses(tmp_path / "whole")
    names = {entry.uri.rpartition("/")[2] for entry in storage.list_files(f"{s3_server}/train/model")}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not any(entry for entry in storage.list_files(f"{s3_server}/train/checkpoints") if "00000009" in entry.uri)
