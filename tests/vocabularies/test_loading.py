"""Vocabulary files are bytes, lines end at a newline, and everything else is significant."""

from __future__ import annotations

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart import SettingsError, VocabularyError, generate_vocab_remapping
from torch_warmstart.vocabularies.loading import lines as vocab
from torch_warmstart.vocabularies.loading import read_entries as read_vocabulary

LINE = st.binary(min_size=1, max_size=6).filter(
    lambda line: b"\n" not in line and line != b"\r"  # a lone \r is a blank line
)


def _write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def _entries(vocabulary):
    return [vocabulary.entry(index) for index in range(len(vocabulary))]


@pytest.mark.parametrize(
    ("data", "entries"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\r\nb\r", [b"a", b"b"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"a\n\r", [b"a"]),  # a return alone behind the last newline is no line
        (b"a\n\r\r", [b"a", b"\r"]),
        (b"a\rb\n", [b"a\rb"]),
        (b" a\na \n\ta\n \n", [b" a", b"a ", b"\ta", b" "]),
        (b"c\x0bd\nc\x0cd\nc\x85d\n", [b"c\x0bd", b"c\x0cd", b"c\x85d"]),
        ("\ufeffa\nb\u2028c\n".encode(), ["\ufeffa".encode(), "b\u2028c".encode()]),
        (b"\xff\xfe\n\x00\n", [b"\xff\xfe", b"\x00"]),
    ],
)
def test_a_file_is_split_as_tensorflow_splits_it(tmp_path, data, entries, device):
    assert _entries(read_vocabulary(_write(tmp_path, "v", data), device)) == entries
    assert oracle.lines(data) == entries


@given(st.lists(LINE, min_size=1, max_size=20), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_any_file_is_split_as_the_loop_splits_it(tmp_path_factory, entries, ending, final):
    data = ending.join(entries) + (ending if final else b"")
    path = _write(tmp_path_factory.mktemp("vocab"), "v", data)
    assert _entries(read_vocabulary(path)) == oracle.lines(data)


def test_a_blank_line_is_an_error_that_says_where(tmp_path):
    path = _write(tmp_path, "v.txt", b"a\n\nb\n\n")
    with pytest.raises(VocabularyError, match=r"v\.txt: line 2 is blank \(2 are\)"):
        generate_vocab_remapping(path, ["a"])
    with pytest.raises(VocabularyError, match="line 2 is blank"):
        generate_vocab_remapping(["a"], path)


def test_a_file_of_one_return_is_a_blank_line(tmp_path):
    with pytest.raises(VocabularyError, match="line 1 is blank"):
        generate_vocab_remapping(_write(tmp_path, "v.txt", b"\r"), ["a"])


def test_old_lines_beyond_old_vocab_size_are_not_looked_at(tmp_path):
    path = _write(tmp_path, "v.txt", b"a\nb\n\na\n")
    rows, present = generate_vocab_remapping(["b", "a"], path, old_vocab_size=2)
    assert (rows.tolist(), present) == ([1, 0], 2)


def test_the_new_file_is_checked_to_its_end_as_tensorflow_does(tmp_path):
    path = _write(tmp_path, "v.txt", b"a\nb\n\n")
    with pytest.raises(VocabularyError, match="line 3 is blank"):
        generate_vocab_remapping(path, ["a"], num_new_vocab=1)


def test_a_repeated_old_entry_is_an_error_that_names_both_lines(tmp_path):
    path = _write(tmp_path, "v.txt", b"a\nb\nc\nb\n")
    with pytest.raises(VocabularyError, match=r"twice.*'b' \(line 2\) and 'b' \(line 4\)"):
        generate_vocab_remapping(["a"], path)


def test_a_repeated_new_entry_is_accepted_by_the_op_as_in_tensorflow():
    rows, present = generate_vocab_remapping(["a", "a", "x", "x"], ["a"])
    assert (rows.tolist(), present) == ([0, 0, -1, -1], 2)


@pytest.mark.parametrize(
    ("new", "old", "arguments", "rows", "present"),
    [
        ("kem", "kem", {"num_new_vocab": 3}, [0, 1, 2], 3),
        ("mke", "kem", {"num_new_vocab": 3}, [2, 0, 1], 3),
        ("mke", "kem", {"num_new_vocab": 1, "new_vocab_offset": 1}, [0], 1),
        ("mke", "kem", {"old_vocab_size": 2}, [-1, 0, 1], 2),
        ("mke", "kem", {"num_new_vocab": 0, "new_vocab_offset": 3}, [], 0),
    ],
)
def test_remapping_of_the_cases_of_tensorflows_own_op(new, old, arguments, rows, present, device):
    result = generate_vocab_remapping(list(new), list(old), device=device, **arguments)
    assert (result[0].tolist(), result[1]) == (rows, present)
    assert result[0].dtype == torch.int64
    assert result[0].device.type == device.type


def test_asking_for_more_new_entries_than_there_are_is_an_error():
    with pytest.raises(VocabularyError, match="Entries 1 to 4 are asked for.*has 3"):
        generate_vocab_remapping(list("abc"), ["a"], new_vocab_offset=1, num_new_vocab=3)


def test_negative_arguments_are_errors():
    with pytest.raises(SettingsError, match="at least 0"):
        generate_vocab_remapping(["a"], ["a"], new_vocab_offset=-1)
    with pytest.raises(SettingsError, match="at least 0"):
        generate_vocab_remapping(["a"], ["a"], old_vocab_size=-2)


def test_too_large_an_old_vocab_size_is_an_error():
    with pytest.raises(VocabularyError, match=r"old_vocab_size=5, but the list.* has only 2"):
        generate_vocab_remapping(["a"], ["a", "b"], old_vocab_size=5)


def test_each_error_of_an_empty_file_is_one_of_its_own(tmp_path):
    path = _write(tmp_path, "v.txt", b"")
    with pytest.raises(VocabularyError) as first:
        generate_vocab_remapping(path, ["a"])
    with pytest.raises(VocabularyError) as second:
        generate_vocab_remapping(path, ["a"])
    assert first.value is not second.value


def test_an_empty_or_missing_file_is_an_error(tmp_path):
    with pytest.raises(VocabularyError, match=r"v\.txt is empty"):
        generate_vocab_remapping(_write(tmp_path, "v.txt", b""), ["a"])
    with pytest.raises(VocabularyError, match=r"none\.txt cannot be read"):
        generate_vocab_remapping(str(tmp_path / "none.txt"), ["a"])
    with pytest.raises(VocabularyError, match="at least one entry"):
        generate_vocab_remapping([], ["a"])


@pytest.mark.parametrize(
    "ids", [[3, 1, 2], (3, 1, 2), torch.tensor([3, 1, 2]), torch.tensor([3, 1, 2]).numpy()]
)
def test_ids_may_come_as_any_sequence(ids):
    rows, present = generate_vocab_remapping(ids, [1, 2])
    assert (rows.tolist(), present) == ([-1, 0, 1], 2)


def test_str_and_bytes_are_the_same_text():
    rows, _ = generate_vocab_remapping(["é", "b"], [b"b", "é".encode()])
    assert rows.tolist() == [1, 0]


def test_a_path_may_be_a_pathlib_path(tmp_path):
    _write(tmp_path, "v.txt", b"b\na\n")
    rows, _ = generate_vocab_remapping(["a"], tmp_path / "v.txt")
    assert rows.tolist() == [1]


def test_mixed_kinds_are_errors():
    with pytest.raises(VocabularyError, match="all str, all bytes or all int.*holds int, str"):
        generate_vocab_remapping(["a", 1], ["a"])
    with pytest.raises(VocabularyError, match="holds text and.*integers"):
        generate_vocab_remapping(["a"], [1])
    with pytest.raises(VocabularyError, match="vector of integer ids, not torch.float32"):
        generate_vocab_remapping(torch.rand(3), [1])


def test_a_vocabulary_may_be_a_url():
    import fsspec

    with fsspec.open("memory://vocab/v.txt", "wb") as file:
        file.write(b"b\na\n")
    rows, present = generate_vocab_remapping("memory://vocab/v.txt", ["a", "b"])
    assert (rows.tolist(), present) == ([1, 0], 2)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
@pytest.mark.parametrize(
    ("data", "line"),
    [(b"\na\n", 1), (b"a\n\nb", 2), (b"a\nb\n\n", 3), (b"abc\r\n\r\nd\n", 2), (b"a\n\r\n", 2)],
)
def test_a_blank_line_is_found_wherever_the_file_is_cut(tmp_path, monkeypatch, size, data, line):
    monkeypatch.setattr(vocab, "_BLOCK", size)
    with pytest.raises(VocabularyError, match=f"line {line} is blank"):
        generate_vocab_remapping(["a"], _write(tmp_path, "v.txt", data))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
def test_a_file_without_blank_lines_is_known_to_have_none(tmp_path, monkeypatch, size):
    monkeypatch.setattr(vocab, "_BLOCK", size)
    vocabulary = read_vocabulary(_write(tmp_path, "v.txt", b"a\nbc\r\ndef"))
    assert _entries(vocabulary) == [b"a", b"bc", b"def"]
    assert not vocabulary.may_be_blank
