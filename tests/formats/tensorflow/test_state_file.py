"""The `checkpoint` state file: what of protobuf's text format is understood, and what is not."""

from __future__ import annotations

import pytest
from formats_helpers import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.tensorflow.state_file import parse_state


def latest(text: str | bytes) -> str | None:
    path, _ = parse_state(text.encode() if isinstance(text, str) else text, "dir/checkpoint")
    return path


def test_the_latest_and_all_paths_are_read() -> None:
    text = (
        b'model_checkpoint_path: "model.ckpt-7"\n'
        b'all_model_checkpoint_paths: "model.ckpt-6"\n'
        b'all_model_checkpoint_paths: "model.ckpt-7"\n'
        b"all_model_checkpoint_timestamps: 1700000000.25\n"
        b"all_model_checkpoint_timestamps: 1.7e+09\n"
        b"last_preserved_timestamp: -1\n"
    )

    assert parse_state(text, "checkpoint") == ("model.ckpt-7", ("model.ckpt-6", "model.ckpt-7"))


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("name_based", ("model.ckpt-7", ("model.ckpt-6", "model.ckpt-7"))),
        ("object_based", ("ckpt-1", ("ckpt-1",))),
        ("partitioned", ("model.ckpt", ("model.ckpt",))),
    ],
)
def test_state_files_tensorflow_wrote_are_read(
    folder: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    assert parse_state((FIXTURES / folder / "checkpoint").read_bytes(), "checkpoint") == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("model_checkpoint_path: 'single'", "single"),
        ("model_checkpoint_path: 'it is \"it\"'", 'it is "it"'),
        ('# a comment\nmodel_checkpoint_path: "x" # another "one"\n#', "x"),
        ('model_checkpoint_path: "with # inside"', "with # inside"),
        ('model_checkpoint_path: "crlf"\r\nall_model_checkpoint_paths: "b"\r\n', "crlf"),
        (r'model_checkpoint_path: "\344\270\255\346\226\207"', "中文"),
        (r'model_checkpoint_path: "\xe4\xB8\xad"', "中"),
        ('model_checkpoint_path: "中文 and space"', "中文 and space"),
        (r'model_checkpoint_path: "a\\b\"c\'d\te\n\?"', "a\\b\"c'd\te\n?"),
        (r'model_checkpoint_path: "\0601"', "01"),  # three octal digits, then a 1
        ('model_checkpoint_path: "model" ".ckpt" \'-1\'', "model.ckpt-1"),
        ('model_checkpoint_path: "model"\n  # between\n  ".ckpt"', "model.ckpt"),
        ('model_checkpoint_path: "a"; all_model_checkpoint_paths: "b";', "a"),
        ('model_checkpoint_path: "a", all_model_checkpoint_paths: "b"', "a"),
        ('model_checkpoint_path: "first"\nmodel_checkpoint_path: "last"', "last"),
        ('model_checkpoint_path:"tight"all_model_checkpoint_paths:"b"', "tight"),
        ('  model_checkpoint_path :\n\t"spread"  ', "spread"),
        ('model_checkpoint_path: "./x"', "./x"),
        ('model_checkpoint_path: "C:\\\\models\\\\x"', "C:\\models\\x"),
        ('model_checkpoint_path: "gs://bucket/model.ckpt-1"', "gs://bucket/model.ckpt-1"),
        ('model_checkpoint_path: ""', None),
        ("", None),
        ("# only a comment", None),
        ('all_model_checkpoint_paths: "old"', None),
    ],
)
def test_what_the_text_format_allows_is_understood(text: str, path: str | None) -> None:
    assert latest(text) == path


def test_a_path_that_is_no_utf8_survives() -> None:
    assert latest(b'model_checkpoint_path: "caf\xe9"') == "caf\udce9"
    assert latest(rb'model_checkpoint_path: "caf\351"') == "caf\udce9"


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("\ufeffmodel_checkpoint_path: 'x'", 1, r"\"\\ufeffmodel_checkpoint_path"),
        ("model_checkpoint_path: 'x'\nunknown_field: 1", 2, "'unknown_field: 1'"),
        ("model_checkpoint_path: 'x", 1, '"\'x"'),
        ("# one\n# two\nmodel_checkpoint_path: x", 3, "'x'"),
        ("model_checkpoint_path: 'x\ny'", 1, '"\'x"'),
        ("model_checkpoint_path: 5", 1, "'5'"),
        ("model_checkpoint_path:", 1, "''"),
        ("model_checkpoint_path 'x'", 1, "\"model_checkpoint_path 'x'\""),
        ("last_preserved_timestamp: 'x'", 1, "\"'x'\""),
        ("{}", 1, "'{}'"),
        ("model_checkpoint_path: 'x'\n\n<html>", 3, "'<html>'"),
        ("\n\x05model", 2, r"'\\x05model'"),
        ("\0\0\0", 1, r"'\\x00"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, line: int, found: str) -> None:
    message = rf"^dir/checkpoint, line {line}: expected a field of CheckpointState .* found {found}"
    with pytest.raises(CorruptCheckpointError, match=message):
        latest(text)


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(
        CorruptCheckpointError, match="Delete this file or name the checkpoint's pre"
    ):
        latest("nonsense")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_state_or_an_error_of_ours(text: bytes) -> None:
    for data in (text, b'model_checkpoint_path: "' + text + b'"'):
        try:
            path, _ = parse_state(data, "checkpoint")
        except CorruptCheckpointError:
            continue
        assert path is None or isinstance(path, str)


@pytest.mark.parametrize(
    "text",
    [
        "m" * 1_000_000,
        "model_checkpoint_path: '" + "\\" * 1_000_000,
        "#" * 1_000_000,
        ";" * 1_000_000 + "!",
        "model_checkpoint_path: " + "''" * 300_000 + "!",
        " " * 1_000_000 + "x",
    ],
    ids=["name", "backslashes", "comment", "separators", "strings", "spaces"],
)
def test_a_megabyte_of_nonsense_is_read_in_no_time(text: str) -> None:
    try:
        answer = latest(text) or ""
    except CorruptCheckpointError as error:
        answer = str(error)
    assert len(answer) < 500
