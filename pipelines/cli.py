"""The command line: run, compile and look into recipes."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.common.errors import PipelineError
from pipelines import registry_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="A bundled recipe's name or a path to a YAML file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting, such as train.epochs=3.")
]
PipelineOption = Annotated[str, typer.Option("--pipeline", help="pmc-llama, or retractions.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Of the runs.", show_default="the pipeline's name")]
ForceOption = Annotated[bool, typer.Option("--force", help="Even where the preflight says that it would fail.")]
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="PMC_HOME", help="Folder for the store, tracking, caches and logs.")
]


@app.command()
def run(recipe: RecipeOption = "tiny", set_: SetOption = None, home: HomeOption = Path(".pmc")) -> None:
    """Run the pipeline on this machine."""
    from pipelines.local import run_locally
    from pipelines.recipe import load_recipe

    if not run_locally(load_recipe(recipe, set_ or []), home):
        raise typer.Exit(1)


@app.command("run-containers")
def run_containers(
    recipe: RecipeOption = "tiny",
    set_: SetOption = None,
    home: HomeOption = Path(".pmc"),
    mount: Annotated[
        list[Path] | None, typer.Option("--mount", help="A file or folder that the steps may read, such as articles.")
    ] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="Let the containers use this machine's GPUs.")] = False,
) -> None:
    """Run the pipeline on this machine, every step in its image; S3 and MLflow are those of the environment."""
    from pipelines.containers import run_in_containers
    from pipelines.recipe import load_recipe

    if not run_in_containers(load_recipe(recipe, set_ or []), home, mount, gpus):
        raise typer.Exit(1)


@app.command()
def preflight(
    recipe: RecipeOption = "tiny",
    set_: SetOption = None,
    home: HomeOption = Path(".pmc"),
    submit_: Annotated[
        bool, typer.Option("--submit", help="The steps will run in a cluster, and this machine is outside.")
    ] = False,
) -> None:
    """Look whether everything that a run needs is there, and say what to do about what is not.

    Exit status: 0 when nothing stands in the way of the run, 1 otherwise.
    """
    from components.common import logs
    from pipelines.preflight import preflight as look
    from pipelines.preflight import show_preflight
    from pipelines.recipe import load_recipe

    logs.configure()
    chosen = load_recipe(recipe, set_ or [])
    if not submit_:
        from pipelines.local import set_places

        home.mkdir(parents=True, exist_ok=True)
        set_places(home.resolve())
    if not show_preflight(look(chosen, submit_)):
        raise typer.Exit(1)


@app.command()
def plan(
    node: Annotated[str, typer.Option("--node", "-n", help="The GPUs: how many, x, and which, such as 8xA100-80GB.")],
    recipe: RecipeOption = "paper",
    set_: SetOption = None,
    documents: Annotated[
        int | None, typer.Option("--documents", min=1, help="Articles to train on.", show_default="the paper's 4.8M")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Of all articles together, for packed sampling.")
    ] = None,
    mfu: Annotated[float, typer.Option("--mfu", help="Part of the peak that the model's operations reach.")] = 0.55,
    price: Annotated[float | None, typer.Option("--price", min=0, help="Of a GPU for an hour.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder with a config.json, or a known model's name.")
    ] = "",
    peak_tflops: Annotated[
        float | None, typer.Option("--peak-tflops", min=0.001, help="Dense bf16 peak of a GPU that is not known here.")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", min=0.001, help="Memory of a GPU that is not known here.")
    ] = None,
) -> None:
    """Work out what pre-training takes on given GPUs: operations, memory, hours and cost, beside the paper's."""
    from pipelines.plan_command import Question, show_plan
    from pipelines.recipe import load_recipe

    question = Question(node, documents, tokens, mfu, price, model, peak_tflops, memory_gb)
    show_plan(load_recipe(recipe, set_ or []), question)


@app.command("compile")
def compile_(
    recipe: RecipeOption = "paper",
    set_: SetOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The YAML file to write.")] = Path(
        "build/pipeline.yaml"
    ),
    pipeline: Annotated[
        str, typer.Option("--pipeline", help="pmc-llama, or retractions to be repeated.")
    ] = "pmc-llama",
) -> None:
    """Compile a pipeline for Kubeflow; the recipe's values become its parameters' defaults."""
    from pipelines.compile import compile_pipeline
    from pipelines.recipe import load_recipe

    typer.echo(f"Wrote {compile_pipeline(load_recipe(recipe, set_ or []), output, pipeline)}")


@app.command()
def submit(
    recipe: RecipeOption = "paper",
    set_: SetOption = None,
    pipeline: PipelineOption = "pmc-llama",
    experiment: ExperimentOption = "",
    run_name: Annotated[
        str, typer.Option("--run-name", help="Of the run: if one of that name does the same already, none is started.")
    ] = "",
    force: ForceOption = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit status 1 unless it succeeds.")] = False,
) -> None:
    """Run the pipeline on Kubeflow: look whether all is there, upload it, start the run, print its address.

    Where Kubeflow is and how to log in is the environment's: KFP_ENDPOINT, KFP_NAMESPACE, KFP_TOKEN (.env.example).
    """
    from pipelines.recipe import load_recipe
    from pipelines.submit import Order
    from pipelines.submit_command import run_on_kubeflow

    run_on_kubeflow(load_recipe(recipe, set_ or []), Order(pipeline, experiment, run_name), force, wait)


@app.command()
def schedule(
    recipe: RecipeOption = "paper",
    set_: SetOption = None,
    pipeline: PipelineOption = "pmc-llama",
    cron: Annotated[
        str, typer.Option("--cron", help="When, in UTC: five fields, or six with the second first.", show_default=False)
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Of the schedule; one of that name is replaced.")] = "",
    experiment: ExperimentOption = "",
    off: Annotated[bool, typer.Option("--off", help="Do not start runs yet.")] = False,
    force: ForceOption = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is scheduled, and do nothing else.")] = False,
    delete: Annotated[str, typer.Option("--delete", metavar="NAME", help="Delete that schedule.")] = "",
    disable: Annotated[str, typer.Option("--disable", metavar="NAME", help="Switch that schedule off.")] = "",
    enable: Annotated[str, typer.Option("--enable", metavar="NAME", help="Switch that schedule on.")] = "",
) -> None:
    """Have Kubeflow repeat the pipeline (each month by default) or the watch for retractions (each day)."""
    from pipelines import submit_command
    from pipelines.recipe import load_recipe
    from pipelines.submit import Order

    if list_:
        submit_command.show_schedules()
    elif delete:
        submit_command.end_schedule(delete)
    elif disable or enable:
        submit_command.turn_schedule(disable or enable, is_on=bool(enable))
    else:
        order = Order(pipeline, experiment, name)
        submit_command.schedule_on_kubeflow(load_recipe(recipe, set_ or []), order, cron, not off, force)


@app.command()
def retractions(
    model: Annotated[
        str, typer.Option("--model", "-m", help="name, name/3, name@alias, models:/..., or a version's number.")
    ],
    recipe: RecipeOption = "paper",
    set_: SetOption = None,
    home: HomeOption = Path(".pmc"),
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the whole report to this file too.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="At most so many articles in the table.")] = 30,
) -> None:
    """Report which articles that a registered model was trained on have been retracted or withdrawn since.

    A name alone means its champion or, without one, its newest version. The report is kept in the store, and the model
    version is tagged with it. Of the recipe only download.pmc and download.transport are read.

    Exit status: 0 when none is retracted or withdrawn, 3 when some are, 4 when none is known to be but some could not
    be checked, 1 on errors.
    """
    from components.common import logs
    from pipelines.local import set_places
    from pipelines.recipe import load_recipe
    from pipelines.watch import watch

    logs.configure()
    chosen = load_recipe(recipe, set_ or [])
    set_places(home.resolve())
    raise typer.Exit(watch(model, chosen, json_, rows))


@app.command()
def chat(
    model: Annotated[
        str, typer.Option("--model", "-m", help="name (its champion), name/3, name@alias, models:/... or a number.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = 7860,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    home: HomeOption = Path(".pmc"),
) -> None:
    """Talk to a registered model: a page in the browser, and an OpenAI-compatible endpoint.

    For research: not a medical device, and no substitute for a doctor's advice.
    """
    from components.chat.serve import serve
    from components.common import logs
    from components.common.settings import get_settings
    from pipelines.local import set_places

    logs.configure()
    set_places(home.resolve())
    serve(get_settings().tracking_uri, model, host, port, device)


@app.command("clean-up")
def clean_up(
    run_id: Annotated[str, typer.Argument(help="Kubeflow's id of the pipeline run.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Of the jobs.", show_default="yours")
    ] = None,
) -> None:
    """Delete the training jobs that a pipeline run has left on the cluster, and nothing else.

    The run's last step does this by itself; here for a run that could not reach it. Checkpoints stay in the store.
    """
    from components.common import logs
    from components.common.cluster.leftovers import delete_leftovers

    logs.configure()
    typer.echo(f"{len(delete_leftovers(run_id, namespace))} jobs of run {run_id} deleted.")


@app.command("prepare-bucket")
def prepare_bucket(
    create: Annotated[bool, typer.Option("--create", help="Make the bucket if it is not there.")] = False,
    days: Annotated[int, typer.Option("--days", min=1, help="Drop uploads that are unfinished after so many.")] = 7,
) -> None:
    """Have the store's bucket (PMC_STORE_URI) drop what uploads that were cut off leave behind."""
    from components.common.settings import get_settings
    from pipelines.bucket import prepare_bucket

    done = prepare_bucket(get_settings().store_uri, create, days)
    typer.echo("\n".join(done) if done else "The bucket is as it should be.")


@app.command("serving-manifest")
def serving_manifest(
    model: Annotated[str, typer.Argument(help="name, name/3, name@alias, models:/..., or a version's number.")],
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Of each server.")] = 1,
    most: Annotated[int, typer.Option("--most", min=1, help="So many servers at most; none while nobody asks.")] = 1,
    name: Annotated[str, typer.Option("--name", help="Of the service.", show_default="the model's")] = "",
) -> None:
    """Print the KServe InferenceService of a registered model, for kubectl apply -f -."""
    from components.common.settings import get_settings
    from pipelines.serving import ServingSettings, serving_manifest

    typer.echo(serving_manifest(get_settings().tracking_uri, model, ServingSettings(gpus, most, name)), nl=False)


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(help="Show this recipe in full; without it, list them.")] = "",
    set_: SetOption = None,
) -> None:
    """List the recipes, or show one with every setting."""
    from pipelines.recipe import load_recipe, recipe_names

    if name:
        shown = load_recipe(name, set_ or [])
        typer.echo(yaml.safe_dump(shown.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True))
        return
    for each in recipe_names():
        typer.echo(f"{each:8} {load_recipe(each).description}")


@app.command()
def settings() -> None:
    """List every setting that --set takes, with its default and meaning."""
    from pipelines.recipe import describe_settings

    for key, default, meaning in describe_settings():
        typer.echo(f"{key:42} {default!s:12} {meaning}")


registry_commands.add_to(app)


def main() -> None:
    """Run the command line; an error a user can mend is one sentence and exit status 1."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app()
    except PipelineError as error:
        typer.secho(str(error), fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("Stopped. What is done is kept: run the same command again to go on.", fg="red", err=True)
        sys.exit(130)
