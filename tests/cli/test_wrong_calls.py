"""What goes wrong on the command line: it ends with 2, in the command line's own words."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_warmstart.cli import main
from torch_warmstart.cli.wording import in_options

MODELS = """
import argparse
import sys

from torch import nn

ready = nn.Linear(2, 1)
number = 3


def make():
    return nn.Linear(2, 1)


def needs(width, depth=2):
    return nn.Linear(width, depth)


def leaves():
    sys.exit(3)


class Fails(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        return super().forward(x).reshape(77)


class Stateless(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)

    def state_dict(self, *args, **kwargs):
        raise LookupError("no state today")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("wrong_models.py").write_text(MODELS)
    Path("no_python.py").write_text("def make(:\n")
    Path("asks.py").write_text("import not_installed_here\n")
    torch.save(torch.nn.Linear(2, 1).state_dict(), "old.pt")
    yield
    for name in ("wrong_models", "no_python", "asks"):
        sys.modules.pop(name, None)


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("wrong_models:number", "is no function that makes a model, but int."),
        ("wrong_models:needs", "needs arguments (width). Name a function without"),
        ("wrong_models:leaves", "raised SystemExit: 3\n"),
        ("no_python:make", "no_python.py, line 1\n"),
        ("asks:make", "Importing asks raised ModuleNotFoundError: No module named 'not_inst"),
    ],
)
def test_a_model_that_is_none_is_told(call, model, said):
    code, out, err = call(f"plan {model} old.pt")
    assert (code, out) == (2, "")
    assert said in err


def test_a_model_that_is_there_already_is_taken(call):
    assert call("plan wrong_models:ready old.pt")[0] == 0


def test_a_forward_that_raises_is_the_models_error(call):
    np.savez("record.npz", **{"inputs/0": np.ones((1, 2), "f4"), "outputs": np.ones((1, 1), "f4")})
    code, out, err = call("verify wrong_models:Fails record.npz")
    assert (code, out) == (2, "")
    assert "wrong_models:Fails, run on record.npz, raised RuntimeError: shape '[77]'" in err
    assert "wrong_models.py, line " in err


def test_what_nobody_expected_is_no_traceback_but_on_demand(call, monkeypatch):
    command = "warm-start wrong_models:Stateless old.pt --out new.pt --apply"
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert "LookupError: no state today" in err
    assert not Path("new.pt").exists()

    monkeypatch.setenv("TORCH_WARMSTART_TRACEBACK", "1")
    with pytest.raises(LookupError):
        call(command)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "problem"), [("", " is or has"), ("none", ": 'none' matches")])
def test_a_pattern_of_the_settings_is_told_as_theirs(call, pattern, problem):
    Path("w.toml").write_text(f"vars_to_warm_start = '{pattern}'")
    _, _, err = call("plan wrong_models:make old.pt --settings w.toml")
    assert f"vars_to_warm_start{problem}" in err
    assert "--vars" not in err


def test_a_pattern_of_the_command_line_is_told_as_its_own(call):
    Path("w.toml").write_text("vars_to_warm_start = 'weight'")
    _, _, err = call("plan wrong_models:make old.pt --settings w.toml --vars none")
    assert "--vars: 'none' matches" in err


def test_the_url_stands_for_the_checkpoint_that_the_settings_may_leave_out(call):
    Path("w.toml").write_text('on_missing = "keep"\n')
    for command in ("plan wrong_models:make old.pt --settings w.toml",):
        assert call(command)[0] == 0
    assert call("convert old.pt a.pt --model wrong_models:make --settings w.toml")[0] == 0
    code, _, err = call("plan wrong_models:make --settings w.toml")
    assert code == 2
    assert "w.toml: it names no checkpoint. Write ckpt_to_initialize_from there, or URL" in err


def test_the_url_may_stand_behind_an_option(call):
    assert call("plan wrong_models:make --on-missing keep old.pt")[0] == 0
    code, _, err = call("plan wrong_models:make old.pt --on-missing keep another.pt")
    assert code == 2
    assert "torch-warmstart plan: error: unrecognized arguments: another.pt" in err


def test_verify_takes_settings(call):
    model = torch.nn.Linear(2, 1)
    torch.save({"a.weight": model.weight.detach(), "a.bias": model.bias.detach()}, "named.pt")
    inputs = torch.ones(1, 2)
    arrays = {"inputs/0": inputs.numpy(), "outputs": model(inputs).detach().numpy()}
    np.savez("record.npz", **arrays)
    Path("w.toml").write_text('[var_name_to_prev_var_name]\n"/" = "a/"\n')
    command = "verify wrong_models:make record.npz --settings w.toml"
    code, out, _ = call(f"{command} --checkpoint named.pt")
    assert (code, "agrees" in out) == (0, True)
    assert call(command)[0] == 2
    assert call("verify wrong_models:make record.npz --rules w.toml")[0] == 2


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["inspect old.pt", "plan wrong_models:make old.pt", "diff old.pt old.pt"],
)
def test_a_page_is_replaced_only_with_force(call, command):
    Path("page.html").write_text("before")
    code, out, err = call(f"{command} --html page.html")
    assert (code, out) == (2, "")
    assert "page.html is there already, and stays as it is. Name another file, or pass" in err
    assert Path("page.html").read_text() == "before"
    assert call(f"{command} --html page.html --force")[0] == 0
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


def test_nothing_is_done_if_the_page_cannot_be_written(call):
    Path("page.html").touch()
    command = "warm-start wrong_models:make old.pt --out new.pt --apply --html page.html"
    assert call(command)[0] == 2
    assert not Path("new.pt").exists()


LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from torch_warmstart.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "command",
    [
        "convert large.pt new.safetensors",
        "inspect many.pt --html new.html",
        "vocab update entries.txt counts.csv --out new.voc",
    ],
)
def test_a_full_disk_leaves_nothing(command):
    torch.save({"large": torch.ones(40_000)}, "large.pt")
    torch.save({f"tensor{i}": torch.ones(1) for i in range(300)}, "many.pt")
    Path("entries.txt").write_text("".join(f"entry {i}\n" for i in range(3_000)))
    Path("counts.csv").write_text("entry,count\na,1\n")
    before = set(os.listdir())
    done = _run("-c", LIMITED, *command.split())
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert re.search(r"new\.\w+ cannot be written: .*File too large", done.stderr)
    assert set(os.listdir()) - {"__pycache__"} == before - {"__pycache__"}


INTERRUPTED = """\
import os, signal, sys
from torch_warmstart.cli import main
from torch_warmstart.storage import writing

def interrupt(_):
    os.kill(os.getpid(), signal.SIGINT)

writing.os.fsync = interrupt
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupt_leaves_nothing():
    before = set(os.listdir())
    done = _run("-c", INTERRUPTED, "convert", "old.pt", "new.safetensors")
    assert (done.returncode, done.stderr) == (130, "torch-warmstart: interrupted\n")
    assert set(os.listdir()) == before


# -- streams ---------------------------------------------------------------------------------------


def test_head_hides_no_difference():
    command = f"{sys.executable} -m torch_warmstart explain no-such --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; code=${{PIPESTATUS[0]}}; echo; echo $code"],
        capture_output=True,
        text=True,
        check=True,
        env=_environment(),
    )
    assert (done.stdout.split(), done.stderr) == (["{", "1"], done.stderr)


def test_names_of_any_alphabet_are_printed_in_any_encoding(monkeypatch):
    torch.save({"größe": torch.ones(1)}, "names.pt")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["inspect", "names.pt"]) == 0
    assert b"gr\\xf6\\xdfe" in printed.getvalue()


def test_a_closed_stderr_changes_no_exit_code():
    command = f"{sys.executable} -m torch_warmstart explain no-such 2>&-"
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, env=_environment()
    )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("plan --json", "error"),
        ("plan wrong_models:make --json", "error"),
        ("lst --json", "error"),
        ("inspect old.pt --pattern none --json", "checkpoint"),
        ("convert old.pt new.pt --pattern none --json", "conversion"),
    ],
)
def test_there_is_a_whole_document_whatever_happens(call, command, kind):
    code, out, err = call(command)
    document = json.loads(out)
    assert (code > 0, document["version"], document["kind"]) == (True, 1, kind)
    assert err
    if kind == "conversion":
        assert document["totals"] == {"tensors": 0, "bytes": 0, "left_out": 0}
    if kind == "error":
        assert document["message"] in err


def test_without_a_command_the_commands_are_listed(call):
    code, out, err = call("")
    assert (code, out) == (2, "")
    assert "inspect" in err
    assert err.endswith("torch-warmstart: error: name a command\n")


# -- words -----------------------------------------------------------------------------------------


QUOTED = 'it\'s "$(id)"'  # a name as it may stand in a file


@pytest.mark.parametrize(
    ("text", "known", "said"),
    [
        ("keep it with on_missing='keep'.", {"on_missing"}, "keep it with --on-missing keep."),
        ("keep it with on_missing='keep'.", {"settings"}, "keep it with on_missing = 'keep'."),
        ("list_variables() shows all.", (), "`torch-warmstart inspect` shows all."),
        ("leave it out of vars_to_warm_start, or", {"vars"}, "leave it out of --vars, or"),
        ("entry='ema/model'", {"entry"}, "--entry ema/model"),
        ("entry='my model'", {"entry"}, "--entry 'my model'"),
        (f"entry={QUOTED!r}", {"entry"}, f"--entry {shlex.quote(QUOTED)}"),
        (f"entry={QUOTED!r}", {"settings"}, r"""entry = "it's \"$(id)\"" """.strip()),
        ('key="it\'s", column=2', {"key", "column"}, "--key 'it'\"'\"'s', --column 2"),
        (r"entry='a\x1b\\'", {"entry"}, r"--entry $'a\x1b\\'"),
        (r"entry='a\\b'", {"settings"}, r"entry = 'a\b'"),
        (r"entry='\udc80'", {"settings"}, r"entry = '\udc80'"),
        ("max_size.csv has no counts", {"max_size"}, None),
        (
            "pass Vocabulary.load(..., column=0, format='tsv')",
            {"column", "format"},
            "pass --column 0, --format tsv",
        ),
        (
            "say so: var_name_to_layout={'a.weight': 'transpose', 'b': 'c'}.",
            {"settings"},
            "say so: var_name_to_layout = {'a.weight' = 'transpose', 'b' = 'c'}.",
        ),
        ("has no field 'x'. Did you mean 'vars_to_warm_start'?", {"vars"}, None),
        ("var_name_to_vocab_info={'a': VocabInfo(new_vocab)}", {"settings"}, None),
        ("min_count is a whole number", {"min_count"}, "--min-count is a whole number"),
    ],
)
def test_messages_are_in_the_words_of_the_command(text, known, said):
    assert in_options(text, known) == (text if said is None else said)


def test_a_plans_problems_name_options(call):
    torch.save({"weight": torch.ones(1, 3)}, "other.pt")
    _, _, err = call("plan wrong_models:make other.pt")
    assert "with --on-mismatch keep." in err
    assert "with --on-missing keep." in err
    assert "='keep'" not in err
    assert "vars_to_warm_start" not in err


# -- helpers ---------------------------------------------------------------------------------------


def _run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**_environment(), **more},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
