"""Models that cannot be made, places that cannot be written, and a closed stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from torch_warmstart import cli

MODELS = """
from torch import nn


def make():
    return nn.Linear(2, 1)


def raises():
    raise RuntimeError("my own bug")


def number():
    return 3


def prints():
    print("a greeting")
    return make()


async def waits():
    return make()


def goes_elsewhere():
    import os

    os.chdir("elsewhere")
    return make()


def takes_it_away():
    import os

    folder = os.getcwd()
    os.chdir("..")
    os.rename(folder, "moved")
    return make()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("1 / 0\n")
    torch.save(torch.nn.Linear(2, 1).state_dict(), "old.pt")
    yield
    for name in ("failing_models", "broken_models"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("failing_models:raises", "failing_models:raises raised RuntimeError: my own bug\n  "),
        ("failing_models:number", "failing_models:number makes no torch.nn.Module, but int."),
        ("failing_models:mkae", "failing_models has no 'mkae'. Did you mean 'make'?"),
        ("failing_models:waits", "failing_models:waits makes no torch.nn.Module, but coroutine."),
        ("failing_models.py:make", "Name the module as `import` does: failing_models:make."),
        ("../lib/failing_models.py:make", "failing_models:make, from the directory ../lib."),
        (".failing_models:make", "Name the module as `import` does: failing_models:make."),
        ("broken_models:make", "Importing broken_models raised ZeroDivisionError: "),
    ],
)
def test_a_model_that_cannot_be_made_is_an_error_of_two(model, said, capsys):
    assert cli.main(["plan", model, "old.pt"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("error")
def test_a_coroutine_is_not_left_waiting(capsys):
    assert cli.main(["plan", "failing_models:waits", "old.pt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_the_users_code_prints_is_no_result(capsys):
    assert cli.main(["plan", "failing_models:prints", "old.pt", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["kind"] == "plan"
    assert said.err == "a greeting\n"


def test_a_model_that_goes_elsewhere_takes_no_path_along(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    torch.save(torch.nn.Linear(2, 1).state_dict(), "elsewhere/old.pt")
    call = ["warm-start", "failing_models:goes_elsewhere", "old.pt", "--apply", "--out", "new.pt"]
    assert cli.main(call) == 0
    new, old = (torch.load(tmp_path / name)["weight"] for name in ("new.pt", "old.pt"))
    assert torch.equal(new, old)


def test_a_model_that_moves_the_folder_of_the_call_is_made(tmp_path, monkeypatch):
    (tmp_path / "called_in").mkdir()
    monkeypatch.chdir(tmp_path / "called_in")
    assert cli.main(["plan", "failing_models:takes_it_away", str(tmp_path / "old.pt")]) == 0


def test_a_page_does_not_take_the_place_of_a_state(capsys):
    command = "warm-start failing_models:make old.pt --apply --out new.pt --html ./new.pt"
    assert cli.main(command.split()) == 2
    assert "--html and --out both name ./new.pt." in capsys.readouterr().err
    assert not os.path.exists("new.pt")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["inspect old.pt", "inspect old.pt --json", "explain --json"])
def test_a_full_stdout_is_one_line_of_stderr(arguments):
    done = _run_with("> /dev/full", arguments)
    said = "torch-warmstart: <stdout>: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_where_nobody_can_be_told_the_code_tells():
    assert _run_with("2> /dev/full", "inspect nothere.pt").returncode == 2
    done = _run_with("> /dev/full", "inspect nothere.pt --json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def _run_with(redirected: str, arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        f"{sys.executable} -m torch_warmstart {arguments} {redirected}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_where_the_users_code_raised_is_said(capsys):
    cli.main(["plan", "failing_models:raises", "old.pt"])
    assert "failing_models.py, line 10, in raises" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert old.pt", "warm-start failing_models:make old.pt"])
def test_a_folder_that_is_not_there_is_named_before_anything_is_done(command, capsys):
    out = ["--apply", "--out"] if command.startswith("warm") else []
    assert cli.main([*command.split(), *out, "nowhere/new.pt"]) == 2
    error = capsys.readouterr().err
    assert f"there is no directory {os.path.abspath('nowhere')}." in error


def test_a_closed_stdout_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m torch_warmstart explain shape-mismatch >&-",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_path_that_is_no_file_is_said_to_be_none(capsys):
    os.mkfifo("pipe")
    os.symlink("gone.pt", "link")
    os.symlink("loop", "loop")
    for path, said in [
        ("pipe", "at pipe: it is no regular file,"),
        ("link", "at link: the link leads to gone.pt, which is not there,"),
        ("loop", "at loop: the link leads to loop, which is not there,"),
        ("nothing", "at nothing: no such file or directory,"),
    ]:
        assert cli.main(["inspect", path]) == 2
        assert said in capsys.readouterr().err
