"""Fixtures that several test files of this folder share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from remote_helpers import upload, write_checkpoint


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "model"
    write_checkpoint(folder)
    return folder


@pytest.fixture
def remote(local: Path) -> Iterator[str]:
    """The checkpoint's directory in fsspec's memory."""
    url = upload(local, f"memory://{uuid.uuid4().hex}")
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)
