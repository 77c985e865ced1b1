"""`init.subword` cuts as a tokenizer's own library does, row by row, from an object or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows_helpers import start, table

import torch_warmstart as tws
from torch_warmstart import init

TEXTS = ["networks", "nets", "zzz", "net-work", "workzz", "snow", "s", "q"]
NAMES = ("bpe", "unigram", "word pieces", "word level")


def tokenizer_of(name: str) -> Any:
    library = pytest.importorskip("tokenizers")
    made, known = library.models, {"<unk>": 0, "net": 1, "##work": 2, "##s": 3, "s": 4, "work": 5}
    if name == "bpe":
        letters = {letter: at for at, letter in enumerate(["<unk>", *"networks"])}
        vocab = {name: at for at, name in enumerate(dict.fromkeys([*letters, "ne", "net", "wo"]))}
        merges = [("n", "e"), ("ne", "t"), ("w", "o")]
        tokenizer = library.Tokenizer(made.BPE(vocab, merges, unk_token="<unk>"))
    elif name == "unigram":
        scored = [("<unk>", 0.0), ("net", -1.0), ("work", -1.5), ("s", -2.0), ("n", -3.0)]
        tokenizer = library.Tokenizer(made.Unigram(scored, 0))
    elif name == "word pieces":
        tokenizer = library.Tokenizer(made.WordPiece(known, unk_token="<unk>"))
    else:
        tokenizer = library.Tokenizer(made.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    return tokenizer


def expected(old: torch.Tensor, rows: dict[str, int], pieces: list[str]) -> torch.Tensor | None:
    """The mean of a token's pieces, one after the other; what is unknown has no weight."""
    known = [old[rows[piece]] for piece in pieces if piece in rows and piece != "<unk>"]
    return torch.stack(known).mean(0) if known else None


@pytest.mark.parametrize("name", NAMES)
def test_each_row_is_the_mean_of_what_its_text_is_cut_into(name: str) -> None:
    tokenizer = tokenizer_of(name)
    rows = tokenizer.get_vocab()
    entries = sorted(rows, key=rows.__getitem__)
    old = table(len(entries), 6)
    new = [text for text in TEXTS if text not in rows]
    weight, account = start(old, entries, new, init.subword(tokenizer))
    wanted = [expected(old, rows, tokenizer.encode(text).tokens) for text in new]
    for text, row, mean in zip(new, weight, wanted, strict=True):
        torch.testing.assert_close(row, torch.zeros(6) if mean is None else mean, msg=text)
    count = sum(mean is not None for mean in wanted)
    assert 0 < count < len(new)
    assert dict(account.new_rows.answered)["subword"] == count


def test_rows_of_the_old_table_may_be_in_another_order_than_the_tokenizers_ids() -> None:
    tokenizer = tokenizer_of("word pieces")
    entries = ["##s", "pad", "net", "##work"]
    old = table(4, 6)
    weight, _ = start(old, entries, ["networks"], init.subword(tokenizer))
    torch.testing.assert_close(weight[0], old[[2, 3, 0]].mean(0))


@pytest.mark.parametrize("whole", [False, True])
def test_a_path_stands_for_the_tokenizer_in_it(tmp_path: Path, whole: bool) -> None:
    tokenizer = tokenizer_of("word pieces")
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    old, entries = table(4, 6), ["<unk>", "net", "##work", "##s"]
    given, _ = start(old, entries, ["networks"], init.subword(tokenizer))
    read, _ = start(old, entries, ["networks"], init.subword(tmp_path if whole else str(path)))
    assert torch.equal(given, read)


def test_a_model_of_sentencepiece_by_its_object_and_its_path(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    (tmp_path / "text.txt").write_text("net work nets networks worknet snow work\n" * 20)
    prefix = str(tmp_path / "old")
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=prefix, vocab_size=15, minloglevel=2
    )
    processor = library.SentencePieceProcessor(model_file=prefix + ".model")
    entries = [processor.id_to_piece(at) for at in range(len(processor))]
    rows, old = {entry: at for at, entry in enumerate(entries)}, table(len(entries), 6)
    new = ["▁networksnow", "▁snet", "▁é"]
    given, account = start(old, entries, new, init.subword(processor))
    read, _ = start(old, entries, new, init.subword(prefix + ".model"))
    assert torch.equal(given, read)
    for entry, row in zip(new[:2], given, strict=False):
        pieces = processor.encode(entry.replace("▁", " "), out_type=str)
        wanted = expected(old, rows, pieces)
        assert wanted is not None
        torch.testing.assert_close(row, wanted)
    assert sum(count for _, count in account.new_rows.answered) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{}", "tokenizers cannot read .*tokenizer.json"),
        ("old.model", b"\xff\xd8\xff", "sentencepiece cannot read .*old.model"),
        ("old.txt", b"a\n", "is no tokenizer.json and no .model of sentencepiece"),
        ("", b"", "there is no .*tokenizer.json"),
    ],
)
def test_a_file_that_cuts_nothing_is_told(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("sentencepiece")
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(tws.PlanError, match=message):
        start(table(2, 3), ["a", "b"], ["ab"], init.subword(tmp_path / name))


def test_what_cuts_nothing_is_told_when_it_is_given() -> None:
    with pytest.raises(tws.SettingsError, match="or the path of its tokenizer.json"):
        init.subword(3)


@pytest.mark.parametrize("pieces", [{"networks": "net"}, lambda text: "net"])
def test_a_text_where_pieces_are_asked_is_told_and_not_taken_by_its_letters(pieces: Any) -> None:
    with pytest.raises(tws.PlanError, match="pieces are a list, but 'net' was given"):
        start(table(4, 3), ["n", "e", "t", "net"], ["networks"], init.subword(pieces))


@pytest.mark.parametrize("kind", [int, np.int64, np.uint16])
def test_ids_of_any_kind_are_the_old_table_s_rows(kind: Any) -> None:
    old = table(3, 5)

    def cut(text: str) -> Any:
        return np.array([2, 0], dtype=kind) if kind is not int else [2, 0]

    weight, _ = start(old, ["a", "b", "c"], ["net"], init.subword(cut))
    torch.testing.assert_close(weight[0], (old[2] + old[0]) / 2)


def test_a_mapping_may_be_by_bytes_and_by_ids_and_have_more_than_is_new() -> None:
    old = table(3, 5)
    pieces: Any = {b"net": [b"a", b"c"], b"other": [b"b"]}
    weight, _ = start(old, ["a", "b", "c"], ["b", "net"], init.subword(pieces))
    torch.testing.assert_close(weight, torch.stack([old[1], (old[0] + old[2]) / 2]))
    weight, _ = start(old, [5, 6, 7], [6, 9], init.subword({9: [5, 7], 11: [6]}))
    torch.testing.assert_close(weight, torch.stack([old[1], (old[0] + old[2]) / 2]))
    with pytest.raises(tws.SettingsError, match="the mapping is empty"):
        init.subword({})
