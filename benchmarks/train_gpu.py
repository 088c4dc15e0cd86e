"""Measure a training step on GPUs: tokens/s, MFU and memory of LLaMA-7B-shaped models at a context of 512.

``python -m benchmarks.train_gpu`` takes every GPU of the node (where there are several, it starts torchrun itself) and
measures, each in processes of its own and in turn: this trainer's step (its sharding, compilation, loss and optimiser;
the largest micro-batch that fits), and Hugging Face's Trainer with the settings of the authors' script (micro-batch 4,
4 times accumulated, bf16, TF32, FSDP where there are several GPUs): without activation checkpointing, as in that
script, and with it, as in the one they have for large micro-batches. All take 16 windows a GPU and step, of random
tokens, and start from random weights. Where memory is short, all train the same model of fewer layers, and the table
says so.

``--tiny`` does the same on CPUs with a tiny model, to see that it works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from components.train.launching.process import end_with
from components.train.measuring.flops import flops_per_token
from components.train.measuring.hardware import peak_flops
from components.train.planning.memory import Training, layer_activations, logits_bytes, peak_memory, usable_bytes
from components.train.planning.shape import ModelShape, find_shape, read_shape

OURS, AUTHORS, CHECKPOINTED = "this trainer", "HF Trainer, authors' settings", "the same, activation checkpointing"
_MEASURE = "--measure"
_WINDOWS = 16  # of a GPU in a step: the paper's 128 over 8
_AUTHORS_MICRO_BATCH = 4
_OUT_OF_MEMORY = "OutOfMemoryError"
_TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 256, "max_position_embeddings": 512,
}  # fmt: skip

Found = dict[str, Any]
"""What a contender leaves: `seconds` of each step, `memory` in bytes, `micro_batch`, `passes`."""


@dataclass(frozen=True)
class Device:
    """What is measured on.

    Attributes:
        name: Of the GPU, or the processor's kind.
        memory_gib: Of a GPU.
        count: How many there are.
    """

    name: str
    memory_gib: float
    count: int


@dataclass(frozen=True)
class Run:
    """What every contender is told.

    Attributes:
        layers: Of the model.
        context: Tokens in a window.
        steps: That count.
        warm_up: Steps before them.
        tiny: Whether a tiny model is trained on CPUs.
    """

    layers: int
    context: int
    steps: int
    warm_up: int
    tiny: bool


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=None, help="how many to use (default: all)")
    parser.add_argument("--layers", type=int, default=None, help="of the model (default: 32, or as many as fit)")
    parser.add_argument("--steps", type=int, default=10, help="that count, of each contender and repetition")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them, which compile and allocate")
    parser.add_argument("--repetitions", type=int, default=2, help="of every contender, in turn")
    parser.add_argument("--peak-tflops", type=float, default=None, help="dense bf16 peak of a GPU that is not known")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on CPUs, to see that it works")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write what was measured there too")
    options = parser.parse_args()
    if "RANK" in os.environ:
        raise SystemExit("Start it without torchrun: it starts torchrun itself, for every contender anew.")
    device = Device("CPU", 0.0, options.gpus or 1) if options.tiny else _gpus(options.gpus)
    shape = read_shape("tiny", _TINY) if options.tiny else find_shape("huggyllama/llama-7b")
    layers = options.layers or (shape.layers if options.tiny else layers_that_fit(shape, device))
    context = 64 if options.tiny else 512
    found, layers = _measure_all(
        Run(layers, context, options.steps, options.warm_up, options.tiny), device, options.repetitions
    )
    measured = replace(shape, layers=layers)
    if options.json is not None:
        options.json.write_text(json.dumps({"device": vars(device), "layers": layers, "found": found}, indent=1))
    _show(found, device, shape, measured, context, peak_flops(options.peak_tflops, device.name))


def layers_that_fit(shape: ModelShape, device: Device) -> int:
    """The most layers with which every contender fits into a GPU; less exact for Hugging Face's than for our own.

    Raises:
        SystemExit: Not even one layer fits.
    """
    usable = usable_bytes(device.memory_gib)
    for layers in range(shape.layers, 0, -1):
        fewer = replace(shape, layers=layers)
        ours = peak_memory(fewer, Training(gpus=device.count, micro_batch=_WINDOWS, context=512)).total
        if max(ours, _hf_trainer_bytes(fewer, device.count)) <= usable:
            return layers
    raise SystemExit(f"Not even one layer of {shape.name} fits into the {device.memory_gib:.0f} GiB of {device.name}.")


def _hf_trainer_bytes(shape: ModelShape, gpus: int) -> float:
    """fp32 states, bf16 copies of the weights that autocast keeps, activations half as many again as in pure bf16."""
    authors = Training(gpus, _AUTHORS_MICRO_BATCH, 512, compiled=False, accumulates=True)
    states = 16 * shape.parameters / gpus + 2 * shape.parameters + (4 * shape.parameters if gpus > 1 else 0)
    kept = 1.5 * layer_activations(shape, 2, compiled=False) * shape.layers * authors.tokens
    return states + kept + 1.5 * logits_bytes(shape, authors)


def _measure_all(run: Run, device: Device, repetitions: int) -> tuple[dict[str, list[Found]], int]:
    """Measure in turn; with fewer layers, from the start, when one of them runs out of memory."""
    found: dict[str, list[Found]] = {name: [] for name in CONTENDERS}
    for repetition in range(repetitions):
        for name in CONTENDERS:
            result = _measure(name, run, device)
            if result is None:
                fewer = run.layers * 3 // 4
                if fewer == 0:
                    raise SystemExit(f"{name} runs out of memory with a single layer.")
                print(f"{name} runs out of memory with {run.layers} layers: {fewer}", file=sys.stderr, flush=True)
                return _measure_all(replace(run, layers=fewer), device, repetitions)
            found[name].append(result)
            middle = statistics.median(result["seconds"])
            print(f"{repetition + 1}/{repetitions} {name}: {middle:.3f} s a step", file=sys.stderr, flush=True)
    return found, run.layers


def _measure(name: str, run: Run, device: Device) -> Found | None:
    """Measure a contender in processes of its own; nothing when it runs out of memory."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "run.json").write_text(json.dumps(vars(run)))
        # Alone without torchrun: in its presence Trainer would copy gradients for an exchange with nobody.
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={device.count}", "-m"]
        module = [*(launcher if device.count > 1 else []), __spec__.name]
        command = [sys.executable, "-m", *module, _MEASURE, name, folder]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        if ended.returncode == 0:
            result: Found = json.loads(Path(folder, "found.json").read_text())
            return result
    if _OUT_OF_MEMORY in ended.stderr or "ran out of memory" in ended.stderr:
        return None
    raise SystemExit(f"{name} failed:\n{ended.stderr[-6000:]}")


def _this_trainer(run: Run, folder: Path) -> None:
    import time

    import torch

    from components.train.data.batches import StepBatch
    from components.train.distributed import start_processes
    from components.train.modelling.micro_batch import find_micro_batch
    from components.train.modelling.optimiser import build_optimiser
    from components.train.settings import TrainSettings
    from components.train.step import agree, compute_gradients, update

    world = int(os.environ.get("WORLD_SIZE", "1"))
    settings = TrainSettings(
        context_length=run.context,
        global_batch_size=_WINDOWS * world,
        micro_batch_size="auto",
        compile=not run.tiny,
        device="cpu" if run.tiny else "cuda",
    )
    layout = start_processes(settings)
    model = _sharded_model(run, settings, layout)
    optimiser = build_optimiser(model, settings)
    size = find_micro_batch(model, optimiser, settings, run.context, layout)
    seconds = []
    for _ in range(run.warm_up + run.steps):
        tokens = torch.randint(model.config.vocab_size, (_WINDOWS, run.context))
        passes = [(part, part) for part in tokens.split(size)]
        count = tokens.numel() * world
        began = time.perf_counter()
        loss, norm = compute_gradients(model, StepBatch(passes, count, count, 0, False), settings, layout)
        agree(loss / count, norm, False, False, layout)
        update(optimiser, settings.learning_rate, True)
        if layout.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    _note(folder, seconds[run.warm_up :], size, _WINDOWS // size)


def _hf_trainer(run: Run, folder: Path, checkpointing: bool = False) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.other_trainers import run_hf_trainer

    world = int(os.environ.get("WORLD_SIZE", "1"))
    if not run.tiny:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with torch.device("cpu" if run.tiny else "cuda"):  # fp32, as the authors load it
        model = AutoModelForCausalLM.from_config(_config(run), dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    steps = run.warm_up + run.steps
    tokens = torch.randint(model.config.vocab_size, (steps * _WINDOWS * world, run.context)).numpy()
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "hf"),
        "per_device_train_batch_size": _AUTHORS_MICRO_BATCH,
        "gradient_accumulation_steps": _WINDOWS // _AUTHORS_MICRO_BATCH,
        "num_train_epochs": 1,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "bf16": True,
        "tf32": None if run.tiny else True,
        "use_cpu": run.tiny,
        "dataloader_pin_memory": not run.tiny,
    }
    if world > 1 and not run.tiny:
        wrapped = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"], "activation_checkpointing": checkpointing}
        arguments |= {"fsdp": True, "fsdp_config": wrapped}
    elif checkpointing:
        arguments |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    seconds = run_hf_trainer(model, tokens, arguments).seconds
    _note(folder, seconds[run.warm_up :], _AUTHORS_MICRO_BATCH, _WINDOWS // _AUTHORS_MICRO_BATCH)


CONTENDERS: dict[str, Callable[[Run, Path], None]] = {
    OURS: _this_trainer,
    AUTHORS: _hf_trainer,
    CHECKPOINTED: lambda run, folder: _hf_trainer(run, folder, checkpointing=True),
}


def _sharded_model(run: Run, settings: Any, layout: Any) -> Any:
    """This trainer's model, with random weights drawn where their shards lie."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    from components.train.modelling.sharding import shard

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(_config(run), dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    shard(model, settings, layout)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=layout.device)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        for parameter in model.parameters():
            parameter.fill_(1.0) if parameter.dim() == 1 else parameter.normal_(std=0.02)
    return model.train()


def _config(run: Run) -> Any:
    from transformers import LlamaConfig

    # LlamaConfig's own sizes are LLaMA-7B's.
    sizes = {name: value for name, value in _TINY.items() if name != "model_type"} if run.tiny else {}
    return LlamaConfig(**{**sizes, "num_hidden_layers": run.layers})


def _note(folder: Path, seconds: list[float], micro_batch: int, passes: int) -> None:
    """Leave what the first process measured, with its GPU's memory peak."""
    import torch

    if os.environ.get("RANK", "0") != "0":
        return
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    found = {"seconds": seconds, "memory": memory, "micro_batch": micro_batch, "passes": passes}
    (folder / "found.json").write_text(json.dumps(found))


def _gpus(count: int | None) -> Device:
    # In another process: asking CUDA here would hold some of the memory that is to be measured.
    script = (
        "import torch; n = torch.cuda.device_count(); p = torch.cuda.get_device_properties(0) if n else None; "
        "print(n, p.total_memory if p else 0, p.name if p else '', sep='|')"
    )
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    there, memory, name = answer.strip().split("|", 2)
    if int(there) == 0:
        raise SystemExit("torch sees no GPU here; --tiny runs the same on CPUs, to see that it works.")
    if count is not None and count > int(there):
        raise SystemExit(f"torch sees {there} GPUs here, not {count}.")
    return Device(name, int(memory) / 2**30, count or int(there))


def _show(
    found: dict[str, list[Found]],
    device: Device,
    whole: ModelShape,
    shape: ModelShape,
    context: int,
    peak: float | None,
) -> None:
    short = (
        "" if shape.layers == whole.layers else f" ({shape.layers} of {whole.layers} layers: memory is short for all)"
    )
    memory = f", {device.memory_gib:.0f} GiB each" if device.memory_gib else ""
    title = f"{device.count} x {device.name}{memory}: {whole.name}{short}, context {context}"
    table = Table(title=title)
    for column in (
        "What",
        "Micro-batch",
        "s a step",
        "Lowest",
        "Highest",
        "Tokens/s/GPU",
        "MFU",
        "Peak GiB",
        "Ours is",
    ):
        table.add_column(column, justify="left" if column == "What" else "right")
    flops = flops_per_token(shape.multiplied_parameters, 0, shape.layers, shape.query_width, context)
    middles = {
        name: statistics.median(second for run in runs for second in run["seconds"]) for name, runs in found.items()
    }
    for name, runs in found.items():
        rates = _WINDOWS * context / middles[name]
        medians = [statistics.median(run["seconds"]) for run in runs]
        table.add_row(
            name,
            f"{runs[0]['micro_batch']} x {runs[0]['passes']}",
            *(f"{value:.3f}" for value in (middles[name], min(medians), max(medians))),
            f"{rates:,.0f}",
            f"{rates * flops / peak:.1%}" if peak else "unknown",
            f"{max(run['memory'] for run in runs) / 2**30:.1f}",
            f"{middles[name] / middles[OURS]:.2f}x",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == [_MEASURE]:
        run = Run(**json.loads(Path(sys.argv[3], "run.json").read_text()))
        end_with(partial(CONTENDERS[sys.argv[2]], run, Path(sys.argv[3])))
    else:
        main()
