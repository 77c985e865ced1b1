"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle

from torch_warmstart import cli
from torch_warmstart.cli.arguments import _storage_option
from torch_warmstart.formats import registry
from torch_warmstart.formats.listing.tensors import TensorRow

FIXTURES = Path(__file__).parents[1] / "fixtures"

NAME_BASED = """\
name_based/model.ckpt-7: TensorFlow V2 checkpoint

key            dtype       shape      bytes
bfloat16       bfloat16    [5]           10
complex64      complex64   [3]           24
complex128     complex128  [2, 2]        64
dense/bias     float64     [4]           32
dense/kernel   float32     [3, 4]        48
embedding      float32     [40, 8]    1,280
empty          float32     [0, 16]        0
empty_strings  string      [2, 0]
flags          bool        [2, 2]         4
global_step    int64       []             8
half           float16     [5]           10
int8           int8        [5]            5
int32          int32       [2, 1, 3]     24
int64          int64       [3]           24
scalar         float32     []             4
string_scalar  string      []
strings        string      [5]
uint8          uint8       [5]            5
In all rows: file model.ckpt-7.data-00000-of-00001

18 tensors, 384 elements, 1,542 bytes: 333 float32, 6 string, 6 int32, 5 bfloat16, 5 float16, \
5 int8, 5 uint8, 4 complex128, 4 float64, 4 bool, 4 int64, 3 complex64
"""

PARTITIONED = """\
partitioned/model.ckpt: TensorFlow V2 checkpoint

key          dtype    shape    bytes  slices
columns      float32  [4, 7]     112       3
half         float16  [7, 3]      42       3
one_part     float32  [3, 2]      24
plain        float32  [2, 2]      16
rows         float32  [10, 4]    160       3
scope/int32  int32    [5, 2]      40       3
vector       float32  [130]      520       3
In all rows: file model.ckpt.data-00000-of-00001

7 tensors, 239 elements, 914 bytes: 208 float32, 21 float16, 10 int32
"""


@pytest.fixture(autouse=True)
def _in_fixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)  # so that paths in the output are short and the same everywhere


def out_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a run that must succeed prints."""
    code = cli.main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


# ---- The table -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "expected"), [("name_based", NAME_BASED), ("partitioned", PARTITIONED)]
)
def test_the_tensors_are_listed(directory, expected, capsys):
    assert out_of(capsys, directory) == expected


def test_of_several_data_files_each_tensor_names_its_own(capsys):
    lines = out_of(capsys, "merged/model.ckpt").splitlines()

    assert lines[2].split() == ["key", "dtype", "shape", "bytes", "slices", "file"]
    files = {line.split()[-1] for line in lines[3:-2]}
    assert files == {f"model.ckpt.data-0000{n}-of-00003" for n in range(3)}
    assert lines[7].endswith("2  model.ckpt.data-00000-of-00003, model.ckpt.data-00001-of-00003")
    assert not any(line.startswith("In all rows: file") for line in lines)


def test_a_state_dict_is_listed(tmp_path, capsys):
    path = tmp_path / "model.pt"
    torch.save({"b.weight": torch.zeros(3, 2), "a": torch.zeros(4, dtype=torch.int8)}, path)

    headline, _, *table = out_of(capsys, path).splitlines()

    assert headline.startswith(f"{path}: ")
    assert table == [
        "key       dtype    shape   bytes",
        "a         int8     [4]         4",
        "b.weight  float32  [3, 2]     24",
        "In all rows: file model.pt",
        "",
        "2 tensors, 10 elements, 28 bytes: 6 float32, 4 int8",
    ]


def test_an_entry_of_a_nested_file_is_chosen(tmp_path, capsys):
    path = tmp_path / "training.pt"
    torch.save({"ema": {"w": torch.zeros(3)}, "raw": {"w": torch.zeros(3)}}, path)

    printed = out_of(capsys, path, "--entry", "ema")
    assert printed.endswith("1 tensor, 3 elements, 12 bytes\nBesides raw: dict of 1\n")
    assert cli.main(["inspect", str(path)]) == 2
    assert "'ema'" in capsys.readouterr().err


def test_a_checkpoint_behind_a_url_is_listed(capsys):
    filesystem = fsspec.filesystem("memory")
    for file in (FIXTURES / "partitioned").iterdir():
        filesystem.pipe(f"memory://cli/{file.name}", file.read_bytes())

    printed = out_of(capsys, "memory://cli", "--storage-option", "use_listings_cache=false")
    assert printed == PARTITIONED.replace("partitioned/", "memory://cli/")


def test_a_type_that_torch_calls_otherwise_is_told_as_it_is_stored(tmp_path, capsys):
    entries = [
        BundleEntry("a", DType.FLOAT, (1,), bytes(4)),
        BundleEntry("q", DType.QINT8, (1,), bytes(1)),
        BundleEntry("v", DType.VARIANT, (1,), bytes(1)),
    ]
    write_bundle(tmp_path / "ckpt", entries)

    assert out_of(capsys, tmp_path / "ckpt").splitlines()[2:7] == [
        "key  dtype    stored as  bytes",
        "a    float32                 4",
        "q    int8     qint8          1",
        "v    variant",
        "In all rows: shape [1], file ckpt.data-00000-of-00001",
    ]


@pytest.mark.parametrize(
    ("stored", "torch_name"),
    [("F32", "float32"), ("I64", "int64"), ("U8", "uint8"), ("BF16", "bfloat16"), ("BOOL", "bool")],
)
def test_words_for_the_same_type_are_not_told_twice(stored, torch_name):
    assert TensorRow("k", torch_name, stored, (), 1, 1, (), 0).stored_as == ""


def test_patterns_choose_keys_and_size_sorts_them(capsys):
    lines = out_of(
        capsys, "name_based", "--pattern", "^dense/", "--pattern", "bed", "--sort", "size"
    ).splitlines()

    assert [line.split()[0] for line in lines[3:6]] == ["embedding", "dense/kernel", "dense/bias"]
    assert lines[-1].startswith("3 tensors, 336 elements, 1,360 bytes")


def test_a_pattern_that_finds_nothing_exits_with_1_and_near_keys(capsys):
    assert cli.main(["inspect", "name_based", "--pattern", "dense/kernal$"]) == 1
    captured = capsys.readouterr()
    assert captured.out == (
        "name_based/model.ckpt-7: TensorFlow V2 checkpoint\n\n0 tensors, 0 elements, 0 bytes\n"
    )
    assert captured.err == (
        "None of 18 tensors matches 'dense/kernal$'. Did you mean 'dense/kernel' or 'dense/bias'?\n"
    )


def test_what_a_terminal_would_act_upon_is_spelt_out(tmp_path, capsys):
    write_bundle(tmp_path / "ckpt", [BundleEntry(b"a\x1b[31m\xff\n", DType.INT8, (1,), b"1")])

    assert "a\\x1b[31m\\udcff\\n" in out_of(capsys, tmp_path / "ckpt")


# ---- JSON ------------------------------------------------------------------------------------


def test_json_is_one_document_with_everything(capsys):
    document = json.loads(out_of(capsys, "partitioned", "--json", "--pattern", "^half|plain"))

    assert document == {
        "version": 1,
        "kind": "checkpoint",
        "url": "partitioned/model.ckpt",
        "format": "TensorFlow V2 checkpoint",
        "tensors": [
            {
                "key": "half",
                "dtype": "float16",
                "stored_dtype": "half",
                "shape": [7, 3],
                "elements": 21,
                "bytes": 42,
                "files": ["model.ckpt.data-00000-of-00001"],
                "num_slices": 3,
                "layer": "",
            },
            {
                "key": "plain",
                "dtype": "float32",
                "stored_dtype": "float",
                "shape": [2, 2],
                "elements": 4,
                "bytes": 16,
                "files": ["model.ckpt.data-00000-of-00001"],
                "num_slices": 0,
                "layer": "",
            },
        ],
        "optimizers": [],
        "vocabularies": {},
        "tables": {},
        "besides": {},
        "beside": [],
        "totals": {
            "tensors": 2,
            "elements": 25,
            "bytes": 58,
            "by_dtype": {
                "float16": {"tensors": 1, "elements": 21, "bytes": 42},
                "float32": {"tensors": 1, "elements": 4, "bytes": 16},
            },
        },
    }


def test_in_json_strings_have_no_torch_dtype(capsys):
    document = json.loads(out_of(capsys, "name_based", "--json", "--pattern", "^strings$"))
    assert (document["tensors"][0]["dtype"], document["tensors"][0]["stored_dtype"]) == (
        None,
        "string",
    )


# ---- Values ----------------------------------------------------------------------------------


def test_the_first_rows_of_a_tensor_are_shown(capsys):
    shown = out_of(capsys, "name_based", "--values", "embedding")

    assert shown.startswith("embedding: float32 [40, 8], rows 0 to 4\ntensor([[-1.6574, ")
    assert len(shown.splitlines()) == 6


def test_chosen_rows_of_a_tensor_are_shown(capsys):
    headline, first, second = out_of(
        capsys, "name_based", "--values", "dense/kernel", "--rows", "1:9"
    ).splitlines()

    assert headline == "dense/kernel: float32 [3, 4], rows 1 to 2"
    assert first.startswith("tensor([[-0.7527, -0.3067,  1.3108, -0.3632]")
    assert second.endswith("1.0141,  0.1526]])")


def test_strings_are_shown_as_bytes(capsys):
    lines = out_of(capsys, "name_based", "--values", "strings", "--rows", ":2").splitlines()

    assert lines[0] == "strings: string [5], rows 0 to 1"
    assert len(lines) == 3
    assert all(line.startswith(("b'", 'b"')) for line in lines[1:])


def test_a_scalar_is_shown_and_has_no_rows(capsys):
    assert out_of(capsys, "name_based", "--values", "global_step") == (
        "global_step: int64 []\ntensor(7)\n"
    )
    assert cli.main(["inspect", "name_based", "--values", "global_step", "--rows", "0:1"]) == 2
    assert "'global_step' is a scalar" in capsys.readouterr().err


def test_rows_past_the_end_are_none(capsys):
    assert out_of(capsys, "name_based", "--values", "int64", "--rows", "7:9").startswith(
        "int64: int64 [3], no rows\n"
    )


# ---- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "torch-warmstart: There is no checkpoint at nowhere: "),
        (["name_based", "--format", "tar"], "torch-warmstart: No format is called 'tar'; "),
        (["name_based", "--values", "dense/kernal"], "Did you mean 'dense/kernel'"),
        (["s4://bucket/x"], "torch-warmstart: Reading s4://bucket/x"),
    ],
)
def test_errors_are_one_message_on_stderr(arguments, message, capsys):
    assert cli.main(["inspect", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_damaged_tensor_is_an_error_unless_checksums_are_not_wanted(tmp_path, capsys):
    write_bundle(tmp_path / "ckpt", [BundleEntry("s", DType.INT32, (), bytes(4), crc=1)])

    assert cli.main(["inspect", str(tmp_path / "ckpt"), "--values", "s"]) == 2
    assert "tensor 's' is damaged: its checksum" in capsys.readouterr().err
    shown = out_of(capsys, tmp_path / "ckpt", "--values", "s", "--no-verify")
    assert shown == "s: int32 []\ntensor(0, dtype=torch.int32)\n"


def test_a_damaged_entry_is_an_error_that_names_the_tensor(tmp_path, capsys):
    write_bundle(tmp_path / "ckpt", [BundleEntry("s", DType.INT32, (2,), bytes(8), size=4)])

    assert cli.main(["inspect", str(tmp_path / "ckpt")]) == 2
    assert "tensor 's' is damaged: it has 4 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["inspect"],
        ["inspect", "x", "--pattern", "("],
        ["inspect", "x", "--rows", "1"],
        ["inspect", "x", "--storage-option", "anon"],
        ["inspect", "x", "--sort", "shape"],
    ],
)
def test_a_wrong_call_exits_with_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "usage: torch-warmstart" in capsys.readouterr().err


def test_storage_options_may_be_json():
    assert _storage_option("token=anon") == ("token", "anon")
    assert _storage_option("anon=true") == ("anon", True)
    assert _storage_option("endpoint_url=http://h/?a=b") == ("endpoint_url", "http://h/?a=b")


# ---- As a process ----------------------------------------------------------------------------


def _run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "torch_warmstart", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )


def test_it_runs_as_a_module():
    finished = _run("inspect", "partitioned", cwd=FIXTURES)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, PARTITIONED, "")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    entries = [BundleEntry(f"t{n:05d}", DType.INT8, (1,), b"1") for n in range(5_000)]
    write_bundle(tmp_path / "ckpt", entries)
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "torch_warmstart", "inspect", str(tmp_path / "ckpt")],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    finally:
        os.close(write)
    assert (finished.returncode, finished.stderr) == (0, "")


# ---- The documentation -----------------------------------------------------------------------

GUIDE = Path(__file__).parents[2] / "docs" / "formats.md"


def test_the_guide_shows_what_is_printed(monkeypatch, capsys):
    monkeypatch.chdir(GUIDE.parents[1])
    block = re.search(r"```console\n(.*?)\n```", GUIDE.read_text(), re.DOTALL)
    assert block
    shown = block[1].removeprefix("$ torch-warmstart ").split("\n$ torch-warmstart ")
    assert len(shown) == 3
    for run in shown:
        command, _, output = run.partition("\n")
        assert out_of(capsys, *shlex.split(command)[1:]).strip() == output.strip()


def test_the_guide_names_every_format():
    named = re.findall(r"^\| `([\w-]+)` \| .*\| .*\|$", GUIDE.read_text(), re.MULTILINE)
    assert [candidate.name for candidate in registry.FORMATS] == named[: len(registry.FORMATS)]
