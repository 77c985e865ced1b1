"""What is written is there whole or not at all, whoever writes it."""

from __future__ import annotations

import errno
import os
import stat

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.storage import whole_file
from torch_warmstart.storage.whole_files import beside


def _vocabulary():
    return tws.Vocabulary.load(["a", "b", "c"])


def _page(path):
    tws.plan_warm_start(nn.Linear(2, 2), nn.Linear(2, 2)).to_html(path)


def _by_storage(path):
    with whole_file(str(path), force=True) as file:
        file.write(b"text")


WRITERS = {
    "vocabulary": lambda path: _vocabulary().save(f"{path}.vocab"),
    "parquet": lambda path: _vocabulary().save(f"{path}.parquet"),
    "tsv": lambda path: _vocabulary().save(f"{path}.tsv"),
    "page": lambda path: _page(f"{path}.html"),
    "storage": lambda path: _by_storage(f"{path}.bin"),
    "settings": lambda path: tws.save_settings(f"{path}.toml", tws.WarmStartSettings("model_dir")),
}
_ENDING = {
    **{"vocabulary": ".vocab", "parquet": ".parquet", "tsv": ".tsv"},
    **{"page": ".html", "storage": ".bin", "settings": ".toml"},
}


@pytest.fixture(params=WRITERS)
def writer(request, tmp_path):
    """Writes one of several kinds of files, and where it does."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return WRITERS[request.param], tmp_path / "f", tmp_path / f"f{_ENDING[request.param]}"


def test_a_full_disk_leaves_what_was_there_and_nothing_else(writer, monkeypatch, tmp_path):
    write, path, file = writer
    file.write_text("before")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(tws.SettingsError, match="cannot be written: No space left on device"):
        write(path)
    assert os.listdir(tmp_path) == [file.name]
    assert file.read_text() == "before"


def test_a_folder_that_is_not_there_is_told_by_the_path_that_was_given(writer, tmp_path):
    write, _, file = writer
    with pytest.raises(tws.SettingsError, match=f"gone/f{file.suffix} cannot be written: "):
        write(tmp_path / "gone" / "f")


def test_what_is_written_may_be_read_by_those_who_may_read_others_files(writer):
    write, path, file = writer
    file.write_text("before")
    mask = os.umask(0o022)
    try:
        write(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_is_new_has_the_rights_of_any_new_file(writer, mask, monkeypatch):
    """And nobody changes the umask meanwhile, which is that of all threads."""
    write, path, file = writer
    before, asked = os.umask(mask), []
    try:
        monkeypatch.setattr("os.umask", lambda mode: asked.append(mode) or mask)
        write(path)
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert not asked


def test_a_name_may_be_as_long_as_any(tmp_path):
    name = "\U0001f600" * 62 + ".v"  # 250 bytes
    _vocabulary().save(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_what_is_replaced_keeps_its_rights(writer, mode):
    write, path, file = writer
    file.write_text("before")
    file.chmod(mode)
    write(path)
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="there is no /proc")
def test_what_no_file_can_replace_is_written_to_itself(writer, tmp_path):
    """A pipe, and a file that is open already, by its descriptor and by a link to that."""
    write, path, file = writer
    with open(tmp_path / "open", "w+b") as opened:
        file.symlink_to(f"/proc/self/fd/{opened.fileno()}")
        write(path)
        assert file.is_symlink()
        assert opened.seek(0, os.SEEK_END) > 0
        with beside(f"/dev/fd/{opened.fileno()}") as written:
            assert written == f"/dev/fd/{opened.fileno()}"
    os.mkfifo(tmp_path / "pipe")
    with beside(str(tmp_path / "pipe")) as written:
        assert written == str(tmp_path / "pipe")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_device_stays_what_it_is(tmp_path):
    before = os.stat(os.devnull)
    _page(os.devnull)
    with pytest.raises(tws.SettingsError, match="No space left on device"):
        _page("/dev/full")
    _by_storage(os.devnull)
    after = os.stat(os.devnull)
    assert (after.st_ino, after.st_rdev, after.st_mode) == (
        before.st_ino,
        before.st_rdev,
        before.st_mode,
    )
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_link_that_lies_where_others_guess_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("another's")
    (tmp_path / f"v.{os.getpid()}.part").symlink_to(other)
    _vocabulary().save(tmp_path / "v")
    assert other.read_text() == "another's"
    assert tws.Vocabulary.load(tmp_path / "v").fingerprint == _vocabulary().fingerprint


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted():
        with beside(str(tmp_path / "f")) as written:
            assert os.path.exists(written)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_no_path_has_null_bytes(tmp_path):
    with pytest.raises(tws.SettingsError, match="null bytes"):
        _vocabulary().save(f"{tmp_path}/a\0b")


def test_threads_that_write_one_file_leave_one_of_theirs(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    made = [tws.Vocabulary.load(torch.arange(at, at + 1000)) for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda one: one.save(tmp_path / "v"), made))
    assert tws.Vocabulary.load(tmp_path / "v").fingerprint in {one.fingerprint for one in made}
    assert os.listdir(tmp_path) == ["v"]
