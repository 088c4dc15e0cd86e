"""Token shards hold exactly the reference's ids of exactly the documents that stay, each in its split."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastokens
import numpy as np
import pytest
from preprocess_helpers import TOKENIZER, clean_shard, deduplicate, document, prose, tokens_of
from tokenizers import Tokenizer, models, pre_tokenizers

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest, Shard
from components.preprocess.settings import TokenizeSettings
from components.preprocess.tokenization import split, tokenize
from components.preprocess.tokenization.encoders import FAST, REFERENCE, Ids, choose_encoder

ODD = [
    "Text with </s> and <s> and <unk> written out, as in a paper on language models.",
    "β-catenin ≤ 5 µm; 中文, 한국어, é, 𝑥² and 🧬.",
    "tabs\tand\n\n\nlines   and spaces  ",
    "<s>",
]


def documents(count: int = 60) -> list[dict[str, Any]]:
    rows = [document(f"PMC{number}", prose(number, words=40 + number)) for number in range(count)]
    return rows + [document(f"PMC9{number}", text) for number, text in enumerate(ODD)]


def unique(root: Path, rows: list[dict[str, Any]], shards: int = 1) -> Manifest:
    return deduplicate(root, [clean_shard(root, f"shard-{n:05d}", rows[n::shards]) for n in range(shards)])


def tokenise(root: Path, manifest: Manifest, tokenizer: Path = TOKENIZER, **settings: Any) -> list[Shard]:
    return [shard for part in tokens_of(root, manifest, tokenizer, **settings) for shard in part.shards]


def decoded(shards: list[Shard]) -> dict[str, tuple[str, list[int]]]:
    """Article id -> (split, ids), read as a reader of the format would."""
    found = {}
    for shard in shards:
        path = storage.local_path(shard.uri)
        ids = np.fromfile(path, dtype="<u2" if shard.stats["dtype"] == "uint16" else "<u4")
        offsets = np.fromfile(path.with_suffix(".idx"), dtype="<i8")
        names = json.loads(path.with_suffix(".ids.json").read_bytes())
        assert len(offsets) == len(names) + 1 == shard.rows + 1 == shard.stats["documents"] + 1
        assert offsets[0] == 0
        assert offsets[-1] == len(ids) == shard.stats["tokens"]
        for number, name in enumerate(names):
            assert name not in found
            found[name] = (shard.stats["split"], ids[offsets[number] : offsets[number + 1]].tolist())
    return found


def reference_ids(texts: Sequence[str], tokenizer: Path = TOKENIZER) -> list[list[int]]:
    reference = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    reference.encode_special_tokens = True
    return [reference.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("encoder", ["fastest", "reference"])
def test_ids_are_those_of_the_reference(tmp_path: Path, encoder: str) -> None:
    rows = documents()
    shards = tokenise(tmp_path, unique(tmp_path, rows, 2), validation_fraction=0.2, encoder=encoder)
    found = decoded(shards)
    assert {name: ids for name, (_, ids) in found.items()} == dict(
        zip([row["article_id"] for row in rows], reference_ids([row["text"] for row in rows]), strict=True)
    )
    assert {shard.stats["encoder"] for shard in shards} == {FAST if encoder == "fastest" else REFERENCE}
    assert {shard.stats["dtype"] for shard in shards} == {"uint16"}


def test_a_control_token_written_in_a_text_is_no_control_token(tmp_path: Path) -> None:
    found = decoded(tokenise(tmp_path, unique(tmp_path, documents()), validation_fraction=0.2))
    assert all(2 not in ids and 1 not in ids and 0 not in ids for _, ids in found.values())


def test_removed_documents_are_not_in_the_shards(tmp_path: Path) -> None:
    rows = documents()
    copies = [document(f"PMC8{n}", rows[n]["text"]) for n in range(5)]
    found = decoded(tokenise(tmp_path, unique(tmp_path, rows + copies, 3), validation_fraction=0.2))
    assert set(found) == {row["article_id"] for row in rows}


def test_the_split_depends_on_the_id_alone(tmp_path: Path) -> None:
    rows = documents()
    one = decoded(tokenise(tmp_path / "a", unique(tmp_path / "a", rows, 1), validation_fraction=0.2))
    other = decoded(tokenise(tmp_path / "b", unique(tmp_path / "b", rows[::-1], 4), validation_fraction=0.2))
    assert one == other
    held_out = {name for name, (part, _) in one.items() if part == split.VALIDATION}
    assert 0.1 < len(held_out) / len(rows) < 0.35
    more = decoded(tokenise(tmp_path / "a", unique(tmp_path / "a", rows, 1), validation_fraction=0.4))
    assert held_out < {name for name, (part, _) in more.items() if part == split.VALIDATION}


def test_positions_are_pinned_and_evenly_spread() -> None:
    """A changed hash would move held-out articles into the training data of a continued model."""
    assert split.position("PMC13900") == pytest.approx(0.299686537728755, abs=1e-12)
    positions = [split.position(f"PMC{number}") for number in range(10_000)]
    assert all(0 <= value < 1 for value in positions)
    assert sum(value < 0.01 for value in positions) == pytest.approx(100, abs=40)
    assert sum(positions) / len(positions) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("fraction", [1e-9, 0.5])
def test_two_documents_are_enough_for_both_splits(tmp_path: Path, fraction: float) -> None:
    for start in range(0, 10, 2):
        root = tmp_path / str(start)
        found = decoded(tokenise(root, unique(root, documents(10)[start : start + 2]), validation_fraction=fraction))
        assert sorted(part for part, _ in found.values()) == ["train", "validation"]


def test_both_splits_are_written_even_when_empty(tmp_path: Path) -> None:
    manifest = unique(tmp_path, documents(4)[:4], 4)
    shards = tokenise(tmp_path, manifest, validation_fraction=1e-9)
    assert len(shards) == 8
    assert sorted(shard.rows for shard in shards) == [0, 0, 0, 0, 1, 1, 1, 1]
    decoded(shards)


def test_a_rerun_skips_finished_shards_and_redoes_unfinished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = unique(tmp_path, documents(), 2)
    first = tokenise(tmp_path, manifest)
    # A run that died after the first file of the second shard: no sidecar.
    sidecar = storage.local_path(first[3].uri).with_suffix(".json")
    sidecar.unlink()
    encoded = []

    def counting(*arguments: Any) -> Any:
        encoded.append(arguments)
        return choose_encoder(*arguments)

    monkeypatch.setattr(tokenize, "choose_encoder", counting)
    assert tokenise(tmp_path, manifest) == first
    assert len(encoded) == 1
    assert sidecar.exists()
    tokenise(tmp_path, manifest, encoder="reference")
    assert len(encoded) == 1, "the choice of the encoder makes no other shards"
    tokenise(tmp_path, manifest, validation_fraction=0.3)
    assert len(encoded) == 3


@pytest.mark.parametrize(("count", "groups"), [(1, [0]), (3, [0, 2, 4]), (8, [0, 0, 1, 1, 2, 2, 3, 3]), (100, None)])
def test_the_probe_is_taken_from_row_groups_all_over_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, groups: list[int] | None
) -> None:
    rows = documents(35)[:35]
    probes: list[list[str]] = []

    def noting(*arguments: Any) -> Any:
        probes.append(arguments[1])
        return choose_encoder(*arguments)

    monkeypatch.setattr(tokenize, "choose_encoder", noting)
    tokenise(tmp_path, unique(tmp_path, rows), probe_documents=count)
    places = [[row["text"] for row in rows].index(text) for text in probes[0]]
    assert [place // 7 for place in places] == (groups or [place // 7 for place in range(35)])


class LyingTokenizer:
    """As fastokens, but one id of every long text is wrong."""

    def __init__(self, path: str) -> None:
        self._honest = fastokens._native.Tokenizer.from_file(path)

    from_file = classmethod(lambda cls, path: cls(path))

    def no_truncation(self) -> None:
        pass

    def encode_batch_flat(self, texts: list[str], add_special_tokens: bool) -> tuple[bytes, bytes]:
        ids, offsets = self._honest.encode_batch_flat(texts, add_special_tokens=add_special_tokens)
        changed = np.frombuffer(ids, dtype="<u4").copy()
        if len(changed) > 1000:
            changed[-1] += 1
        return changed.tobytes(), offsets


def test_an_encoder_with_other_ids_is_found_out_on_the_shards_own_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fastokens, "Tokenizer", LyingTokenizer)
    rows = [*documents(10), document("PMC77", prose(77, words=3000))]
    shards = tokenise(tmp_path, unique(tmp_path, rows), validation_fraction=0.2)
    assert {shard.stats["encoder"] for shard in shards} == {REFERENCE}
    assert "fastokens is not used: its ids of text" in caplog.text
    assert decoded(shards)["PMC77"][1] == reference_ids([rows[-1]["text"]])[0]


def wide_tokenizer(folder: Path) -> Path:
    """A vocabulary beyond uint16, of a kind that fastokens does not know."""
    folder.mkdir()
    words = {"[UNK]": 0} | {f"w{number}": number + 1 for number in range(70_000)}
    wide = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    wide.pre_tokenizer = pre_tokenizers.Whitespace()
    wide.save(str(folder / "tokenizer.json"))
    return folder


def test_a_large_vocabulary_makes_uint32_and_an_unknown_kind_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = wide_tokenizer(tmp_path / "wide")
    rows = [document(f"PMC{n}", f"w{n} w69999 w65536 nothing") for n in range(3)]
    shards = tokenise(tmp_path, unique(tmp_path, rows), tokenizer, validation_fraction=0.5)
    assert {(shard.stats["dtype"], shard.stats["encoder"]) for shard in shards} == {("uint32", REFERENCE)}
    assert shards[0].stats["vocab_size"] == 70_001
    assert decoded(shards)["PMC1"][1] == [2, 70_000, 65_537, 0]
    assert "fastokens is not used" in caplog.text


def test_eos_ends_each_document_only_when_asked_for(tmp_path: Path) -> None:
    manifest = unique(tmp_path, documents(5))
    plain = decoded(tokenise(tmp_path, manifest))
    ended = decoded(tokenise(tmp_path, manifest, add_eos=True))
    assert {name: ids[:-1] for name, (_, ids) in ended.items()} == {name: ids for name, (_, ids) in plain.items()}
    assert {ids[-1] for _, ids in ended.values()} == {2}


def test_eos_without_a_name_for_it_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    tokenizer = wide_tokenizer(tmp_path / "wide")
    with pytest.raises(InputError, match=r"preprocess\.tokenize\.add_eos"):
        tokenise(tmp_path, unique(tmp_path, documents(5)), tokenizer, add_eos=True)


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    manifest = unique(tmp_path, documents(5))
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        tokenise(tmp_path, manifest, tmp_path)
    shutil.copytree(TOKENIZER, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json is no tokenizer"):
        tokenise(tmp_path, manifest, tmp_path / "broken")


def test_an_unknown_shard_is_named(tmp_path: Path) -> None:
    manifest = unique(tmp_path, documents(5))
    with pytest.raises(InputError, match="shard-00099"):
        tokenize.tokenize_shard(manifest, "shard-00099", TOKENIZER, TokenizeSettings(), storage.to_uri(tmp_path))


def test_encoding_one_by_one_or_in_a_batch_is_the_same() -> None:
    texts = [*ODD, "", *(prose(n) for n in range(20))]
    _, encode = choose_encoder(TOKENIZER, texts)

    def split_up(ids: Ids) -> list[list[int]]:
        return [ids[0][ids[1][n] : ids[1][n + 1]].tolist() for n in range(len(ids[1]) - 1)]

    plain = [text for text in texts if "<" not in text]
    assert split_up(encode(plain)) == reference_ids(plain)
    assert split_up(encode(texts)) == reference_ids(texts)
    assert split_up(encode([])) == []
