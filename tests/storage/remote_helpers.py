"""Checkpoints and counted file systems of the tests of URLs."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import torch
from bundle_writer import FULL, BundleEntry, DType, write_bundle
from fsspec.implementations.memory import MemoryFileSystem

import torch_warmstart as tw

ROWS, COLUMNS = 10_000, 16
TABLE = np.arange(ROWS * COLUMNS, dtype="<f4").reshape(ROWS, COLUMNS)


def floats(key: str, array: np.ndarray, **options: object) -> BundleEntry:
    return BundleEntry(key, DType.FLOAT, array.shape, array.astype("<f4").tobytes(), **options)


def write_checkpoint(folder: Path) -> None:
    """Two data files, one large tensor, one in three slices, many small ones; a state file."""
    small = [floats(f"small/{n}", np.full((4,), n)) for n in range(20)]
    cut = [(0, 5), (5, 3), (8, 2)]
    sliced = BundleEntry(
        "sliced",
        DType.FLOAT,
        (10, 4),
        slices=[
            ([extent, FULL], TABLE[extent[0] : sum(extent), :4].astype("<f4").tobytes())
            for extent in cut
        ],
    )
    entries = [floats("table", TABLE), *small, sliced, floats("other", TABLE[:50] + 1, shard=1)]
    write_bundle(folder / "model.ckpt-3", entries, num_shards=2)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (folder / "old.txt").write_text("a\nb\nc\n")
    (folder / "new.txt").write_text("c\nd\na\n")


def upload(folder: Path, url: str, **options: object) -> str:
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    for file in folder.iterdir():
        filesystem.pipe(f"{path}/{file.name}", file.read_bytes())
    return url


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Parameter(torch.zeros(50, COLUMNS))
        self.words = torch.nn.Parameter(torch.full((4, COLUMNS), 7.0))


def settings_for(folder: str, **options: object) -> tw.WarmStartSettings:
    vocabulary = tw.VocabInfo(f"{folder}/new.txt", 3, 1, f"{folder}/old.txt")
    return tw.WarmStartSettings(
        folder,
        var_name_to_vocab_info={"words": vocabulary},
        var_name_to_prev_var_name={"words": "table"},
        **options,
    )


def described(report: tw.WarmStartReport, folder: str) -> str:
    text = str({**report.to_dict(), "seconds": 0})
    return text.replace(folder, "FOLDER")


def fails_with(monkeypatch, answer):
    """Every range of a data file is answered by `answer(bytes)`."""
    fetch = MemoryFileSystem.cat_ranges

    def failing(self, paths, starts, ends, **options):
        data = fetch(self, paths, starts, ends, **options)
        return [answer(d) if ".data-" in p else d for p, d in zip(paths, data, strict=True)]

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", failing)
