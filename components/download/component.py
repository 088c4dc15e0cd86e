"""KFP interface of the download stage."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def plan_download(download: dict, plan: dsl.Output[dsl.Dataset]) -> list[str]:
    """List the source's articles and divide them into shards; returns the shards' names."""
    from components.common import storage
    from components.common.settings import get_settings
    from components.common.step import step
    from components.download.plan import plan_download as logic
    from components.download.settings import DownloadSettings

    with step("Plan the download") as current:
        settings = DownloadSettings(**download)
        current.run.log_params({"download": settings.model_dump(mode="json")})
        manifest = logic(settings, storage.to_uri(get_settings().store_uri))
        manifest.save(plan.path)
        plan.metadata.update(manifest.metadata())
        current.report(manifest.totals)
    return [shard.name for shard in manifest.shards]


@kfp_step
def download_shard(download: dict, plan: dsl.Input[dsl.Dataset], shard: str, raw: dsl.Output[dsl.Dataset]):
    """Fetch the articles of one shard into a Parquet file."""
    from components.common.manifest import Manifest
    from components.common.step import step
    from components.download.fetch import fetch_shard
    from components.download.settings import DownloadSettings

    with step(f"Fetch articles ({shard})") as current:
        manifest = fetch_shard(Manifest.load(plan.path), shard, DownloadSettings(**download))
        manifest.save(raw.path)
        raw.metadata.update(manifest.metadata())
        current.report(manifest.totals)


@kfp_step
def download_benchmarks(download: dict, benchmarks: dsl.Output[dsl.Dataset]):
    """Fetch PubMedQA, MedMCQA and MedQA-USMLE and normalise them to one schema."""
    from components.common import storage
    from components.common.settings import get_settings
    from components.common.step import step
    from components.download.benchmarks import download_benchmarks as logic
    from components.download.settings import DownloadSettings

    with step("Fetch the benchmarks") as current:
        manifest = logic(DownloadSettings(**download), storage.to_uri(get_settings().store_uri))
        manifest.save(benchmarks.path)
        benchmarks.metadata.update(manifest.metadata())
        current.report(manifest.totals)


@kfp_step
def download_base_model(download: dict, base_model: dsl.Output[dsl.Model]):
    """Fetch the base model's safetensors and tokenizer."""
    from components.common import storage
    from components.common.settings import get_settings
    from components.common.step import step
    from components.download.base_model import download_base_model as logic
    from components.download.settings import DownloadSettings

    with step("Fetch the base model") as current:
        manifest = logic(DownloadSettings(**download), storage.to_uri(get_settings().store_uri))
        manifest.save(base_model.path)
        base_model.metadata.update(manifest.metadata())
        current.report(manifest.totals)
