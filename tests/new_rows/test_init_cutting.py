"""Tokens are cut as they are written, whatever a tokenizer was told to do with a model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rows_helpers import start, table
from test_init_tokenizers import NAMES, tokenizer_of

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.new_rows.initializers.cutting import cut_by

ENTRIES = ["[PAD]", "[UNK]", "ab", "##c", "##d"]


def word_pieces() -> Any:
    library = pytest.importorskip("tokenizers")
    vocab = {entry: row for row, entry in enumerate(ENTRIES)}
    tokenizer = library.Tokenizer(library.models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    return tokenizer


def padding_and_truncating() -> Any:
    tokenizer = word_pieces()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=4)
    tokenizer.enable_truncation(2)
    return tokenizer


def of_transformers() -> Any:
    library = pytest.importorskip("transformers")
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=word_pieces(), pad_token="[PAD]", unk_token="[UNK]"
    )
    tokenizer(["abcd"], padding="max_length", truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.padding
    assert tokenizer.backend_tokenizer.truncation
    return tokenizer


@pytest.mark.parametrize("make", [padding_and_truncating, of_transformers])
def test_padding_is_no_piece_and_nothing_is_cut_off(make: Any, tmp_path: Path) -> None:
    old, tokenizer = table(5, 6), make()
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    told = [backend.padding, backend.truncation]
    backend.save(str(tmp_path / "tokenizer.json"))
    for given in (tokenizer, tmp_path):
        with pytest.warns(tws.WarmStartWarning, match="answers for 1 new row") as said:
            weight, account = start(old, ENTRIES, ["abcd", "abd", "q"], init.subword(given))
        torch.testing.assert_close(weight[0], old[[2, 3, 4]].mean(0))
        torch.testing.assert_close(weight[1], old[[2, 4]].mean(0))
        assert not weight[2].any()  # of nothing but what is unknown
        assert dict(account.new_rows.answered)["subword"] == 2
        assert max(str(one.message).count("init.mean()") for one in said) == 1  # its hint, once
    assert [backend.padding, backend.truncation] == told


def test_merges_are_not_left_to_chance() -> None:
    library = pytest.importorskip("tokenizers")
    vocab = {entry: row for row, entry in enumerate(["a", "b", "c", "ab", "abc"])}
    model = library.models.BPE(vocab, [("a", "b"), ("ab", "c")], dropout=1.0)
    tokenizer, old = library.Tokenizer(model), table(5, 6)
    assert len(tokenizer.encode("abc").tokens) == 3
    weight, _ = start(old, [*vocab], ["abca"], init.subword(tokenizer))
    torch.testing.assert_close(weight[0], old[[4, 0]].mean(0))
    assert tokenizer.model.dropout == 1.0


def test_what_cannot_be_copied_without_its_limits_is_told() -> None:
    library = pytest.importorskip("tokenizers")

    class Words:
        def pre_tokenize(self, text: Any) -> None:
            """One word."""

    tokenizer, old = padding_and_truncating(), table(5, 6)
    tokenizer.pre_tokenizer = library.pre_tokenizers.PreTokenizer.custom(Words())
    with pytest.raises(tws.PlanError, match=r"no_padding\(\), no_truncation\(\)"):
        start(old, ENTRIES, ["abcd"], init.subword(tokenizer))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    weight, _ = start(old, ENTRIES, ["abcd"], init.subword(tokenizer))
    torch.testing.assert_close(weight[0], old[[2, 3, 4]].mean(0))


def test_what_a_tokenizer_has_no_token_for_is_told_as_our_error() -> None:
    library = pytest.importorskip("tokenizers")
    tokenizer = library.Tokenizer(library.models.WordLevel({"a": 0, "b": 1}))
    with pytest.raises(
        tws.PlanError, match=r"cut .* cannot: .* \[UNK\] .* a function that returns \[\]"
    ):
        start(table(2, 6), ["a", "b"], ["a", "zz"], init.subword(tokenizer))


@pytest.mark.parametrize("name", NAMES)
def test_many_texts_are_cut_as_each_by_itself(name: str) -> None:
    tokenizer = tokenizer_of(name)
    texts = [
        "",
        " ",
        "net works",
        *(f"{'net' * (at % 4)}work{'s' * (at % 3)}" for at in range(600)),
    ]
    wanted = [tokenizer.encode(text) for text in texts]
    found = cut_by(tokenizer)(texts)
    assert found.counts.tolist() == [len(one.ids) for one in wanted]
    assert found.numbers is not None
    names = [found.names[number] for number in found.numbers.tolist()]
    known = [
        token if token in tokenizer.get_vocab() else None for one in wanted for token in one.tokens
    ]
    unknown = {None, "<unk>"}
    assert [
        None if one in unknown or one not in tokenizer.get_vocab() else one for one in names
    ] == [None if one in unknown else one for one in known]


@pytest.mark.parametrize("fallback", [False, True])
def test_added_tokens_have_their_names_and_what_is_unknown_none(fallback: bool) -> None:
    library = pytest.importorskip("tokenizers")
    bytes_ = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if fallback else []
    scored = [("<unk>", 0.0), ("net", -1.0), (" ", -2.0), *bytes_]
    tokenizer = library.Tokenizer(library.models.Unigram(scored, 0, byte_fallback=fallback))
    tokenizer.normalizer = library.normalizers.Lowercase()
    wide = library.AddedToken("<sep>", lstrip=True, rstrip=True, normalized=False)
    tokenizer.add_tokens([wide, library.AddedToken("NewTok", normalized=True)])
    tokenizer.add_special_tokens(["<unk>"])
    found = cut_by(tokenizer)(["net <sep> net", "netnewtok", "a<unk>", "é"])
    assert found.numbers is not None
    names = [found.names[number] for number in found.numbers.tolist()]
    unknown = ["<0x61>", None, "<0xC3>", "<0xA9>"] if fallback else [None, None, None]
    assert names == ["net", "<sep>", "net", "net", "NewTok", *unknown]


def test_no_texts_are_cut_into_nothing() -> None:
    found = cut_by(word_pieces())([])
    assert not len(found.counts)
    assert not len(found.names)


def test_begin_and_end_of_a_text_are_no_pieces_of_sentencepiece(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    lines = ["the network works", "nets and workers", "a snow net", "networks of works"] * 20
    (tmp_path / "text.txt").write_text("\n".join(lines))
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"),
        model_prefix=str(tmp_path / "m"),
        vocab_size=20,
        minloglevel=2,
    )
    path = str(tmp_path / "m.model")
    plain = library.SentencePieceProcessor(model_file=path)
    told = library.SentencePieceProcessor(
        model_file=path, out_type=str, add_bos=True, add_eos=True, reverse=True
    )
    entries = [plain.id_to_piece(at) for at in range(plain.vocab_size())]
    old = table(len(entries), 6)
    rows = [
        start(old, entries, ["▁networkers"], init.subword(one, "first"))[0] for one in (plain, told)
    ]
    assert torch.equal(*rows)
    torch.testing.assert_close(rows[0][0], old[plain.encode(" networkers")[0]])


def fails(text: str) -> list[str]:
    raise KeyError(text)


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        (lambda text: None, "not NoneType; a token without any has"),
        (lambda text: 3, "not int; a token without any has"),
        (lambda text: [True], "or its id, not True"),
        ({"abc": [False]}, "or its id, not False"),
        ({"abc": None}, "not NoneType; a token without any has"),
        (fails, "cut the new tokens' texts cannot: KeyError: 'abc'"),
    ],
)
def test_what_gives_no_pieces_is_told(pieces: Any, says: str) -> None:
    with pytest.raises(tws.PlanError, match=says):
        start(table(2, 6), ["a", "b"], ["a", "abc"], init.subword(pieces))


def test_groups_are_keys() -> None:
    groups = {"a": [1], "abc": [1]}
    with pytest.raises(tws.PlanError, match="a group is one value that can be a key"):
        start(table(2, 6), ["a", "b"], ["a", "abc"], init.group_mean(groups))
