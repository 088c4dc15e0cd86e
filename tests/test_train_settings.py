"""The train section of a recipe, and that of fine-tuning."""

import pytest
from pydantic import ValidationError
from train_helpers import tiny_settings

from components.train.settings import FinetuneSettings, TrainSettings


def test_the_defaults_are_the_papers_recipe() -> None:
    settings = TrainSettings(processes_per_node=8)
    assert (settings.context_length, settings.global_batch_size, settings.epochs) == (512, 128, 5)
    assert (settings.learning_rate, settings.weight_decay, settings.warmup_fraction) == (2e-5, 0.0, 0.03)
    assert settings.max_gradient_norm is None
    assert not settings.mask_padding


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"learning_rate": 0}, {"warmup_fraction": 1}, {"typo": 1}, {"precision": "fp16"}],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings(**wrong)


def test_a_batch_that_does_not_split_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValidationError, match=r"global_batch_size 128 .* 16 x processes_per_node 3 = 48"):
        TrainSettings(processes_per_node=3)


def test_settings_that_do_not_change_the_model_keep_the_fingerprint() -> None:
    same = tiny_settings(micro_batch_size=2, log_every_steps=7, keep_checkpoints=5)
    assert tiny_settings().fingerprint_part() == same.fingerprint_part()
    for change in ({"seed": 1}, {"learning_rate": 1e-3}, {"mask_padding": True}, {"precision": "bf16"}):
        assert tiny_settings(**change).fingerprint_part() != same.fingerprint_part()


def test_the_micro_batch_size_is_a_number_or_auto() -> None:
    assert TrainSettings(micro_batch_size="auto", processes_per_node=8).micro_batch_size == "auto"
    for wrong in (0, -4, "big"):
        with pytest.raises(ValidationError, match="micro_batch_size"):
            TrainSettings(micro_batch_size=wrong)
    with pytest.raises(ValidationError, match=r"global_batch_size 128 .* 1 x processes_per_node 3 = 3"):
        TrainSettings(micro_batch_size="auto", processes_per_node=3)


def test_a_mixture_needs_mixed_sampling_and_the_other_way_round() -> None:
    assert TrainSettings(sampling="mixed", mixture={"corpus": 0.8, "s3://other/manifest.json": 0.2})
    for wrong in ({"sampling": "mixed"}, {"mixture": {"corpus": 1.0}}):
        with pytest.raises(ValidationError, match="mixture and sampling: mixed belong together"):
            TrainSettings(**wrong)


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_a_weight_is_a_number_above_0(weight: float) -> None:
    with pytest.raises(ValidationError, match="every weight in mixture must be a number above 0"):
        TrainSettings(sampling="mixed", mixture={"corpus": weight})


def test_a_run_that_a_bad_step_ended_can_go_on_with_what_its_message_advises() -> None:
    changed = tiny_settings(on_bad_loss="skip", max_skipped_steps=50, loss_spike_factor=3.0)
    assert tiny_settings().fingerprint_part() == changed.fingerprint_part()


def test_where_and_how_often_a_run_reports_does_not_change_its_fingerprint() -> None:
    same = tiny_settings(
        gpu_hour_price=2.5, validate_every_steps=7, activation_checkpointing="full", micro_batch_size=1
    )
    assert tiny_settings().fingerprint_part() == same.fingerprint_part()


def test_fine_tuning_defaults_are_the_authors_settings() -> None:
    settings = FinetuneSettings(processes_per_node=8)
    assert (settings.epochs, settings.learning_rate, settings.global_batch_size) == (3, 2e-5, 128)
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_dropout) == (8, 32, 0.1)
    assert (settings.context_length, settings.loss_on) == (2048, "all")
