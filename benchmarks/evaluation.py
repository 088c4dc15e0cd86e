"""Measure the evaluation's engine against lm-eval's ``hf`` backend, in turn, on the same questions and prompts.

``python -m benchmarks.evaluation --questions FOLDER --tokenizer FOLDER`` answers PubMedQA and
MedMCQA with small models of random weights, zero-shot and 5-shot, several times each side in turn, in one process with
the same number of threads, and shows medians and ranges of the time from the first prompt to the last score: seconds of
the process's CPU (a busy machine does not change them) with one thread, of the clock with more or on a GPU. Both sides
run under lm-eval's own evaluator and tasks, and every prediction and log-likelihood is compared.

5-shot is measured twice: with the examples that lm-eval draws anew for each question, and with its ``first_n`` sampler,
which shows all questions the same ones. lm-eval's backend gets several batch sizes, of which the fastest counts: 1,
its default, which is often the best on a CPU, and 8 (``auto`` on a GPU, the largest that fits).

``--device cuda`` measures a model of LLaMA-7B's shape (as many layers as are asked for) in bfloat16.
"""

import argparse
import json
import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from components.common import storage
from components.common.questions import Question
from components.download.benchmark_files import splits_of_files
from components.download.sample import BENCHMARKS_DIR, TOKENIZER_DIR
from components.evaluate.harness import Answer, answer_questions
from components.evaluate.scorer import Scorer
from components.evaluate.tasks import Shots

OURS, THEIRS = "this engine", "lm-eval hf"
_POSITIONS = 4096
_SHOTS = {"zero-shot": Shots(), "5-shot, drawn": Shots(5), "5-shot, common": Shots(5, common=True)}


@dataclass(frozen=True)
class Shape:
    """A model that is measured: its family, width, depth."""

    family: str
    width: int
    layers: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.family} {self.width} x {self.layers}"


@dataclass
class Outcome:
    """What one benchmark and way of asking gave: seconds of each repetition by side, and how far the sides differ."""

    model: str
    benchmark: str
    shots: str
    questions: int
    seconds: dict[str, list[float]]
    predictions_differ: int = 0
    largest_difference: float = 0.0

    @property
    def speedup(self) -> float:
        """How many times faster this engine is, by medians, than the faster of the other's batch sizes."""
        ours = statistics.median(self.seconds[OURS])
        return min(statistics.median(times) for side, times in self.seconds.items() if side != OURS) / ours


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default=str(BENCHMARKS_DIR), help="folder of the official benchmark files")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both sides run")
    parser.add_argument("--models", nargs="*", default=None, metavar="FAMILY:WIDTH:LAYERS", help="what is measured")
    parser.add_argument("--benchmarks", nargs="*", default=["pubmedqa", "medmcqa"], help="which questions")
    parser.add_argument("--shots", nargs="*", choices=list(_SHOTS), default=list(_SHOTS), help="ways of asking")
    parser.add_argument("--limit", type=int, default=None, help="of the questions (default: all)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each side, in turn")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both sides")
    parser.add_argument("--hf-batch", nargs="*", default=None, help="lm-eval's batch sizes (1 and 8; GPU: auto)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write what was measured there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in ("lm_eval", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    questions = _questions(options.questions, options.benchmarks)
    found = []
    for text in options.models or (["llama:4096:32"] if options.device == "cuda" else ["llama:256:4"]):
        family, width, layers = text.split(":")
        shape = Shape(family, int(width), int(layers))
        model = _model(shape, len(tokenizer), options.device)
        for benchmark in options.benchmarks:
            for shots in options.shots:
                test, examples = questions[benchmark]
                found.append(
                    _measure(model, tokenizer, shape, benchmark, shots, test[: options.limit], examples, options)
                )
                _show(found, options)
    if options.json is not None:
        options.json.write_text(json.dumps([vars(one) | {"speedup": one.speedup} for one in found], indent=1))


def _questions(place: str, names: Sequence[str]) -> dict[str, tuple[list[Question], list[Question]]]:
    splits = {split.name: split for split in splits_of_files(storage.to_uri(place))}
    both = (f"{name}-{part}" for name in names for part in ("test", "train"))
    read = {name: [Question.model_validate(question) for question in splits[name].questions] for name in both}
    return {name: (read[f"{name}-test"], read[f"{name}-train"]) for name in names}


def _model(shape: Shape, vocabulary: int, device: str) -> PreTrainedModel:
    """Make a model with random weights; 64 dimensions a head (128 from a width of 2,048 on)."""
    heads = shape.width // (128 if shape.width >= 2048 else 64)
    inner = shape.width * 8 // 3 // 64 * 64
    common: dict[str, Any] = {"vocab_size": vocabulary, "max_position_embeddings": _POSITIONS}
    sized = {
        "hidden_size": shape.width,
        "intermediate_size": inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
    }
    config = {
        "llama": lambda: LlamaConfig(**common, **sized),
        "mistral": lambda: MistralConfig(**common, **sized, num_key_value_heads=max(1, heads // 2)),
        "qwen2": lambda: Qwen2Config(**common, **sized, num_key_value_heads=max(1, heads // 2)),
        "gpt_neox": lambda: GPTNeoXConfig(**common, **sized),
        "gpt2": lambda: GPT2Config(
            vocab_size=vocabulary, n_positions=_POSITIONS, n_embd=shape.width, n_layer=shape.layers, n_head=heads
        ),
    }[shape.family]()
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, dtype=dtype)
    return model.eval()


def _measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    shape: Shape,
    benchmark: str,
    shots: str,
    test: list[Question],
    examples: list[Question],
    options: argparse.Namespace,
) -> Outcome:
    sizes = options.hf_batch or (["auto"] if options.device == "cuda" else ["1", "8"])
    sides: dict[str, Any] = {
        f"{THEIRS}, batch {size}": lambda size=size: HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=size, softmax_dtype="float32"
        )
        for size in sizes
    }
    sides[OURS] = lambda: Scorer(model, tokenizer)
    outcome = Outcome(shape.name, benchmark, shots, len(test), {side: [] for side in sides})
    for _ in range(options.repetitions):
        answers: dict[str, list[Answer]] = {}
        for side, make in sides.items():
            lm = make()
            started = _now(options)
            answers[side] = answer_questions(lm, benchmark, test, examples, _SHOTS[shots])
            outcome.seconds[side].append(_now(options) - started)
        theirs = next(given for side, given in answers.items() if side != OURS)
        differences = list(_differences(theirs, answers[OURS]))
        outcome.largest_difference = max(outcome.largest_difference, *differences)
        pairs = zip(theirs, answers[OURS], strict=True)
        outcome.predictions_differ = max(
            outcome.predictions_differ, sum(a.prediction != b.prediction for a, b in pairs)
        )
    return outcome


def _differences(first: Sequence[Answer], second: Sequence[Answer]) -> Iterator[float]:
    for a, b in zip(first, second, strict=True):
        yield from (abs(a.loglikelihoods[option] - b.loglikelihoods[option]) for option in a.loglikelihoods)


def _now(options: argparse.Namespace) -> float:
    if options.device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if options.threads == 1 else time.perf_counter()


def _show(found: Sequence[Outcome], options: argparse.Namespace) -> None:
    place = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    table = Table(title=f"Seconds, median (range) of {options.repetitions}, {place}")
    for column in ("Model", "Benchmark", "Asked", THEIRS, OURS, "Faster", "Other answers", "Largest difference"):
        table.add_column(column)
    for one in found:
        best = min(
            (side for side in one.seconds if side != OURS), key=lambda side: statistics.median(one.seconds[side])
        )
        table.add_row(
            one.model,
            f"{one.benchmark} ({one.questions:,})",
            one.shots,
            f"{_range(one.seconds[best])} [{best.rpartition(' ')[2]}]",
            _range(one.seconds[OURS]),
            f"{one.speedup:.1f}x",
            str(one.predictions_differ),
            f"{one.largest_difference:.1e}",
        )
    Console(width=140).print(table)


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
