"""Whatever lies where a rules file should be, the error is ours and names it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import torch_warmstart as tws
from torch_warmstart.settings.rules_file import Line, write_rules

DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "[names]\na = " + "[" * DEEP + "]" * DEEP,
        "[names]\na = " + "{b=" * DEEP + "1" + "}" * DEEP,
        "[names." + ".".join("a" * 2_000) + "]",
        "names." + ".".join("a" * 2_000) + " = 1",
        "[patterns]\n'" + "(" * DEEP + ")" * DEEP + "' = 'b'",
    ],
    ids=["lists", "tables", "headers", "keys", "groups"],
)
def test_deep_nesting_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(tws.SettingsError, match=r"rules\.toml|group|recursion|nested"):
        tws.load_rules(tmp_path / "rules.toml")


@pytest.mark.parametrize(
    "content",
    [b"[names]\na = " + b"9" * 5000, b"\xff\xfe[names]", b"\0", b"[names", b"[names]\na = 5"],
)
def test_what_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rules.toml").write_bytes(content)
    with pytest.raises(tws.SettingsError, match=r"rules\.toml|'a'"):
        tws.load_rules(tmp_path / "rules.toml")


def make_directory(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_unreadable(path: Path) -> None:
    path.write_text("[names]")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")


@pytest.mark.parametrize("make", [make_directory, make_loop, make_unreadable, lambda path: None])
def test_a_path_that_cannot_be_read_is_told(tmp_path: Path, make) -> None:
    path = tmp_path / "rules.toml"
    make(path)
    with pytest.raises(tws.SettingsError, match=rf"Rules file {path} cannot be read: "):
        tws.load_rules(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_path_that_cannot_be_is_told(name: str) -> None:
    with pytest.raises(tws.SettingsError, match="cannot be read"):
        tws.load_rules(name)


@pytest.mark.parametrize(
    ("name", "why"), [(".", "is a directory"), ("no/such/rules.toml", "there is no directory")]
)
def test_a_path_that_cannot_be_written_is_told(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(tws.SettingsError, match=why):
        write_rules(tmp_path / name, [Line("names", "a", "b")])


def test_rules_that_cannot_be_finished_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("before")
    monkeypatch.setattr("os.fsync", _full_disk)
    with pytest.raises(tws.SettingsError, match="No space left on device. Nothing is left of it"):
        write_rules(path, [Line("names", "a", "b")])
    assert [each.name for each in tmp_path.iterdir()] == ["rules.toml"]
    assert path.read_text() == "before"


def _full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_never_ends_is_told() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero here")
    with pytest.raises(tws.SettingsError, match="/dev/zero is no rules file: it is above"):
        tws.load_rules("/dev/zero")
