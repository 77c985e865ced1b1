"""Embedding tables as text and in word2vec's binary format."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torch_warmstart as tw
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.arrays import text_vectors

TOKENS = [b"the", b",", b"caf\xe9", b"\xc3\xa9", b". . .", b"-1.5", b"at name@domain.com"]
VECTORS = np.random.default_rng(0).normal(size=(len(TOKENS), 4)).astype(np.float32)


def lines(tokens: list[bytes] = TOKENS, vectors: Any = VECTORS, end: bytes = b"\n") -> bytes:
    rows = (
        t + b" " + b" ".join(b"%.9g" % x for x in v.tolist())
        for t, v in zip(tokens, vectors, strict=True)
    )
    return b"".join(row + end for row in rows)


def binary(end: bytes = b"\n", tokens: list[bytes] = TOKENS) -> bytes:
    named = [token.replace(b" ", b"_") for token in tokens]
    rows = (t + b" " + v.tobytes() + end for t, v in zip(named, VECTORS, strict=True))
    return b"%d %d\n" % VECTORS.shape + b"".join(rows)


def at(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- Text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"7 4\n", b"7 4 \r\n"])
@pytest.mark.parametrize("end", [b"\n", b" \n", b"\r\n", b" \r\n"])
def test_tokens_and_vectors_are_read(tmp_path: Path, first: bytes, end: bytes) -> None:
    with tw.load_checkpoint(at(tmp_path / "v.txt", first + lines(end=end))) as checkpoint:
        assert (checkpoint.family, list(checkpoint)) == ("torch", ["vectors"])
        assert isinstance(checkpoint, text_vectors.TextVectors)
        assert checkpoint.vocabulary == TOKENS
        assert checkpoint.get_tensor("vectors").numpy().tolist() == VECTORS.tolist()
        rows = torch.tensor([6, 0, 6, 3])
        some = checkpoint.get_tensor("vectors", rows)
        assert some.numpy().tolist() == VECTORS[[6, 0, 6, 3]].tolist()
        assert checkpoint.get_tensor("vectors", rows[:0]).shape == (0, 4)


def test_the_last_newline_may_be_missing(tmp_path: Path) -> None:
    checkpoint = tw.load_checkpoint(at(tmp_path / "v.txt", lines()[:-1]))

    assert checkpoint.get_tensor("vectors").numpy().tolist() == VECTORS.tolist()


def test_a_table_of_many_blocks_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "_BLOCK", 100)
    vectors = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    tokens = [b"t%d" % i for i in range(300)]
    checkpoint = tw.load_checkpoint(at(tmp_path / "v.txt", lines(tokens, vectors)))

    assert isinstance(checkpoint, text_vectors.TextVectors)
    assert checkpoint.vocabulary == tokens
    assert checkpoint.get_tensor("vectors").numpy().tolist() == vectors.tolist()
    some = checkpoint.get_tensor("vectors", torch.arange(299, -1, -1))
    assert some.numpy().tolist() == vectors[::-1].tolist()


def test_no_filter_of_warnings_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all threads': one that puts them back may take another's away for good."""
    path = at(tmp_path / "vectors.txt", lines())
    with tw.load_checkpoint(path) as checkpoint, monkeypatch.context() as patched:
        patched.delattr("warnings.catch_warnings")
        assert checkpoint.get_tensor("vectors").tolist() == VECTORS.tolist()


def test_a_remote_table_is_read() -> None:
    for name, data in (("v.txt", lines()), ("v.bin", binary())):
        url = f"memory://{uuid.uuid4().hex}/{name}"
        fsspec.filesystem("memory").pipe(url, data)

        assert tw.load_checkpoint(url).get_tensor("vectors").numpy().tolist() == VECTORS.tolist()


def test_an_embedding_is_warm_started_from_glove(tmp_path: Path) -> None:
    glove = tw.load_checkpoint(at(tmp_path / "glove.txt", lines()))
    assert isinstance(glove, text_vectors.TextVectors)
    model = nn.Sequential(nn.Embedding(4, 4))
    new_vocab = [b"\xc3\xa9", b"new", b"the", b". . ."]
    settings = tw.WarmStartSettings(
        glove,
        var_name_to_vocab_info={"0.weight": tw.VocabInfo(new_vocab, 4, 0, glove.vocabulary)},
        var_name_to_prev_var_name={"0.weight": "vectors"},
    )
    tw.warm_start(model, settings)

    expected = VECTORS[[3, 0, 0, 4]]
    expected[1] = 0
    assert model[0].weight.detach().numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        (b"", "it is blank"),
        (b"word 1 2 3", "4 numbers are expected, 3 found"),
        (b"word 1 2 3 4 5", "4 numbers are expected, 5 found"),
        (b"word", "4 numbers are expected, 0 found"),
        (b"word 1 nan 3 4", "'nan' is no finite number"),
        (b"word 1 2 inf 4", "'inf' is no finite number"),
        (b"word 1 2 1e99 4", "'1e99' is no finite number"),
        (b"word 1 2-3 4 5", "'2-3' is no finite number"),
        (b"word 1 - 3 4", "'-' is no finite number"),
        (b"word 1  3 4", "'' is no finite number"),
        (b"word 1 2\t3 4 5", r"'2\\t3' is no finite number"),
        (b"word 1 2 3 4\0", r"'4\\x00' is no finite number"),
        (b"word 1 0x2 3 4", "'0x2' is no finite number"),
        (b"word 1 2e 3 4", "'2e' is no finite number"),
    ],
)
@pytest.mark.parametrize("first", [b"", b"41 4\n"])
def test_a_bad_line_is_told_by_its_number(
    tmp_path: Path, line: bytes, fact: str, first: bytes
) -> None:
    good = lines([b"t"] * 40, np.ones((40, 4)))
    data = good[: len(good) // 4 * 3] + line + b"\n" + good[len(good) // 4 * 3 :]
    path = at(tmp_path / "v.txt", first + data)
    number = 31 + bool(first)  # the sniffer does not look as far

    checkpoint = tw.load_checkpoint(path)
    with pytest.raises(CorruptCheckpointError, match=rf"{path}: line {number}: {fact}\.$"):
        checkpoint.get_tensor("vectors")
    with pytest.raises(CorruptCheckpointError, match=f"line {number}: {fact}"):
        checkpoint.get_tensor("vectors", torch.tensor([40, 30]))
    assert checkpoint.get_tensor("vectors", torch.tensor([40])).tolist() == [[1.0] * 4]


def test_a_first_line_that_promises_more_is_told(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpointError, match="promises 9 vectors, but it has 7"):
        tw.load_checkpoint(at(tmp_path / "v.txt", b"9 4\n" + lines()))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it has no line of text"),
        (b"hello\n", "not a token and two or more numbers each"),
        (b"the quick brown fox\n", "line 1 is not a token and 3 numbers"),
        (b"a 1 2 3\nb 1 2 3\nc 1 2\n", "line 3 is not a token and 3 numbers"),
        (b"a 1 2\nb 1 x\n", "line 2 is not a token and 2 numbers"),
        (b"a 1\nb 2\n", "not a token and two or more numbers each"),
        (b"7 4\n", "it has no line of text"),
        (b"a 1 \0 2\n", "it is not text"),
    ],
)
def test_other_text_is_no_table(tmp_path: Path, data: bytes, reason: str) -> None:
    by_itself = f"text file of vectors: .*{reason}" if data else "is empty: 0 bytes"
    with pytest.raises(CorruptCheckpointError, match=by_itself):
        tw.load_checkpoint(at(tmp_path / "v.txt", data))
    with pytest.raises(CorruptCheckpointError, match=reason):
        tw.load_checkpoint(at(tmp_path / "v.txt", data), format="text-vectors")


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=8).filter(lambda t: not set(t) & set(b"\n\0 ")),
            st.lists(
                st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
            ),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_whatever_is_written_is_read(tmp_path_factory: Any, rows: Any) -> None:
    tokens = [token for token, _ in rows]
    vectors = np.array([vector for _, vector in rows], dtype=np.float32)
    path = tmp_path_factory.mktemp("text") / "v.txt"
    path.write_bytes(b"%d 3\n" % len(rows) + lines(tokens, vectors))
    checkpoint = tw.load_checkpoint(path)

    assert isinstance(checkpoint, text_vectors.TextVectors)
    assert checkpoint.vocabulary == tokens
    assert checkpoint.get_tensor("vectors").numpy().tolist() == vectors.tolist()


# ---- word2vec's binary format ----------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_binary_table_is_read(tmp_path: Path, end: bytes) -> None:
    checkpoint = tw.load_checkpoint(at(tmp_path / "v.bin", binary(end)))

    assert checkpoint.format == "word2vec binary file"
    assert isinstance(checkpoint, text_vectors.VectorTable)
    assert checkpoint.vocabulary == [token.replace(b" ", b"_") for token in TOKENS]
    assert checkpoint.get_tensor("vectors").numpy().tolist() == VECTORS.tolist()
    some = checkpoint.get_tensor("vectors", torch.tensor([6, 1, 6]))
    assert some.numpy().tolist() == VECTORS[[6, 1, 6]].tolist()


def test_a_binary_table_that_lies_is_told(tmp_path: Path) -> None:
    data = binary()
    for contents in (
        b"9999999999 4" + data[3:],
        data[:-30],
        data[:4] + bytes(len(data) - 4),  # no space ever
    ):
        path = at(tmp_path / "v.bin", contents)
        with pytest.raises(CorruptCheckpointError):
            tw.load_checkpoint(path)
        with pytest.raises(CorruptCheckpointError):
            tw.load_checkpoint(path, format="word2vec-bin")
