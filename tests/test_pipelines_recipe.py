"""Recipes, their overrides, and what is said about wrong ones."""

from datetime import date
from pathlib import Path

import pytest

from components.common.errors import InputError
from components.train.settings import TrainSettings
from pipelines.recipe import load_recipe, recipe_names, setting_keys


def test_the_paper_recipe_holds_every_published_number() -> None:
    recipe = load_recipe("paper")
    train = recipe.train
    assert recipe.download.base_model == "huggyllama/llama-7b"
    assert (train.context_length, train.global_batch_size, train.epochs) == (512, 128, 5)
    assert (train.learning_rate, train.weight_decay, train.schedule, train.warmup_fraction) == (
        2e-5,
        0.0,
        "cosine",
        0.03,
    )
    assert (train.precision, train.processes_per_node, train.max_gradient_norm) == ("bf16", 8, None)
    assert train.micro_batch_size * train.processes_per_node == train.global_batch_size
    assert (train.mask_padding, train.padding_token_id) == (False, 2)


def test_the_bundled_recipes_are_valid_and_described() -> None:
    assert recipe_names() == ["paper", "tiny"]
    assert all(load_recipe(name).description for name in recipe_names())


@pytest.mark.parametrize(
    ("override", "value"),
    [("train.epochs=3", 3), ("train.learning_rate=2e-4", 2e-4), ("train.max_gradient_norm=1.0", 1.0)],
)
def test_an_override_changes_one_setting(override: str, value: float) -> None:
    recipe = load_recipe("tiny", [override])
    key = override.partition("=")[0].partition(".")[2]
    assert getattr(recipe.train, key) == value
    assert recipe.train.model_copy(update={key: getattr(load_recipe("tiny").train, key)}) == load_recipe("tiny").train


def test_a_nested_setting_and_a_list_can_be_set() -> None:
    overrides = ["preprocess.filters.min_words=7", "preprocess.filters.languages=[en, de]", "evaluate.limit=null"]
    recipe = load_recipe("tiny", overrides)
    assert recipe.preprocess.filters.min_words == 7
    assert recipe.preprocess.filters.languages == ("en", "de")
    assert recipe.evaluate.limit is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"no setting 'train\.epoch' \(did you mean 'train\.epochs'\?\)"),
        ("trian.epochs=3", r"did you mean 'train\.epochs'\?"),
        ("learning_rate=3", r"did you mean 'train\.learning_rate'\?"),
        ("train.global_batch_size=-8", r"train\.global_batch_size: .*greater than 0, not -8"),
        ("train.epochs=many", r"train\.epochs: .*integer.*not 'many'"),
        ("download.source=pubmed", r"download\.source: .*'pmc' or 's2orc', not 'pubmed'"),
        ("train.epochs", "key=value"),
        ("train=3", r"no setting 'train'"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("tiny", [override])


def test_a_misspelt_key_in_a_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: mine\ntrain: {epoch: 3}\ndownload: {}\nevaluate: {}\nregister: {}\n")
    with pytest.raises(InputError, match=r"preprocess: Field required; .*'train\.epoch' \(did you mean"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe 'tinny' \(did you mean 'tiny'\?\)"):
        load_recipe("tinny")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"bad\.yaml is no YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InputError, match=r"list\.yaml holds no settings"):
        load_recipe(str(tmp_path / "list.yaml"))


def test_arguments_hold_no_null_and_come_back_as_the_same_settings() -> None:
    recipe = load_recipe("tiny", ["train.checkpoint_minutes=null"])
    arguments = recipe.arguments()
    assert arguments["train"]["checkpoint_minutes"] == "none"
    # KFP turns whole numbers into floats on their way.
    floats = {k: float(v) if type(v) is int else v for k, v in arguments["train"].items()}
    assert TrainSettings(**floats) == recipe.train


def test_every_setting_has_a_meaning() -> None:
    from pipelines.recipe import describe_settings

    assert [key for key, _, meaning in describe_settings() if not meaning] == []
    assert "preprocess.tokenize.validation_fraction" in setting_keys()


def test_a_date_is_text_where_text_is_wanted_and_a_date_where_a_date_is() -> None:
    keys = ("download.s2orc.release=2026-11-10", "download.policy.published_from=2010-01-31")
    download = load_recipe("paper", keys).download
    assert download.s2orc.release == "2026-11-10"
    assert download.policy.published_from == date(2010, 1, 31)
    assert load_recipe("paper", keys).arguments()["download"]["policy"]["published_from"] == "2010-01-31"
