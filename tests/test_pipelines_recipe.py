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
    assert (train.mask_padding, train.padding_token_id) == (False, None)  # none: LLaMA's end token, 2


def test_the_paper_recipe_fine_tunes_as_the_authors_do() -> None:
    recipe = load_recipe("paper")
    assert {name: sorted(run.tasks) for name, run in recipe.finetune.items()} == {
        "in-domain": ["medqa"],
        "out-of-domain": ["medmcqa", "pubmedqa"],
    }
    for run in recipe.finetune.values():
        assert (run.context_length, run.global_batch_size, run.epochs, run.learning_rate) == (2048, 128, 3, 2e-5)
        assert (run.method, run.loss_on, run.packed, run.precision) == ("full", "all", True, "bf16")
        assert (run.launcher, run.cluster) == (recipe.train.launcher, recipe.train.cluster)


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        (["finetune.in-domain.epochs=1"], {"in-domain": 1, "out-of-domain": 3}),
        (["finetune.in-domain=null"], {"out-of-domain": 3}),
        (["finetune.more={tasks: [medqa], fraction: 0.1}", "finetune.more.epochs=2"], {"more": 2}),
        (["finetune={}"], {}),
        (["finetune=null"], {}),
    ],
)
def test_a_fine_tuning_run_is_changed_added_or_left_out(overrides: list[str], epochs: dict[str, int]) -> None:
    runs = load_recipe("paper", [*overrides, "register.judged_on=as_is"]).finetune
    assert {name: run.epochs for name, run in runs.items()}.items() >= epochs.items()
    assert bool(runs) == bool(epochs) and ("in-domain" in runs) == ("in-domain" in epochs or "more" in epochs)


def test_what_two_sections_of_a_file_share_is_changed_in_one_alone() -> None:
    recipe = load_recipe("paper", ["finetune.in-domain.cluster.nodes=2"])
    nodes = [each.cluster.nodes for each in (recipe.train, *recipe.finetune.values())]
    assert nodes == [1, 2, 1]


def test_the_pipeline_gets_the_fine_tuning_runs_as_lists_by_objective() -> None:
    arguments = load_recipe("tiny", ["finetune.instruct=null", "finetune.talk={objective: instruct}"]).arguments()
    assert [run["name"] for run in arguments["finetune"]] == ["questions"]
    assert [run["name"] for run in arguments["instruct"]] == ["talk"]
    assert not {"finetune", "instruct"} & set(load_recipe("tiny", ["finetune={}"]).arguments())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate.benchmarks=[medqa]"], r"decide by pubmedqa, medmcqa, which evaluate\.benchmarks leaves out"),
        (["register.judged_on=fine_tuned", "finetune.questions=null"], "there is no fine-tuning run to compare by"),
        (
            ["evaluate.benchmarks=[multimedqa]"],
            r"has mmlu_anatomy, .*, which download\.benchmarks=sample does not fetch",
        ),
        (
            ["download.benchmarks=hub", "evaluate.benchmarks=[multimedqa]", "download.more_benchmarks=[mmlu_anatomy]"],
            r"has mmlu_clinical_knowledge, .* add to download\.more_benchmarks",
        ),
    ],
)
def test_what_the_gate_would_miss_after_the_training_is_said_before_it(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("tiny", overrides)


def test_documents_get_one_end_token_or_none() -> None:
    with pytest.raises(InputError, match="would put two end tokens between documents; set add_eos to false"):
        load_recipe("tiny", ["preprocess.tokenize.add_eos=true", "train.sampling=packed"])
    assert load_recipe("tiny", ["preprocess.tokenize.add_eos=true"]).preprocess.tokenize.add_eos


def test_a_larger_suite_is_fetched_and_asked_by_two_settings() -> None:
    suite = ["evaluate.benchmarks=[multimedqa]", "download.more_benchmarks=[multimedqa]", "download.benchmarks=hub"]
    recipe = load_recipe("paper", suite)
    assert set(recipe.evaluate.benchmarks) - {"pubmedqa", "medmcqa", "medqa"} == set(recipe.download.more_benchmarks)


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
        ("finetune.question.epochs=1", r"no fine-tuning run 'question' \(did you mean 'questions'\?\); to add one: "),
        ("finetune.questions.epoch=1", r"no setting 'finetune\.questions\.epoch' .*'finetune\.questions\.epochs'"),
        ("finetune.questions.tasks=[usmle]", r"finetune\.questions\.tasks\.0: .*not 'usmle'"),
        ("finetune.A b={}", r"finetune\.A b\.\[key\]: .*pattern"),
        ("finetune=3", r"finetune: .*dictionary, not 3"),
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
    assert {"preprocess.tokenize.validation_fraction", "finetune.<name>.epochs"} <= set(setting_keys())
    told = [key for key, _, _ in describe_settings()]
    assert len(told) == len(set(told)) and "finetune.<name>.cluster.*" in told


def test_a_date_is_text_where_text_is_wanted_and_a_date_where_a_date_is() -> None:
    keys = ("download.s2orc.release=2026-11-10", "download.policy.published_from=2010-01-31")
    download = load_recipe("paper", keys).download
    assert download.s2orc.release == "2026-11-10"
    assert download.policy.published_from == date(2010, 1, 31)
    assert load_recipe("paper", keys).arguments()["download"]["policy"]["published_from"] == "2010-01-31"


def test_a_fine_tuning_job_runs_where_the_training_does_so_that_the_exit_task_finds_it() -> None:
    with pytest.raises(InputError, match=r"finetune.questions.launcher is pytorchjob, so train must run on the same"):
        load_recipe("tiny", ["finetune.questions.launcher=pytorchjob"])
    both = ["finetune.questions.launcher=pytorchjob", "train.launcher=pytorchjob"]
    assert load_recipe("tiny", both).finetune["questions"].launcher == "pytorchjob"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["download.instructions=''"],
            r"finetune\.instruct\.objective is instruct, but download\.instructions is empty; name an instruction set",
        ),
        (
            ["finetune.instruct.method=lora"],
            r"finetune\.instruct\.objective is instruct, but finetune\.instruct\.merge_adapter is false, .* set it",
        ),
    ],
)
def test_what_could_not_be_taught_or_registered_is_refused_before_anything_runs(
    settings: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("tiny", settings)
    merged = ["finetune.instruct.method=lora", "finetune.instruct.merge_adapter=true"]
    assert load_recipe("tiny", merged).finetune["instruct"].merge_adapter
    assert load_recipe("tiny", [*settings, "finetune.instruct=null"]).finetune.keys() == {"questions"}
