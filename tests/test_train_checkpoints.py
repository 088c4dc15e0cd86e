"""Checkpoints of a small sharded model: what is stored, what comes back, what is refused."""

import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from train_helpers import tiny_settings

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from components.train.checkpoints import lease, writer
from components.train.checkpoints.checkpoints import Checkpoints
from components.train.checkpoints.lease import Holder, Lease
from components.train.checkpoints.places import complete_steps
from components.train.checkpoints.randomness import seed_step
from components.train.distributed import Layout


class Training:
    """A model of two layers that is trained on random numbers, each step's drawn from the step."""

    def __init__(self, layout: Layout, seed: int = 0, frozen: bool = False) -> None:
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
        if frozen:
            self.model[0].requires_grad_(False)
        for layer in self.model:
            fully_shard(layer, mesh=layout.mesh)
        fully_shard(self.model, mesh=layout.mesh)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=0.1, fused=True)
        self.history: list[dict[str, Any]] = []

    def step(self, count: int = 1) -> "Training":
        """Train for so many steps."""
        for _ in range(count):
            random = torch.Generator().manual_seed(len(self.history))
            loss = self.model(torch.randn(5, 8, generator=random)).square().mean()
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.history.append({"step": len(self.history) + 1, "loss": loss.item()})
        return self

    def save(self, checkpoints: Checkpoints, **kind: Any) -> None:
        """Save without waiting."""
        checkpoints.save(self.model, self.optimiser, self.history, **kind)

    def resume(self, checkpoints: Checkpoints) -> "Training":
        """Load what is there."""
        self.history = checkpoints.resume(self.model, self.optimiser)
        return self


def opened(folder: Path, layout: Layout, **settings: Any) -> Checkpoints:
    """The checkpoints in a folder."""
    return Checkpoints(f"file://{folder}", tiny_settings(**settings), layout)


def two_checkpoints(folder: Path, layout: Layout) -> Training:
    """Leave checkpoints after steps 2 and 4."""
    training = Training(layout)
    with opened(folder, layout) as checkpoints:
        for _ in range(2):
            training.step(2).save(checkpoints)
            checkpoints.finish()
    return training


def test_a_run_that_goes_on_is_the_run_that_was_never_interrupted(tmp_path: Path, layout: Layout) -> None:
    with opened(tmp_path, layout) as checkpoints:
        Training(layout).step(3).save(checkpoints)  # the end of the block waits for it
    with opened(tmp_path, layout) as checkpoints:
        resumed = Training(layout, seed=1).resume(checkpoints)
    assert [record["step"] for record in resumed.history] == [1, 2, 3]
    assert resumed.step(3).history == Training(layout).step(6).history


def test_what_is_saved_is_the_state_of_that_step_though_training_goes_on(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(layout).step(3)
    allowed = hold_writing(monkeypatch)
    with opened(tmp_path, layout) as checkpoints:
        training.save(checkpoints)
        training.step(5)
        allowed.set()
    with opened(tmp_path, layout) as checkpoints:
        resumed = Training(layout, seed=1).resume(checkpoints)
    assert len(resumed.history) == 3
    assert resumed.step(5).history == training.history


def test_what_is_stored_is_numbers_and_json(tmp_path: Path, layout: Layout) -> None:
    with opened(tmp_path, layout) as checkpoints:
        training = Training(layout).step(2)
        training.save(checkpoints)
    folder = tmp_path / "step-00000002"
    assert {path.name for path in folder.iterdir()} == {"COMPLETE", "history.jsonl", "index.json", "rank-00000.bin"}
    tensors = json.loads((folder / "index.json").read_text())["tensors"]
    (piece,) = tensors["model.1.weight"]["pieces"]
    stored = (folder / piece["file"]).read_bytes()[piece["start"] :][: piece["bytes"]]
    weight = training.model[1].weight.full_tensor()
    assert stored == weight.detach().numpy().tobytes()
    # 4 parameters: weights, two moments, the count of steps
    assert len(tensors) == 4 * 4
    sizes = [piece["bytes"] for tensor in tensors.values() for piece in tensor["pieces"]]
    assert (folder / "rank-00000.bin").stat().st_size == sum(sizes) == 3 * 4 * (8 * 16 + 16 + 16 * 4 + 4) + 4 * 4
    assert not (tmp_path / "OWNER").exists()


def test_frozen_weights_are_not_stored(tmp_path: Path, layout: Layout) -> None:
    with opened(tmp_path, layout) as checkpoints:
        Training(layout, frozen=True).step(2).save(checkpoints)
    tensors = json.loads((tmp_path / "step-00000002" / "index.json").read_text())["tensors"]
    assert {name for name in tensors if name.startswith("model.")} == {"model.1.weight", "model.1.bias"}
    with opened(tmp_path, layout) as checkpoints:
        resumed = Training(layout, frozen=True).resume(checkpoints)
    assert resumed.step(2).history == Training(layout, frozen=True).step(4).history


def cut(file: Path) -> None:
    """Leave half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Change a bit of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    """Leave a file without bytes."""
    file.write_bytes(b"")


def to_elsewhere(file: Path) -> None:
    """Have an index name a file outside of its folder."""
    data = file.read_text().replace("rank-00000.bin", "../../ran.bin")
    file.write_text(data)
    marker = json.loads((file.parent / "COMPLETE").read_text())
    marker["files"][file.name]["hash"] = writer.content_hash(data.encode())
    marker["files"][file.name]["bytes"] = len(data)
    (file.parent / "COMPLETE").write_text(json.dumps(marker))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("rank-00000.bin", cut, r"rank-00000.bin has 1,280 bytes instead of 2,560"),
        ("rank-00000.bin", flip, r"bytes [\d,]+ to [\d,]+ of rank-00000.bin are not those that were stored"),
        ("rank-00000.bin", Path.unlink, "rank-00000.bin is missing"),
        ("index.json", flip, "index.json has other bytes than were stored"),
        ("index.json", to_elsewhere, "the index cannot be read"),
        ("history.jsonl", flip, "history.jsonl has other bytes than were stored"),
        ("COMPLETE", cut, "COMPLETE cannot be read"),
        ("COMPLETE", empty, "COMPLETE cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_taken(
    tmp_path: Path,
    layout: Layout,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], Any],
    reason: str,
) -> None:
    training = two_checkpoints(tmp_path, layout)
    damage(tmp_path / "step-00000004" / name)
    with opened(tmp_path, layout) as checkpoints:
        resumed = Training(layout, seed=1).resume(checkpoints)
    assert re.search(rf"{tmp_path}/step-00000004 is damaged \({reason}\); trying the one before", caplog.text)
    assert complete_steps(f"file://{tmp_path}") == [2]
    assert resumed.step(2).history == training.history


def test_a_run_never_starts_anew_over_checkpoints_that_are_all_damaged(tmp_path: Path, layout: Layout) -> None:
    two_checkpoints(tmp_path, layout)
    flip(tmp_path / "step-00000004" / "rank-00000.bin")
    cut(tmp_path / "step-00000002" / "index.json")
    with (
        opened(tmp_path, layout) as checkpoints,
        pytest.raises(
            StorageError,
            match=r"(?s)^No checkpoint in file://.* is intact \(step 4: .*; step 2: index.json has"
            r".*or delete file://.* to train from the start",
        ),
    ):
        Training(layout).resume(checkpoints)
    assert complete_steps(f"file://{tmp_path}") == [2, 4]


def test_what_a_killed_save_left_behind_is_deleted(tmp_path: Path, layout: Layout) -> None:
    two_checkpoints(tmp_path, layout)
    (tmp_path / "step-00000004" / "COMPLETE").unlink()
    (tmp_path / "step-00000006").mkdir()
    (tmp_path / "step-00000006" / "rank-00000.bin#1").write_bytes(b"as the store names what it is still writing")
    with opened(tmp_path, layout) as checkpoints:
        assert len(Training(layout).resume(checkpoints).history) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_the_newest_are_kept_and_those_of_epochs_if_asked(tmp_path: Path, layout: Layout) -> None:
    for name, keep_epochs, kept in (("some", False, [5, 6]), ("more", True, [2, 4, 5, 6])):
        training = Training(layout)
        with opened(tmp_path / name, layout, keep_checkpoints=2, keep_epoch_checkpoints=keep_epochs) as checkpoints:
            for step in range(1, 7):
                training.step().save(checkpoints, epoch_end=step in (2, 4))
        assert complete_steps(f"file://{tmp_path}/{name}") == kept


def test_a_checkpoint_is_due_by_steps_and_by_minutes(tmp_path: Path, layout: Layout) -> None:
    by_steps = opened(tmp_path, layout, checkpoint_every_steps=3)
    assert [step for step in range(1, 10) if by_steps.due(step)] == [3, 6, 9]
    by_minutes = opened(tmp_path, layout, checkpoint_every_steps=None, checkpoint_minutes=1)
    assert not by_minutes.due(1)
    by_minutes._last_save -= 60
    assert by_minutes.due(2)


def hold_writing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let no file be written until the event is set."""
    allowed, open_writer = threading.Event(), storage.open_writer

    def wait_and_open(uri: str) -> Any:
        assert allowed.wait(30)
        return open_writer(uri)

    monkeypatch.setattr(storage, "open_writer", wait_and_open)
    return allowed


def test_none_is_due_while_one_is_under_way_and_its_cost_is_told(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    allowed = hold_writing(monkeypatch)
    training = Training(layout).step(2)
    with opened(tmp_path, layout) as checkpoints:
        training.save(checkpoints)
        assert not any(checkpoints.due(step) for step in (2, 3, 4, 6))
        assert caplog.text.count("No checkpoint after step") == 1
        assert "No checkpoint after step 2: that of step 2 is still being stored" in caplog.text
        assert checkpoints.commits() == []
        time.sleep(0.3)
        allowed.set()
        checkpoints.finish()
        assert checkpoints.due(8)
        (commit,) = checkpoints.commits()
        assert commit.step == 2
        assert 0.3 < commit.seconds < 30
        assert commit.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*[ln]") if path.is_file())
        assert checkpoints.commits() == []


def test_a_full_disk_ends_the_run_with_a_sentence_and_leaves_the_checkpoint_before(
    tmp_path: Path, layout: Layout
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        training = Training(layout)
        with opened(disk, layout) as checkpoints:
            training.step(2).save(checkpoints)
            checkpoints.finish()
            free = 40 - sum(-(-path.stat().st_size // 4096) * 4 for path in disk.rglob("*") if path.is_file())
            (disk / "filler").write_bytes(b"x" * free * 1024)
            training.step(2).save(checkpoints)
            with pytest.raises(
                StorageError, match=r"step-00000004 could not be stored \(.*the disk is full; free some"
            ):
                checkpoints.finish()
            assert not (disk / "step-00000004").exists()
        assert complete_steps(f"file://{disk}") == [2]
        (disk / "filler").unlink()
        with opened(disk, layout) as checkpoints:
            assert len(Training(layout).resume(checkpoints).history) == 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)


HOLD = """
import sys
from components.train.checkpoints import lease
lease.BEAT_SECONDS = 0.1
held = lease.Lease(sys.argv[1], "run-of-another")
held.claim()
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every 0.1 s; a minute without one is death, so that no busy machine is taken for a dead one."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.15)


@pytest.mark.usefixtures("quick_lease")
def test_a_second_run_is_refused_by_name_and_takes_the_place_of_a_killed_one_at_once(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", HOLD, f"file://{tmp_path}"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        in_use = rf"is in use by process {other.pid} on .* \(pipeline run run-of-another\), which trains the same"
        with pytest.raises(StorageError, match=in_use):
            opened(tmp_path, layout).__enter__()
    finally:
        other.kill()
        other.communicate()
    assert (tmp_path / "OWNER").exists()
    started = time.monotonic()
    with opened(tmp_path, layout):
        assert time.monotonic() - started < lease.EXPIRY_SECONDS / 2
    assert not (tmp_path / "OWNER").exists()


def claim_elsewhere(folder: Path, run_id: str = "") -> Holder:
    """Leave a sign of a process on another machine."""
    holder = Holder(token="t", run_id=run_id, host="far-away", machine="its boot/pid:[1]", pid=1, started=5)
    folder.mkdir(exist_ok=True)
    (folder / "OWNER").write_text(holder.model_dump_json())
    return holder


@pytest.mark.usefixtures("quick_lease")
def test_a_holder_on_another_machine_is_dead_when_it_gives_no_sign_of_life(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1.0)
    claim_elsewhere(tmp_path)
    started = time.monotonic()
    with opened(tmp_path, layout):
        assert time.monotonic() - started >= 1


def test_the_same_pipeline_run_takes_its_place_back_at_once(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMC_RUN_ID", "run-7")
    get_settings.cache_clear()
    claim_elsewhere(tmp_path, run_id="run-7")
    started = time.monotonic()
    with opened(tmp_path, layout):
        assert time.monotonic() - started < lease.EXPIRY_SECONDS / 2


@pytest.mark.usefixtures("quick_lease")
def test_a_run_whose_place_was_taken_stops_and_commits_nothing(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(layout).step(2)
    with pytest.raises(StorageError, match="was taken over by process 1 on far-away; this run stops"):  # noqa: SIM117
        with opened(tmp_path, layout) as checkpoints:
            monkeypatch.setattr(lease, "BEAT_SECONDS", 60)
            time.sleep(0.2)
            other = claim_elsewhere(tmp_path)
            training.save(checkpoints)
            checkpoints.finish()
    assert complete_steps(f"file://{tmp_path}") == []
    assert Holder.model_validate_json((tmp_path / "OWNER").read_text()) == other


@pytest.mark.usefixtures("quick_lease")
def test_the_loop_is_told_that_the_place_was_taken(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(StorageError, match="taken over"), opened(tmp_path, layout) as checkpoints:
        claim_elsewhere(tmp_path)
        for step in range(1, 2000):
            checkpoints.due(step)
            time.sleep(0.02)


def test_of_many_that_start_at_once_one_gets_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Lease, "_may_take", lambda self, holder: False)  # they are one process here
    outcomes: list[object] = []

    def claim() -> None:
        try:
            held = Lease(f"file://{tmp_path}", "")
            held.claim()
            outcomes.append(held)
        except StorageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    assert sum("is in use by" in str(outcome) for outcome in outcomes) == 7
    winner.release()


def test_dropout_is_a_function_of_seed_step_and_process() -> None:
    def mask(*place: int) -> list[float]:
        seed_step(*place)
        return torch.nn.functional.dropout(torch.ones(64)).tolist()

    assert mask(1, 2, 0) == mask(1, 2, 0)
    assert len({tuple(mask(*place)) for place in ((1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 0), (12, 0, 0))}) == 5


def test_a_run_that_fails_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    allowed = hold_writing(monkeypatch)
    monkeypatch.setattr("components.train.checkpoints.checkpoints._LAST_WORDS_SECONDS", 0.2)
    with pytest.raises(ValueError, match="the loss is no number"), opened(tmp_path, layout) as checkpoints:
        Training(layout).step(2).save(checkpoints)
        raise ValueError("the loss is no number")
    allowed.set()
    time.sleep(0.5)
    assert complete_steps(f"file://{tmp_path}") == []
