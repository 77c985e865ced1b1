"""Prefixes that end in `/`: `saver.save(session, "model/")`. And TensorFlow's own glob of V1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundle_writer import write_bundle
from formats_helpers import float_entry
from remote_files import remote, upload
from v1_writer import whole, write_v1

import torch_warmstart as tw

__all__ = ["remote"]  # a fixture


@pytest.fixture(params=["{folder}/", ".", "./", "/elsewhere/model/", "model/"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """`.index`, `.data-…` and `checkpoint` in one folder, whose state file names it so."""
    folder = tmp_path / "model"
    write_bundle(tmp_path / "m", [float_entry("x", 2)])
    folder.mkdir()
    for file in tmp_path.glob("m.*"):
        file.rename(folder / file.name[1:])
    assert sorted(path.name for path in folder.iterdir()) == [".data-00000-of-00001", ".index"]
    named = request.param.format(folder=folder)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    return folder


def _values(source: object) -> list[float]:
    with tw.load_checkpoint(source) as checkpoint:
        return checkpoint.get_tensor("x").tolist()


FILES = ["", "/", "/checkpoint", "/.index", "/.data-00000-of-00001"]


@pytest.mark.parametrize("file", FILES)
def test_it_opens_by_the_folder_the_prefix_or_a_file(folder: Path, file: str) -> None:
    assert _values(f"{folder}{file}") == [0, 1]


@pytest.mark.parametrize("file", FILES)
def test_it_opens_where_it_was_moved_to(folder: Path, file: str, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "moved")
    assert _values(f"{tmp_path}/moved{file}") == [0, 1]


@pytest.mark.parametrize("file", FILES)
def test_it_opens_behind_a_url(folder: Path, file: str, remote: str) -> None:
    assert _values(upload(folder, remote) + file) == [0, 1]


def test_it_opens_without_a_state_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "checkpoint").unlink()
    monkeypatch.chdir(folder)
    for source in (folder, f"{folder}/", ".", "./", ".index", folder / ".index"):
        assert _values(source) == [0, 1]


def test_the_latest_checkpoint_is_the_folder(folder: Path) -> None:
    assert tw.latest_checkpoint(folder) == f"{folder}/"


# ---- V1 in several files ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["export", "e/"])
@pytest.mark.parametrize("ending", ["-?????-of-?????", "-?????-of-00002", "-00001-of-?????", ""])
def test_tensorflows_glob_opens_the_files_that_are_there(
    tmp_path: Path, prefix: str, ending: str
) -> None:
    (tmp_path / "e").mkdir()
    tensors = [whole("x", 1, [2], [0.0, 1.0])]
    write_v1(f"{tmp_path}/{prefix}", tensors, num_files=2)
    if prefix + ending == "e/":  # a folder, which says nothing of V1
        return
    checkpoint = tw.load_checkpoint(f"{tmp_path}/{prefix}{ending}")
    assert checkpoint.url == f"{tmp_path}/{prefix}-?????-of-00002"
    assert checkpoint.get_tensor("x").tolist() == [0, 1]


def test_a_state_file_may_name_the_glob(tmp_path: Path) -> None:
    write_v1(tmp_path / "export", [whole("x", 1, [2], [0.0, 1.0])], num_files=2)
    named = "/elsewhere/export-?????-of-?????"
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    assert _values(tmp_path) == [0, 1]


# ---- As TensorFlow writes them ---------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("relative", [False, True])
def test_what_tensorflow_saves_into_a_folder_opens_there_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    tf1 = pytest.importorskip("tensorflow").compat.v1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    with tf1.Graph().as_default(), tf1.Session() as session:
        x = tf1.get_variable("x", initializer=[0.0, 1.0])
        session.run(x.initializer)
        tf1.train.Saver().save(session, "model/" if relative else f"{tmp_path}/model/")
    shutil.copytree(tmp_path / "model", tmp_path / "moved")
    for folder in ("model", "moved"):
        for file in FILES:
            assert _values(f"{tmp_path / folder}{file}") == [0, 1]
