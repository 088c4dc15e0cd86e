"""The benchmarks, normalised to one schema: the same from the hub and from the official files."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import chain

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.shards import finished_shard, write_shard
from components.download.benchmark_files import Split, files_below, splits_of_files
from components.download.benchmark_table import TABLE, official_counts, read_split
from components.download.instructions import with_instructions
from components.download.official import COUNTS, pubmedqa_test_ids
from components.download.questions import Question
from components.download.settings import DownloadSettings

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_HUB = {"benchmarks", "hub", "more_benchmarks"}


def download_benchmarks(settings: DownloadSettings, output_root: str) -> Manifest:
    """Read the benchmarks and store one JSONL per benchmark and split.

    Args:
        settings: The recipe's download section; ``benchmarks`` is ``sample``, ``hub``, or a folder or prefix with the
            folders ``pubmedqa``, ``medmcqa`` and ``medqa``; ``more_benchmarks`` must be there too.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``benchmarks`` with the shards ``pubmedqa-test``, ``medmcqa-test`` (the official dev set),
        ``medqa-test`` and, where the files are there, ``medqa-dev`` and the same with ``-train``. ``inputs`` are the
        hashes of the source files; ``extra["samples"]`` names the splits whose files call themselves samples. The
        fingerprint depends on the questions alone. With ``instructions`` in the settings there is one more shard,
        ``instructions-train`` (``instruction_set``).

    Raises:
        InputError: A file is missing, a question has not the official form, or a split not the official count.
    """
    contents: dict[str, bytes] = {}
    counts: dict[str, int] = {}
    inputs: dict[str, str] = {}
    samples: list[str] = []
    for split in _splits(settings):
        lines, ids = _to_jsonl(split)
        if split.is_sample:
            samples.append(split.name)
        elif settings.benchmarks != "sample":
            _check_official(split, ids)
        if ids:
            contents[split.name], counts[split.name] = lines, len(ids)
            inputs |= split.inputs
    _check_asked_for(settings, contents)
    samples.sort()
    if samples:
        log.warning("Samples, not the whole: %s; compare no results with published ones there.", ", ".join(samples))
    name = fingerprint("benchmarks", FORMAT_VERSION, {split: sha256_bytes(data) for split, data in contents.items()})
    prefix = storage.join(output_root, "benchmarks", name)
    manifest = Manifest(
        kind="benchmarks",
        fingerprint=name,
        inputs=inputs,
        settings=settings.model_dump(include=_HUB if settings.benchmarks == "hub" else {"benchmarks"}),
        shards=[_store(prefix, split, data, counts[split]) for split, data in contents.items()],
        totals={f"questions_{split.replace('-', '_')}": count for split, count in counts.items()},
        extra={"samples": samples} if samples else {},
    )
    return with_instructions(manifest, settings, output_root)


def _splits(settings: DownloadSettings) -> Iterator[Split]:
    place = settings.benchmarks
    if place == "hub":
        from components.download.benchmark_hub import splits_of_hub

        return splits_of_hub(settings.hub, settings.transport, settings.more_benchmarks)
    if place == "sample":
        from components.download.sample import BENCHMARKS_DIR

        return splits_of_files(storage.to_uri(BENCHMARKS_DIR))
    if not place:
        raise InputError(
            "download.benchmarks is not set; give hub, or the folder or s3:// prefix that holds pubmedqa/, medmcqa/ "
            "and medqa/."
        )
    return chain(splits_of_files(storage.to_uri(place)), _more_of_files(storage.to_uri(place)))


def _more_of_files(root: str) -> Iterator[Split]:
    """Yield the splits of the benchmarks of the table whose files are below a folder or prefix."""
    files = files_below(root)
    for benchmark, entry in TABLE.items():
        for split in entry.counts:
            for name in (pattern.format(split=split) for pattern in entry.files):
                if name in files:
                    data = storage.read(files[name])
                    yield read_split(benchmark, split, entry, data, files[name], {name: sha256_bytes(data)})
                    break


def _to_jsonl(split: Split) -> tuple[bytes, list[str]]:
    """Return the questions as JSON lines, and their ids."""
    lines, ids = bytearray(), []
    for question in split.questions:
        lines += _line(question)
        ids.append(question["id"])
    repeated = [identifier for identifier, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"{split.source} holds the question {repeated[0]} more than once; fetch it again.")
    return bytes(lines), ids


def _line(question: Question) -> bytes:
    return (json.dumps(question, ensure_ascii=False) + "\n").encode()


def _check_official(split: Split, ids: list[str]) -> None:
    due = (COUNTS | official_counts())[split.name]
    if len(ids) != due:
        raise InputError(
            f"{split.source} gives {len(ids):,} questions of {split.name} and the official number is {due:,}; fetch it "
            "again, or put .sample. into its name (train.sample.json) if it is a part on purpose."
        )
    if split.name == "pubmedqa-test" and set(ids) != pubmedqa_test_ids():
        raise InputError(f"{split.source}: the 500 test questions are not PubMedQA's official ones; fetch it again.")


def _check_asked_for(settings: DownloadSettings, found: Collection[str]) -> None:
    if missing := [name for name in settings.more_benchmarks if f"{name}-test" not in found]:
        raise InputError(
            f"download.benchmarks={settings.benchmarks} has no test questions of {', '.join(missing)}, which "
            "download.more_benchmarks asks for; add their files, or set download.benchmarks to hub."
        )


def _store(prefix: str, split: str, data: bytes, rows: int) -> Shard:
    return finished_shard(prefix, split) or write_shard(prefix, split, {".jsonl": data}, rows)
