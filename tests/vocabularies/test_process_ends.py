"""A process that has read a table ends as any other: none of Arrow's threads aborts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
_LOAD = "import sys, torch_warmstart as tw; tw.Vocabulary.load(sys.argv[1], column='entry')"


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "arrow"])
def test_it_ends_without_an_error(tmp_path: Path, form: str) -> None:
    """Some six times in seven it did not, for Parquet; three times in four for csv."""
    path = tmp_path / f"entries.{form}"
    if form == "parquet":
        from pyarrow import parquet

        parquet.write_table(pa.table({"entry": ["a", "b"]}), path)
    elif form == "arrow":
        table = pa.table({"entry": ["a", "b"]})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("entry\na\nb\n" if form == "csv" else '{"entry": "a"}\n{"entry": "b"}\n')
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
