"""`python -m pipelines plan`: what pre-training takes, beside the paper's figures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.common.errors import InputError
from pipelines.plan_command import Costs, Question, plan_costs, show_plan
from pipelines.recipe import load_recipe


def costs(node: str = "8xA100-80GB", recipe: str = "paper", overrides: tuple[str, ...] = (), **asked: Any) -> Costs:
    """What a recipe takes."""
    return plan_costs(load_recipe(recipe, overrides), Question(node, **asked))


def shown(capsys: pytest.CaptureFixture[str], recipe: str, *overrides: str, **asked: Any) -> str:
    """The table's text and the lines below it."""
    show_plan(load_recipe(recipe, overrides), Question(**asked))
    return capsys.readouterr().out


def test_the_papers_run_at_the_papers_speed_takes_the_papers_time() -> None:
    paper = costs(mfu=0.307)
    assert paper.hours / 5 == pytest.approx(36, rel=0.1)
    assert paper.tokens_per_second == pytest.approx(2370, rel=0.1)
    assert paper.work.flops == pytest.approx(5.0e20, rel=0.1)
    assert paper.own is not None
    assert (paper.own.fits, paper.own.passes) == (True, 1)


def test_hours_and_cost_follow_the_mfu_the_gpus_and_the_price() -> None:
    one, four = costs(mfu=0.2), costs(mfu=0.4, node="16xA100-80GB", overrides=("train.micro_batch_size=8",))
    assert one.hours == pytest.approx(4 * four.hours)
    assert costs(price=2.0).price == 2.0
    assert costs(overrides=("train.gpu_hour_price=3",)).price == 3
    assert costs().price is None


def test_documents_come_from_the_question_the_recipe_or_the_paper() -> None:
    assert costs(documents=1000).work.documents == 1000
    assert costs(overrides=("download.max_articles=2000",)).work.documents == 2000
    assert costs().work.documents == 4_800_000


def test_the_table_lays_the_plan_beside_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "paper", node="8xA100-80GB", price=2.5)
    rows = {cells[1].strip(): cells[2:4] for line in text.splitlines() if len(cells := line.split("│")) == 5}
    assert [cell.strip() for cell in rows["Steps"]] == ["187,500", "187,500"]
    assert [cell.strip() for cell in rows["Tokens/s of a GPU"]] == ["4,242", "2,370"]
    assert [cell.strip() for cell in rows["MFU"]] == ["55.0%", "30.7%"]
    assert [cell.strip() for cell in rows["Cost at 2.5 a GPU hour"]] == ["2,011", "3,600"]
    assert rows["A checkpoint"][0].strip() == "75.3 GiB"
    assert "The recipe's micro-batch fits." in text


def test_what_does_not_fit_is_said_with_the_settings_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "paper", node="8xA100-40GB")
    assert "The recipe's micro-batch does not fit. What fits: 8 x 16 x 1" in text
    assert "--set train.micro_batch_size=16 --set train.activation_checkpointing=selective" in text
    assert "cost 11% of the speed or more" in text
    none = shown(capsys, "paper", "train.processes_per_node=1", node="1xA100-40GB")
    assert "Does not fit by any means" in none


def test_the_tiny_recipe_and_a_local_model_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "614,880" in shown(capsys, "tiny", node="1xL40S-48GB")
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4, "vocab_size": 100}))
    assert costs(model=str(tmp_path)).shape.parameters == 100 * 64 * 2 + 4 * 64**2 + 3 * 64 * 128 + 3 * 64


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"mfu": 1.5}, "above 0 and at most 1, not 1.5"),
        ({"mfu": 0.0}, "above 0 and at most 1, not 0.0"),
        ({"node": "8xTPU"}, "The GPU 'TPU' is not known"),
        ({"model": "nowhere/to-be-found"}, "its sizes are not known here"),
        ({"node": "7xA100-80GB"}, "128 does not split over 7 GPUs"),
        ({"overrides": ("train.context_length=4096",)}, "4096 exceeds huggyllama/llama-7b's 2048 positions"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_sentence(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        costs(**asked)


def test_the_command_needs_no_torch() -> None:
    script = (
        "import sys; from pipelines.cli import app; "
        "app(['plan', '--recipe', 'paper', '--node', '8xH100-80GB', '--mfu', '0.5'], standalone_mode=False); "
        "sys.exit([name for name in ('torch', 'transformers', 'kfp') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 x H100-80GB" in done.stdout
