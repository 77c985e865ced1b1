"""Where a checkpoint is, whatever the user pointed at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_writer import write_bundle
from formats_helpers import FIXTURES, float_entry

import torch_warmstart as tw
from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    SettingsError,
)


def save(prefix: Path, size: int = 2) -> None:
    """A checkpoint that is told by the size of its only tensor."""
    write_bundle(prefix, [float_entry("x", size)])


def state(directory: Path, latest: str) -> None:
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{latest}"\n')


def found(source: str | os.PathLike[str]) -> str:
    """The prefix that is opened; the tensor is read, so it is one that works."""
    with tw.load_checkpoint(source) as checkpoint:
        assert checkpoint.get_tensor("x").tolist() == list(range(checkpoint.spec("x").numel))
        return checkpoint.url


# ---- One checkpoint, named in many ways ------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A checkpoint with all its files, in a directory of its own."""
    prefix = tmp_path / "run" / "model.ckpt-5"
    save(prefix)
    Path(f"{prefix}.meta").write_bytes(b"\x0a\x04meta")
    state(prefix.parent, "model.ckpt-5")
    return prefix


@pytest.mark.parametrize(
    "spelling",
    [
        lambda p: p,
        Path,
        lambda p: p + ".index",
        lambda p: p + ".meta",
        lambda p: p + ".data-00000-of-00001",
        os.path.dirname,
        lambda p: os.path.dirname(p) + "/",
        lambda p: Path(p).parent,
        lambda p: os.path.join(os.path.dirname(p), "checkpoint"),
    ],
    ids=[
        "prefix",
        "pathlib prefix",
        "index",
        "meta",
        "data",
        "directory",
        "trailing slash",
        "pathlib directory",
        "state file",
    ],
)
def test_every_way_to_name_a_checkpoint_finds_it(
    prefix: Path, spelling: Callable[[str], str | Path]
) -> None:
    assert found(spelling(str(prefix))) == str(prefix)


@pytest.mark.parametrize("name", [".", "", "./", "../run", "checkpoint", "model.ckpt-5"])
def test_relative_paths_are_relative_to_the_working_directory(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(prefix.parent)
    if not name:
        with pytest.raises(SettingsError, match="must be a non-empty str, not ''"):
            found(name)
    else:
        assert os.path.abspath(found(name)) == str(prefix)


@pytest.mark.parametrize(
    "name",
    [
        "we[i]rd*?",
        "with space",
        "模型-中文",
        "-3800",
        "checkpoint",
        "model.index",
        "a.data-00000-of-00001",
        "{brace}%20~$HOME",
        "new\nline",
        ".hidden",
    ],
)
@pytest.mark.parametrize("how", ["prefix", "index", "data", "directory", "in such a directory"])
def test_unusual_names_are_ordinary_names(tmp_path: Path, name: str, how: str) -> None:
    directory = tmp_path / name if how == "in such a directory" else tmp_path
    save(directory / name)
    path = {
        "prefix": f"{directory / name}",
        "index": f"{directory / name}.index",
        "data": f"{directory / name}.data-00000-of-00001",
        "directory": str(directory),
        "in such a directory": str(directory),
    }[how]

    assert found(path) == str(directory / name)


@pytest.mark.parametrize("first", [b"\x80\x02", b"PK\x03\x04", bytes(8) + b"{"])
def test_a_data_file_that_begins_like_another_format_still_names_its_prefix(
    tmp_path: Path, first: bytes
) -> None:
    prefix = tmp_path / "model.ckpt"
    save(prefix, 4)
    data_file = Path(f"{prefix}.data-00000-of-00001")
    data_file.write_bytes(first.ljust(16, b"\0"))

    assert tw.load_checkpoint(str(data_file)).url == str(prefix)


# ---- Directories -----------------------------------------------------------------------------


def test_a_state_file_may_be_absolute_within_its_directory(tmp_path: Path) -> None:
    save(tmp_path / "run" / "a")
    state(tmp_path / "run", str(tmp_path / "run" / "a"))

    assert found(tmp_path / "run") == str(tmp_path / "run" / "a")


def test_a_state_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a")
    (tmp_path / "run").mkdir()
    state(tmp_path / "run", str(tmp_path / "elsewhere" / "a"))

    with pytest.raises(CheckpointNotFoundError) as caught:
        found(tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path}/run/checkpoint names '{tmp_path}/elsewhere/a' as the latest checkpoint, but "
        f"there is no {tmp_path}/run/a.index. Only {tmp_path}/run is looked into; if "
        f"'{tmp_path}/elsewhere/a' is meant, pass it."
    )


def test_a_copied_directory_reads_its_own_copy_and_not_the_original(tmp_path: Path) -> None:
    save(tmp_path / "old" / "a", 2)
    state(tmp_path / "old", str(tmp_path / "old" / "a"))
    shutil.copytree(tmp_path / "old", tmp_path / "new")

    assert found(tmp_path / "new") == str(tmp_path / "new" / "a")
    shutil.rmtree(tmp_path / "old")
    assert found(tmp_path / "new") == str(tmp_path / "new" / "a")


def test_a_relative_path_through_a_folder_that_is_gone_finds_the_file_here(tmp_path: Path) -> None:
    save(tmp_path / "a")
    state(tmp_path, "train/run1/a")

    assert found(tmp_path) == str(tmp_path / "a")


def test_a_relative_path_through_a_folder_wins_over_the_file_here(tmp_path: Path) -> None:
    save(tmp_path / "a", 2)
    save(tmp_path / "sub" / "a", 3)
    state(tmp_path, "sub/a")

    assert found(tmp_path) == str(tmp_path / "sub" / "a")


def test_the_state_file_decides_even_if_newer_checkpoints_are_there(tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt-1")
    save(tmp_path / "model.ckpt-2")
    state(tmp_path, "model.ckpt-1")

    assert found(tmp_path) == str(tmp_path / "model.ckpt-1")


def test_a_state_file_that_names_something_gone_tells_what_is_there(tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt-1")
    state(tmp_path, "model.ckpt-2")

    with pytest.raises(CheckpointNotFoundError) as caught:
        found(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint names 'model.ckpt-2' as the latest checkpoint, but there is no "
        f"{tmp_path}/model.ckpt-2.index. Checkpoints there: '{tmp_path}/model.ckpt-1'; "
        "pass one of them."
    )


def test_a_moved_state_file_tells_where_it_looked(tmp_path: Path) -> None:
    state(tmp_path, "/not/there/model.ckpt-2")

    message = (
        r"names '/not/there/model.ckpt-2' as the latest checkpoint, but there is no "
        rf"{tmp_path}/model.ckpt-2.index\. Only {tmp_path} is looked into; if "
        r"'/not/there/model.ckpt-2' is meant, pass it\.$"
    )
    with pytest.raises(CheckpointNotFoundError, match=message):
        found(tmp_path)


def test_a_state_file_without_path_is_told(tmp_path: Path) -> None:
    save(tmp_path / "a")
    (tmp_path / "checkpoint").write_text("")

    message = r"names no checkpoint \(it has no model_checkpoint_path\). Checkpoints there: '.*/a'"
    with pytest.raises(CheckpointNotFoundError, match=message):
        found(tmp_path)


@pytest.mark.parametrize("text", ["\ufeffmodel_checkpoint_path: 'a'", "a", "unknown: 1"])
def test_a_state_file_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    save(tmp_path / "a")
    (tmp_path / "checkpoint").write_text(text, encoding="utf-8")

    for source in (tmp_path, tmp_path / "checkpoint"):
        with pytest.raises(CorruptCheckpointError, match=rf"{tmp_path}/checkpoint, line 1: expect"):
            found(source)


def test_a_directory_with_one_index_needs_no_state_file(tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt-9")
    (tmp_path / "notes.txt").write_text("hello")

    assert found(tmp_path) == str(tmp_path / "model.ckpt-9")


def test_a_directory_with_several_indexes_is_ambiguous(tmp_path: Path) -> None:
    for step in range(10):
        save(tmp_path / f"m-{step}")

    with pytest.raises(CheckpointNotFoundError) as caught:
        found(tmp_path)
    shown = ", ".join(f"'{tmp_path}/m-{step}'" for step in range(5))
    assert str(caught.value) == (
        f"{tmp_path} has no 'checkpoint' file to say which checkpoint is meant. "
        f"Checkpoints there: {shown} and 5 more; pass one of them."
    )


def test_a_saved_model_is_found_by_its_folder_or_its_variables() -> None:
    folder = FIXTURES / "saved_model"
    for source in (folder, f"{folder}/", folder / "variables", folder / "variables/variables"):
        assert tw.load_checkpoint(source).url == str(folder / "variables" / "variables")


def test_variables_win_over_other_indexes_beside_them(tmp_path: Path) -> None:
    save(tmp_path / "variables" / "variables")
    save(tmp_path / "variables" / "other")

    assert found(tmp_path / "variables") == str(tmp_path / "variables" / "variables")
    assert found(tmp_path) == str(tmp_path / "variables" / "variables")


def test_an_empty_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        found(tmp_path)
    assert str(caught.value) == (
        f"There is no checkpoint in the directory {tmp_path}: no 'checkpoint' file, no "
        "variables/variables.index, no *.index. It holds nothing."
    )


def test_the_file_of_a_directory_that_is_none_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "model.pt").write_bytes(b"PK")
    with pytest.raises(
        CheckpointNotFoundError, match=r"It holds a.txt, model.pt. Pass .*model\.pt"
    ):
        tw.load_checkpoint(tmp_path)


# ---- Names that mean two things --------------------------------------------------------------


def test_a_prefix_called_checkpoint_is_told_from_the_state_file(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint")
    state(tmp_path, "checkpoint")

    for source in (tmp_path, tmp_path / "checkpoint", tmp_path / "checkpoint.index"):
        assert found(source) == str(tmp_path / "checkpoint")


def test_a_prefix_wins_over_a_directory_of_the_same_name(tmp_path: Path) -> None:
    save(tmp_path / "model", 2)
    save(tmp_path / "model" / "variables" / "variables", 3)

    assert found(tmp_path / "model") == str(tmp_path / "model")
    assert found(f"{tmp_path}/model/") == str(tmp_path / "model" / "variables" / "variables")


def test_a_directory_with_a_state_file_wins_over_a_prefix_as_in_tensorflow(tmp_path: Path) -> None:
    save(tmp_path / "model", 2)
    save(tmp_path / "model" / "a", 3)
    state(tmp_path / "model", "a")

    assert found(tmp_path / "model") == str(tmp_path / "model" / "a")
    assert found(tmp_path / "model.index") == str(tmp_path / "model")


def test_a_prefix_that_ends_like_an_index_is_read_as_named(tmp_path: Path) -> None:
    save(tmp_path / "a", 2)
    save(tmp_path / "a.index", 3)  # its index is a.index.index

    assert found(tmp_path / "a") == str(tmp_path / "a")
    assert found(tmp_path / "a.index") == str(tmp_path / "a.index")


# ---- Nothing there ---------------------------------------------------------------------------


def test_a_path_to_nothing_tells_what_is_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "model.ckpt-1")

    with pytest.raises(CheckpointNotFoundError) as caught:
        found(tmp_path / "model.ckpt-2")
    assert str(caught.value) == (
        f"There is no checkpoint at {tmp_path}/model.ckpt-2: no such file or directory, and no "
        f"{tmp_path}/model.ckpt-2.index. {tmp_path} holds model.ckpt-1.data-00000-of-00001, "
        f"model.ckpt-1.index. Checkpoints there: '{tmp_path}/model.ckpt-1'; pass one of them."
    )
    assert isinstance(caught.value, FileNotFoundError)


def test_a_path_in_a_directory_that_is_not_there_says_so(tmp_path: Path) -> None:
    message = rf"{tmp_path}/no holds nothing \(it does not exist\)"
    with pytest.raises(CheckpointNotFoundError, match=message):
        found(tmp_path / "no" / "model.ckpt")


@pytest.mark.parametrize("name", ["x\0y", "a" * 300, "model.ckpt-1/model"])
def test_impossible_paths_are_not_found(tmp_path: Path, name: str) -> None:
    save(tmp_path / "model.ckpt-1")

    with pytest.raises(CheckpointNotFoundError, match="There is no checkpoint at"):
        found(f"{tmp_path}/{name}")


@pytest.mark.parametrize("source", [None, 7, b"model.ckpt", ["a"]], ids=repr)
def test_other_things_are_no_path(source: object) -> None:
    with pytest.raises(
        SettingsError, match=r"A checkpoint is a path or URL, a state_dict, a torch"
    ):
        tw.load_checkpoint(source)


def test_an_open_checkpoint_stands_for_itself(prefix: Path) -> None:
    checkpoint = tw.load_checkpoint(prefix)

    assert tw.load_checkpoint(checkpoint) is checkpoint


@pytest.mark.parametrize("contents", [b"hello", bytes(5000)], ids=["text", "zeros"])
def test_a_file_of_no_known_format_is_told_by_what_it_lacks(
    tmp_path: Path, contents: bytes
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(contents)

    message = (
        rf"{path} \({len(contents):,} bytes\) is no checkpoint of a known format:\n"
        r"(.*\n)*  safetensors file: no JSON header\n(.*\n)*"
        r"  TensorFlow V1 checkpoint: does not end as an SSTable does\n"
    )
    with pytest.raises(CorruptCheckpointError, match=message):
        tw.load_checkpoint(path)


def test_a_data_file_without_its_index_is_told(tmp_path: Path) -> None:
    save(tmp_path / "a")
    os.remove(tmp_path / "a.index")

    with pytest.raises(CorruptCheckpointError, match="is no checkpoint of a known format"):
        tw.load_checkpoint(tmp_path / "a.data-00000-of-00001")


# ---- latest_checkpoint -----------------------------------------------------------------------


def test_the_latest_checkpoint_is_the_one_the_state_file_names(prefix: Path) -> None:
    assert tw.latest_checkpoint(prefix.parent) == str(prefix)
    assert tw.latest_checkpoint(str(prefix.parent)) == str(prefix)


def test_without_state_file_there_is_no_latest_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "a")

    assert tw.latest_checkpoint(tmp_path) is None
    assert tw.latest_checkpoint(tmp_path / "not there") is None


def test_a_latest_checkpoint_that_is_gone_is_an_error(tmp_path: Path) -> None:
    state(tmp_path, "a")

    with pytest.raises(CheckpointNotFoundError, match="names 'a' as the latest checkpoint"):
        tw.latest_checkpoint(tmp_path)


def test_a_local_state_file_that_names_a_url_sends_nobody_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec.core

    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "memory://elsewhere/m"\n')
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *a, **k: pytest.fail("was sent there"))
    with pytest.raises(CheckpointNotFoundError, match="names 'memory://elsewhere/m' as the latest"):
        tw.load_checkpoint(tmp_path)
