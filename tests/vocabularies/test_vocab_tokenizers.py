"""Tokenizers, as objects and in files, against the libraries that they come from."""

from __future__ import annotations

import base64
import json

import pytest
import sentencepiece
import tiktoken
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, trainers

import torch_warmstart as tws

load = tws.Vocabulary.load
TEXT = ["hello world this is a test of the tokenizer", "another line with words"] * 20
RANKS = {bytes([n]): n for n in range(256)} | {b"he": 256, b"hel": 257}


@pytest.fixture(scope="module")
def byte_level():
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        show_progress=False,
        special_tokens=["[PAD]", "[UNK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens(["extra"])
    return tokenizer


@pytest.fixture(scope="module")
def fast(byte_level):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level, pad_token="[PAD]", unk_token="[UNK]", eos_token="<end>"
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sp")
    (folder / "t.txt").write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "t.txt"),
        model_prefix=str(folder / "sp"),
        vocab_size=28,
        pad_id=3,
        user_defined_symbols=["<sep>"],
        minloglevel=2,
    )
    return folder / "sp.model"


def rows_of(vocab):
    """Entry to row, as text."""
    return {e.decode(): row for row, e in enumerate(vocab.entries) if e is not None}


def test_a_tokenizer_of_tokenizers(byte_level, tmp_path):
    vocab = load(byte_level)
    assert rows_of(vocab) == byte_level.get_vocab()
    byte_level.save(str(tmp_path / "tokenizer.json"))
    from_file = load(tmp_path / "tokenizer.json")
    assert rows_of(from_file) == byte_level.get_vocab()
    assert from_file.special == vocab.special == {"unk_token": range(1, 2)}


@pytest.mark.parametrize(
    "model",
    [
        models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.0)], 0),
        models.WordLevel({"a": 0, "b": 2}, unk_token="a"),
        models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}),
    ],
)
def test_every_kind_of_model(model, tmp_path):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.save(str(tmp_path / "t.json"))
    assert rows_of(load(tmp_path / "t.json")) == rows_of(load(tokenizer)) == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("place", "special"),
    [(1, {"unk_token": range(1, 2)}), (None, {})],
    ids=["the second", "none"],
)
def test_a_unigram_model_has_the_place_of_what_it_does_not_know(place, special, tmp_path):
    pieces = [("a", -1.0), ("[UNK]", 0.0), ("b", -2.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, place))
    tokenizer.save(str(tmp_path / "t.json"))
    assert load(tokenizer).special == load(tmp_path / "t.json").special == special


def test_a_piece_that_is_there_twice_has_the_row_that_its_tokenizer_gives(tmp_path):
    pieces = [("a", -1.0), ("b", -2.0), ("a", -3.0), ("c", -4.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces))
    tokenizer.save(str(tmp_path / "t.json"))
    assert tokenizer.encode("a").ids == [2]
    for vocab in (load(tokenizer), load(tmp_path / "t.json")):
        assert list(vocab.entries) == [None, b"b", b"a", b"c"]


def test_a_fast_tokenizer_and_its_directory(fast, tmp_path):
    vocab = load(fast)
    assert rows_of(vocab) == fast.get_vocab()
    assert len(vocab) == len(fast)
    ids = {name: vocab.special[name].start for name in ("pad_token", "unk_token", "eos_token")}
    assert ids == {
        "pad_token": fast.pad_token_id,
        "unk_token": fast.unk_token_id,
        "eos_token": fast.eos_token_id,
    }
    fast.save_pretrained(tmp_path)
    of_directory = load(tmp_path)
    assert of_directory.fingerprint == vocab.fingerprint
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 320}))
    padded = load(tmp_path)
    assert len(padded) == 320
    assert padded.special["padding"] == range(len(vocab), 320)


def test_a_slow_tokenizer():
    class Slow(transformers.PreTrainedTokenizer):
        def __init__(self, **options):
            self.tokens = {"<pad>": 0, "a": 1, "b": 2}
            super().__init__(pad_token="<pad>", **options)

        vocab_size = 3

        def get_vocab(self):
            return {**self.tokens, **self.added_tokens_encoder}

        def _convert_token_to_id(self, token):
            return self.tokens.get(token)

    slow = Slow()
    slow.add_tokens(["new"])
    vocab = load(slow)
    assert rows_of(vocab) == {"<pad>": 0, "a": 1, "b": 2, "new": 3}
    assert vocab.special == {"pad_token": range(1)}


def test_a_directory_of_wordpiece_lines(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\nhello\n##lo\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "pad_token": "[PAD]",
                "added_tokens_decoder": {
                    "0": {"content": "[PAD]", "special": True},
                    "4": {"content": "<new>"},
                },
            }
        )
    )
    vocab = load(tmp_path)
    assert list(vocab.entries) == [b"[PAD]", b"[UNK]", b"hello", b"##lo", b"<new>"]
    assert vocab.special == {"pad_token": range(1)}


def test_a_blank_line_of_a_directory_s_vocab_txt_is_a_token_as_its_class_reads_it(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\r\nhello\r\n##lo")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    vocab = load(tmp_path)
    assert rows_of(vocab) == transformers.BertTokenizer.from_pretrained(tmp_path).get_vocab()
    assert vocab.entries[5] == b""
    with pytest.raises(
        tws.VocabularyError, match="line 6 is blank"
    ):  # of a file nobody knows whose
        load(tmp_path / "vocab.txt")


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_a_table_of_a_tokenizer_s_directory_may_be_padded_whichever_file_it_has(tmp_path, name):
    tokens = ["[PAD]", "[UNK]", "hello", "##lo"]
    rows = {token: row for row, token in enumerate(tokens)}
    text = json.dumps(rows) if name == "vocab.json" else "\n".join(tokens)
    (tmp_path / name).write_text(text)
    info = tws.VocabInfo(str(tmp_path), old_vocab=["##lo", "hello"])
    model, old = torch.nn.Embedding(8, 1), {"weight": torch.tensor([[1.0], [2.0]])}
    tws.warm_start(model, tws.WarmStartSettings(old, var_name_to_vocab_info={"weight": info}))
    assert model.weight.flatten()[:4].tolist() == [0.0, 0.0, 2.0, 1.0]


def test_an_empty_vocab_txt_in_a_directory_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"")
    with pytest.raises(tws.VocabularyError, match=r"vocab\.txt is empty"):
        load(tmp_path)


def test_a_sentencepiece_model(model_file):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    expected = [processor.id_to_piece(n).encode() for n in range(len(processor))]
    for source in (model_file, processor, model_file.with_suffix(".vocab")):
        assert list(load(source).entries) == expected
    special = load(model_file).special
    assert {name: rows.start for name, rows in special.items()} == {
        "unk_token": processor.unk_id(),
        "bos_token": processor.bos_id(),
        "eos_token": processor.eos_id(),
        "pad_token": processor.pad_id(),
    }
    assert load(processor).special == special


def test_a_cut_model_is_refused(model_file, tmp_path):
    whole = model_file.read_bytes()
    for at in [*range(1, 400, 23), *range(400, len(whole) - 1, len(whole) // 20)]:
        (tmp_path / "m.model").write_bytes(whole[:at])
        try:
            found = load(tmp_path / "m.model")
        except tws.VocabularyError:
            continue
        assert len(found) <= len(load(model_file))  # cut between two pieces


def test_a_directory_with_only_a_model_needs_a_class_that_numbers_as_it_does(model_file, tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model_file.read_bytes())
    with pytest.raises(tws.VocabularyError, match="number sentencepiece's pieces otherwise"):
        load(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(tws.VocabularyError, match="XLMRobertaTokenizer"):
        load(tmp_path)
    config.write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert list(load(tmp_path).entries) == list(load(model_file).entries)


def test_lines_that_a_class_numbers_otherwise_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("the 90\ncat 50\nmat 7\n")
    (tmp_path / "bpe.codes").write_text("#version: 0.2\nt h 5\n")
    own = transformers.PhobertTokenizer.from_pretrained(tmp_path)
    assert own.convert_tokens_to_ids("the") == 4  # behind <s>, <pad>, </s> and <unk>
    assert rows_of(load(own)) == own.get_vocab()
    with pytest.raises(tws.VocabularyError, match="has a number behind each token.*Pass the token"):
        load(tmp_path)


def test_a_tokenizer_that_only_its_class_can_read_is_refused_as_one(tmp_path):
    own = transformers.ByT5Tokenizer()
    own.save_pretrained(tmp_path)
    assert rows_of(load(own)) == own.get_vocab()
    with pytest.raises(
        tws.VocabularyError, match=r"holds a tokenizer \(ByT5Tokenizer\) .*Pass the"
    ):
        load(tmp_path)


def test_tiktoken(tmp_path):
    encoding = tiktoken.Encoding(
        "toy", pat_str=r"\w+", mergeable_ranks=RANKS, special_tokens={"<|end|>": 300}
    )
    vocab = load(encoding)
    assert len(vocab) == encoding.n_vocab == 301
    assert vocab.entries[257] == b"hel"
    assert vocab.entries[299] is None
    assert vocab.rows([b"he", "<|end|>"][:1]).tolist() == [256]
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in RANKS.items()]
    path = tmp_path / "ranks.txt"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert list(load(path).entries) == list(vocab.entries)[:258]
    (tmp_path / "bad.tiktoken").write_bytes(b"aGU= 0\nno base64\n")
    with pytest.raises(tws.VocabularyError, match="line 2 is not a token in base64"):
        load(tmp_path / "bad.tiktoken")


def test_tokens_of_one_meaning_find_each_other():
    def tokenizer(tokens, pad):
        made = tokenizers.Tokenizer(models.WordLevel(tokens, unk_token="u"))
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad)

    new = tokenizer({"a": 0, "<pad>": 1, "u": 2, "b": 3}, "<pad>")
    old = tokenizer({"[PAD]": 0, "b": 1, "a": 2, "u": 3}, "[PAD]")
    model = torch.nn.Embedding(4, 1)
    table = {"weight": torch.tensor([[10.0], [11.0], [12.0], [13.0]])}
    info = {"weight": tws.VocabInfo(new, old_vocab=old)}
    tws.warm_start(model, tws.WarmStartSettings(table, var_name_to_vocab_info=info))
    assert model.weight.flatten().tolist() == [12.0, 10.0, 13.0, 11.0]


def test_tokens_that_a_tokenizer_names_itself_find_each_other(tmp_path):
    vocabularies = []
    for side, tokens in (("old", ["<image>", "a", "[PAD]"]), ("new", ["a", "<pad>", "<|img|>"])):
        model = models.WordLevel({token: row for row, token in enumerate(tokens)})
        image, pad = (token for token in tokens if token != "a") if side == "old" else tokens[:0:-1]
        own = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(model),
            pad_token=pad,
            extra_special_tokens={"image_token": image},
        )
        own.save_pretrained(tmp_path / side)
        assert load(own).special == load(tmp_path / side).special
        vocabularies.append(load(own))
    old, new = vocabularies
    assert new.special == {"image_token": range(2, 3), "pad_token": range(1, 2)}
    table, model = torch.arange(3.0)[:, None], torch.nn.Embedding(3, 1)
    infos = {"weight": tws.VocabInfo(new, old_vocab=old)}
    tws.warm_start(model, tws.WarmStartSettings({"weight": table}, ".*", infos))
    assert model.weight.flatten().tolist() == [1, 2, 0]


def test_a_table_of_a_tokenizer_may_be_padded():
    tokens = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    table = {"weight": torch.arange(3.0).reshape(3, 1) + 1}
    info = {"weight": tws.VocabInfo(tokens, old_vocab=["c", "b", "a"])}
    settings = tws.WarmStartSettings(table, var_name_to_vocab_info=info)
    model = torch.nn.Embedding(64, 1)
    rows = tws.warm_start(model, settings)["weight"].rows
    assert (rows.total, rows.copied, rows.vacant, rows.initialised) == (64, 3, 61, 0)
    assert model.weight.flatten().tolist()[:4] == [3.0, 2.0, 1.0, 0.0]
    with pytest.raises(tws.PlanError, match="write new_vocab_size=65"):
        tws.warm_start(torch.nn.Embedding(65, 1), settings)
    said = {"weight": tws.VocabInfo(tokens, 65, old_vocab=["c", "b", "a"])}
    rows = tws.warm_start(
        torch.nn.Embedding(65, 1), tws.WarmStartSettings(table, var_name_to_vocab_info=said)
    )["weight"].rows
    assert (rows.total, rows.vacant) == (65, 62)
