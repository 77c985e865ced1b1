"""`vocab diff` and `vocab update`: what they print, write and exit with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import torch_warmstart as tws
from torch_warmstart import cli

pyarrow = pytest.importorskip("pyarrow")

MONDAY = ["rome", "oslo", "paris", "lima"]
COUNTS = 'entry,count\nrome,5\ncairo,7\n"new, york",2\nbern,1\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("monday.txt").write_text("".join(f"{each}\n" for each in MONDAY))
    Path("tuesday.txt").write_text("rome\nparis\nlima\ncairo\n")
    Path("counts.csv").write_text(COUNTS)


def test_a_diff_counts_entries_and_exits_with_1(call):
    code, out, err = call("vocab diff monday.txt tuesday.txt")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].split() == ["kept", "1", "25.00%"]
    assert out.splitlines()[1].split() == ["moved", "2", "50.00%"]
    code, out, _ = call("vocab diff monday.txt monday.txt --json")
    document = json.loads(out)
    assert (code, document["differs"]) == (0, False)
    assert document["totals"] == {"old": 4, "new": 4, "reused": 0}


def test_a_diff_by_counts_and_with_earlier_days(call):
    Path("sunday.txt").write_text("cairo\n")
    _, out, _ = call(
        "vocab diff monday.txt tuesday.txt --counts counts.csv --earlier sunday.txt --json"
    )
    fates = {each["fate"]: each for each in json.loads(out)["fates"]}
    assert (fates["returned"]["entries"], fates["returned"]["seen"]) == (1, 7)
    assert fates["kept"]["share"] == 5 / 12
    assert fates["new"]["entries"] == 0


def test_entries_of_a_kind_are_listed_one_a_line(call):
    assert call("vocab diff monday.txt tuesday.txt --list dropped")[:2] == (1, "oslo\n")
    assert call("vocab diff monday.txt tuesday.txt --list moved")[:2] == (1, "paris\nlima\n")
    assert call("vocab diff monday.txt tuesday.txt --list returned")[:2] == (1, "")
    listed = json.loads(call("vocab diff monday.txt tuesday.txt --list new --json")[1])["listed"]
    assert listed == {"fate": "new", "entries": [{"row": 3, "entry": "cairo"}]}


def test_what_a_terminal_would_act_upon_is_escaped(call):
    Path("bad.txt").write_bytes(b"rome\n\x1b[2J\xff\n")
    assert call("vocab diff monday.txt bad.txt --list new")[1] == "\\x1b[2J\\xff\n"


def test_today_is_made_of_yesterday_and_counts(call):
    code, out, err = call(
        "vocab update monday.txt counts.csv --min-count 2 --today 2026-01-31 --out tuesday.tsv"
    )
    assert (code, err) == (0, "Wrote tuesday.tsv: 6 rows, 6 entries\n")
    assert out.splitlines()[0].split()[:2] == ["kept", "4"]
    vocab = tws.Vocabulary.load("tuesday.tsv")
    assert list(vocab.entries) == [*(each.encode() for each in MONDAY), b"cairo", b"new, york"]
    assert vocab.usage is not None
    assert vocab.usage.counts.tolist() == [5, 0, 0, 0, 7, 2]


def test_its_own_file_is_yesterday_and_holds_counts(call):
    call("vocab update monday.txt counts.csv --today 2026-01-31 --out a.voc")
    code, _, err = call(
        "vocab update a.voc counts.csv --today 2026-02-02 --expire-after 1 --out b.voc"
    )
    assert (code, err) == (0, "Wrote b.voc: 7 rows, 4 entries\n")
    assert call("vocab diff a.voc b.voc --list dropped")[1] == "oslo\nparis\nlima\n"
    code, out, _ = call("vocab diff monday.txt b.voc --counts b.voc --json")
    assert [each["seen"] for each in json.loads(out)["fates"]] == [10, 0, 0, 20, 0]


def test_a_file_that_is_there_stays_without_force(call):
    Path("mine.voc").write_bytes(b"mine")
    command = "vocab update monday.txt counts.csv --out mine.voc"
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert "mine.voc is there already" in err
    assert Path("mine.voc").read_bytes() == b"mine"
    code, _, err = call(f"{command} --dry-run --force")
    assert (code, err) == (0, "Would write mine.voc: 7 rows, 7 entries\n")
    assert Path("mine.voc").read_bytes() == b"mine"
    assert call(f"{command} --force")[0] == 0
    assert len(tws.Vocabulary.load("mine.voc")) == 7


def test_an_update_is_a_document(call):
    command = "vocab update monday.txt counts.csv --out new.voc --dry-run --json"
    document = json.loads(call(command)[1])
    assert (document["version"], document["kind"]) == (1, "vocabulary-update")
    assert (document["written"], document["path"]) == (False, "new.voc")
    assert document["totals"] == {"rows": 7, "entries": 7}
    assert document["warnings"] == []
    assert document["diff"]["kind"] == "vocabulary-diff"


def test_an_update_tells_of_a_header(call):
    Path("first.txt").write_text(
        "\n".join(["token", *MONDAY, "athens", "bonn", "bern", "nice"]) + "\n"
    )
    command = "vocab update first.txt counts.csv --out new.voc --dry-run"
    warning, _ = call(command)[2].splitlines()
    assert warning.startswith("'token' (line 1) of first.txt looks like a header")
    assert json.loads(call(f"{command} --json")[1])["warnings"] == [warning]


def test_a_column_of_a_table_by_name_or_number(call):
    Path("a.csv").write_text("n,city\n0,rome\n1,oslo\n")
    Path("b.csv").write_text("n,city\n0,rome\n1,bern\n")
    assert call("vocab diff a.csv b.csv --column city --list new")[1] == "bern\n"
    assert "seems to have names" in call("vocab diff a.csv b.csv --column 1 --list new")[2]
    Path("c.csv").write_text("0,rome\n1,oslo\n")
    Path("d.csv").write_text("0,rome\n1,bern\n")
    assert call("vocab diff c.csv d.csv --column 1 --list new")[1] == "bern\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("vocab diff monday.txt nowhere.txt", "nowhere.txt cannot be read"),
        ("vocab diff monday.txt counts.csv", "say which column holds the entries"),
        ("vocab update monday.txt monday.txt --out x", "monday.txt has no counts"),
        ("vocab update monday.txt names.csv --out x", "has the columns 'a', 'b'"),
        ("vocab update monday.txt half.csv --out x", "names no number: half.csv"),
        ("vocab update monday.txt less.csv --out x", "are negative"),
        ("vocab update monday.txt counts.csv --min-count 0 --out x", "--min-count"),
        ("vocab update monday.txt counts.csv --out no/such/x", "no/such/x"),
    ],
)
def test_an_error_of_ours_exits_with_2(call, command, message):
    Path("names.csv").write_text("a,b\n1,2\n")
    Path("half.csv").write_text("entry,count\nrome,1.5\n")
    Path("less.csv").write_text("entry,count\nrome,-1\n")
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert message.removeprefix("names no number: ") in err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "arguments",
    ["vocab", "vocab update m c", "vocab update m c --out o --today soon", "vocab drop a b"],
)
def test_a_wrong_call_exits_with_2(arguments, capsys):
    assert cli.main(arguments.split()) == 2
    assert "usage: torch-warmstart vocab" in capsys.readouterr().err


def test_bash_completes_words_and_options_of_both(call):
    script = call("completion bash")[1]
    for line, completed in (("vocab up", "update"), ("vocab update --ex", "--expire-after")):
        words = ["torch-warmstart", *line.split()]
        ask = (
            f"{script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_torch_warmstart; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == completed
