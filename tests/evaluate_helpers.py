"""Tiny models, questions and a tokenised corpus, as the steps before evaluation write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from components.common.fingerprint import fingerprint, sha256_bytes, sha256_file
from components.common.manifest import Manifest, Shard

SENTENCES = [
    "the heart pumps blood to the lungs",
    "fever and pain are treated at home",
    "Question: Answer: yes no maybe",
]


def save_model(folder: Path, seed: int = 0, positions: int = 512) -> Manifest:
    """Save a random Llama of 80,000 weights with a byte-level tokenizer below `folder`, and name it by a manifest."""
    target = folder / f"model-{seed}" / "model"
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.3,  # answers must differ from question to question
    )
    LlamaForCausalLM(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    shards = [
        Shard(name=f.name, uri=f.as_uri(), rows=0, bytes=f.stat().st_size, sha256=sha256_file(f))
        for f in sorted(target.iterdir())
    ]
    return Manifest(
        kind="model",
        fingerprint=fingerprint([shard.sha256 for shard in shards]),
        inputs={},
        settings={},
        shards=shards,
        totals={},
        extra={"model_uri": f"file://{target}"},
    )


FAMILIES = ["llama", "mistral", "qwen2", "gpt_neox", "gpt2"]


def tiny_model(family: str, vocabulary: int, positions: int = 512, seed: int = 0, **more: Any) -> PreTrainedModel:
    """Make a model of two layers with random weights that answers each question differently."""
    common: dict[str, Any] = {"vocab_size": vocabulary, "initializer_range": 0.15, **more}
    sized = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
    }
    torch.manual_seed(seed)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_positions=positions, n_embd=48, n_layer=2, n_head=4, **common)).eval()
    if family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sized, **common)).eval()
    config, model = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[family]
    return model(config(num_key_value_heads=2, **sized, **common)).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 320 tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def questions(benchmark: str, count: int) -> list[dict[str, Any]]:
    """Make normalised questions."""
    if benchmark == "pubmedqa":
        labels = ["yes", "no", "maybe"]
        options = {label: label for label in labels}
    else:
        labels = ["A", "B", "C", "D"]
        options = {"A": "aspirin", "B": "β-blocker", "C": "none of the above", "D": "rest & fluids"}
    return [
        {
            "id": f"{benchmark}-{i}",
            "question": f"What helps patient {i} with fever {'and pain ' * (i % 5)}at night?",
            "context": f"Patient {i} had fever.\nThe heart was well." if benchmark == "pubmedqa" else "",
            "options": options,
            "answer": labels[i % 7 % len(labels)],
            "subject": "Medicine",
        }
        for i in range(count)
    ]


def save_benchmarks(folder: Path, files: Mapping[str, Sequence[Mapping[str, Any]]]) -> Manifest:
    """Write files such as ``medqa-test`` and name them by a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(data)
        shards.append(
            Shard(name=name, uri=f"file://{path}", rows=len(rows), bytes=len(data), sha256=sha256_bytes(data))
        )
    return Manifest(
        kind="benchmarks",
        fingerprint=fingerprint([shard.sha256 for shard in shards]),
        inputs={},
        settings={},
        shards=shards,
        totals={},
    )


def save_corpus(folder: Path, documents: Mapping[str, Sequence[int]], vocabulary: int = 320) -> Manifest:
    """Write one validation shard of token ids and name it by a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "validation-00000.bin"
    lengths = [len(tokens) for tokens in documents.values()]
    np.asarray([token for tokens in documents.values() for token in tokens], dtype="<u2").tofile(path)
    np.cumsum([0, *lengths]).astype("<i8").tofile(path.with_suffix(".idx"))
    (folder / "validation-00000.ids.json").write_text(json.dumps(list(documents)))
    stats = {"split": "validation", "documents": len(documents), "tokens": sum(lengths)}
    shard = Shard(
        name="validation-00000",
        uri=f"file://{path}",
        rows=len(documents),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        stats=stats,
    )
    validation = {"shards": [shard.name] if documents else [], "documents": len(documents), "tokens": sum(lengths)}
    return Manifest(
        kind="corpus",
        fingerprint=fingerprint(shard.sha256),
        inputs={},
        settings={},
        shards=[shard],
        totals={},
        extra={
            "dtype": "uint16",
            "vocab_size": vocabulary,
            "splits": {"train": {"shards": [], "documents": 0, "tokens": 0}, "validation": validation},
        },
    )
