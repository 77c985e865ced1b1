"""Tokens with spaces in them, in tables of vectors whose writers do not mind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_warmstart as tws
from torch_warmstart.formats.arrays import word2vec_rows
from torch_warmstart.formats.arrays.text_vectors import VectorTable

TITLES = ["Toy Story", "Heat", "Se7en", "Apollo 13", "The Lord of the Rings", "a b", "Amélie", "x"]


def normal(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, size=(rows, dimension)).astype("<f4")


def binary(tokens: list[bytes], vectors: np.ndarray, end: bytes = b"") -> bytes:
    """As gensim writes it; with newlines, as the original program does."""
    rows = (t + b" " + v.tobytes() + end for t, v in zip(tokens, vectors, strict=True))
    return b"%d %d\n" % vectors.shape + b"".join(rows)


def text(tokens: list[str], vectors: np.ndarray) -> str:
    rows = (f"{t} {' '.join(map(str, v))}" for t, v in zip(tokens, vectors.tolist(), strict=True))
    return "".join(row + "\n" for row in rows)


def read(path: Path, data: bytes) -> VectorTable:
    path.write_bytes(data)
    table = tws.load_checkpoint(path)
    assert isinstance(table, VectorTable)
    return table


# -- word2vec's binary format ----------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("dimension", [5, 50, 300])
def test_tokens_of_a_binary_table_may_have_spaces(
    tmp_path: Path, dimension: int, end: bytes
) -> None:
    tokens = [title.encode() for title in TITLES * 40]
    vectors = normal(len(tokens), dimension)
    vectors[::5] = 0
    table = read(tmp_path / "v.bin", binary(tokens, vectors, end))
    assert table.vocabulary == tokens
    assert table.get_tensor("vectors").numpy().tolist() == vectors.tolist()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_token_with_a_space_is_found_wherever_it_is(tmp_path: Path, at: int) -> None:
    for seed in range(50):
        vectors = normal(3, 8, seed)
        for token in (
            b"Toy Story",
            b"a b",
            b"x Heat",
            b"Toy Cat",
            b"Le Fabuleux Destin d'Am\xc3\xa9lie",
        ):
            tokens = [b"first", b"second", b"third"]
            tokens[at] = token
            table = read(tmp_path / "v.bin", binary(tokens, vectors))
            assert table.vocabulary == tokens
            assert table.get_tensor("vectors").numpy().tolist() == vectors.tolist()


@given(
    words=st.lists(
        st.lists(st.text("aZ3é.-", min_size=1, max_size=6), min_size=1, max_size=5),
        min_size=1,
        max_size=40,
    ),
    dimension=st.integers(1, 40),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=200, deadline=None)
def test_a_binary_table_is_read_right_or_refused(words, dimension, seed, tmp_path_factory) -> None:
    tokens = [" ".join(parts).encode() for parts in words]
    vectors = normal(len(tokens), dimension, seed)
    data = binary(tokens, vectors)
    raw = np.frombuffer(data, dtype=np.uint8)
    first = data.index(b"\n") + 1
    right = first - 4 * dimension
    expected = [right := right + 4 * dimension + len(token) + 1 for token in tokens]
    try:
        found = word2vec_rows.find_vectors(raw, first, len(tokens), dimension)
    except ValueError as error:
        found, told = None, str(error)
    if found is None:
        assert dimension < 8, told
    else:
        assert found.tolist() == expected


def test_a_row_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """One number has no other to be in line with."""
    path = tmp_path / "v.bin"
    path.write_bytes(b"2 1\na " + b"ab b" + b"b " + b"abcd")
    message = "row 0 can be read with and without a space in its token, .* save the table as text"
    with pytest.raises(tws.CorruptCheckpointError, match=message):
        tws.load_checkpoint(path, format="word2vec-bin")


@pytest.mark.parametrize("behind", [b"\n\n", b"x", b" ", b"\0" * 24])
def test_bytes_behind_the_last_vector_are_corruption(tmp_path: Path, behind: bytes) -> None:
    path = tmp_path / "v.bin"
    data = binary([b"one", b"two"], normal(2, 5))
    path.write_bytes(data + behind)
    told = f"it has 2 vectors and {len(behind)} bytes? behind the last vector"
    with pytest.raises(tws.CorruptCheckpointError, match=told):
        tws.load_checkpoint(path)
    for allowed in (b"", b"\n"):
        assert read(path, data + allowed).vocabulary == [b"one", b"two"]


def test_a_table_whose_vectors_happen_to_begin_like_text_is_read(tmp_path: Path) -> None:
    vectors = normal(500, 20)
    for row, beginning in enumerate(
        [b"a \0\x3e", b"Story \xa0\x3e", b" ab\x3e", b"abc\x3dab \x3d"]
    ):
        vectors[row * 7].view(np.uint8)[: len(beginning)] = np.frombuffer(beginning, np.uint8)
    tokens = [b"word%d" % row for row in range(500)]
    table = read(tmp_path / "v.bin", binary(tokens, vectors))
    assert table.vocabulary == tokens
    assert table.get_tensor("vectors").numpy().tolist() == vectors.tolist()


def test_tokens_that_are_no_text_are_read_as_before(tmp_path: Path) -> None:
    tokens = [b"caf\xe9", b"\x01\x02", b"plain"]
    vectors = np.array([[np.nan] * 4, [1e-42, 1e38, 0, -1], [0, 0, 0, 0]], dtype="<f4")
    table = read(tmp_path / "v.bin", binary(tokens, vectors))
    assert table.vocabulary == tokens
    assert np.array_equal(table.get_tensor("vectors").numpy(), vectors, equal_nan=True)


def test_a_table_of_no_numbers_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "v.bin").write_bytes(b"3 0\na b c ")
    with pytest.raises(tws.CorruptCheckpointError, match="does not begin with a count and a"):
        tws.load_checkpoint(tmp_path / "v.bin", format="word2vec-bin")


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "8 4\n"])
def test_tokens_of_a_text_table_may_have_spaces_and_end_with_a_number(
    tmp_path: Path, header: str
) -> None:
    vectors = normal(8, 4)
    table = read(tmp_path / "v.txt", (header + text(TITLES, vectors)).encode())
    assert table.vocabulary == [title.encode() for title in TITLES]
    assert table.get_tensor("vectors").numpy().tolist() == vectors.tolist()


@pytest.mark.parametrize("header", ["", "2 3\n"])
def test_every_token_of_a_text_table_may_have_spaces(tmp_path: Path, header: str) -> None:
    vectors = normal(2, 3)
    table = read(tmp_path / "v.txt", (header + text(["Toy Story", "a b c"], vectors)).encode())
    assert table.vocabulary == [b"Toy Story", b"a b c"]
    assert table.get_tensor("vectors").numpy().tolist() == vectors.tolist()


def test_a_number_too_many_is_no_part_of_a_token(tmp_path: Path) -> None:
    for line in ("word 0.5 0.25 0.125 -0.5", "word 5 1 2 3", "word -7 0.25 0.125 -0.5"):
        path = tmp_path / "v.txt"
        path.write_text("2 3\none 0.1 0.2 0.3\n" + line + "\n")
        with pytest.raises(tws.CorruptCheckpointError, match="3: 3 numbers are expected, 4 found"):
            tws.load_checkpoint(path).get_tensor("vectors")
