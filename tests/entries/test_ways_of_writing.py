"""Which way a vocabulary writes its tokens, told from its entries."""

import pytest

from torch_warmstart.entries import way_of_writing

LETTERS = [chr(0x4E00 + at).encode() for at in range(1_000)]  # words of one letter, with no space


@pytest.mark.parametrize(
    ("begun", "way"),
    [("▁", "sentencepiece"), ("Ġ", "byte_level"), ("##", "wordpiece")],
    ids=["sentencepiece", "byte_level", "wordpiece"],
)
def test_a_few_tokens_in_a_thousand_tell_as_where_words_are_not_parted(begun, way):
    assert way_of_writing([*LETTERS, *(f"{begun}{at}".encode() for at in range(6))]) == way


def test_fewer_may_be_anything_as_hashtags_are():
    assert way_of_writing([*LETTERS, b"##1", b"##2", b"##3"]) == ""


def test_the_way_of_most_is_taken_and_one_is_enough_where_the_caller_says_so():
    assert way_of_writing(["▁a".encode(), "▁b".encode(), "Ġc".encode()]) == "sentencepiece"
    assert way_of_writing([*LETTERS, "Ġc".encode()], 0) == "byte_level"
    assert way_of_writing([], 0) == ""
