"""Makes docs/images of terminal, notebook, pages and site: real output, seen by a browser.

    python docs/site/pictures.py    # `make pictures`; needs chromium, and build/site of `make docs`

The terminal's picture is what commands print on a terminal of 80 columns, with its colours. The
notebook's is what `display()` shows of a plan.
"""

from __future__ import annotations

import importlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import torch
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text
from torch import nn

import torch_warmstart as tws

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SITE = ROOT / "build" / "site" / "index.html"
COMMANDS = (
    "torch-warmstart inspect old.pt",
    "torch-warmstart plan my_models:make --settings warmstart.toml",
)
MODEL = """\
from torch import nn


def make():
    return nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 2)})
"""
SETTINGS = """\
ckpt_to_initialize_from = "old.pt"

[var_name_to_vocab_info."embed.weight"]
new_vocab = ["c", "x", "a"]
old_vocab = ["a", "b", "c", "d"]
"""
CELL = """\
plan = tws.plan_warm_start(model, settings)
plan"""
PAGE = "<!doctype html><meta charset=utf-8><style>%s</style><body>%s"
TERMINAL = "body{margin:0;padding:14px;background:#191919} pre{margin:0;font-size:14px}"
NOTEBOOK = """
body{margin:16px;font:14px sans-serif;background:#fff} .row{display:flex;margin-bottom:8px}
.prompt{width:64px;font:12px monospace;color:#307fc1;padding-top:8px;flex:none}
.code{flex:1;background:#f5f5f5;border:1px solid #ddd;padding:8px;font:13px monospace;margin:0}
.out{flex:1;overflow:auto}
"""


def main() -> None:
    """Makes the pictures."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("There is no chromium on this machine.")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _write_example(folder)
        said = "\n".join(f"$ {command}\n{_printed(command, folder)}" for command in COMMANDS)
        pictures = {"terminal": (_terminal(said), "690,380"), "notebook": (_notebook(), "900,390")}
        for name, (page, size) in pictures.items():
            (folder / f"{name}.html").write_text(page, encoding="utf-8")
            _photograph(browser, folder / f"{name}.html", IMAGES / f"{name}.png", size)
        _plan().to_html(folder / "plan.html")
        for name, scheme in (("light", 1), ("dark", 0)):
            prefers = f"--blink-settings=preferredColorScheme={scheme}"
            picture = IMAGES / f"plan_page_{name}.png"
            _photograph(browser, folder / "plan.html", picture, "1200,720", prefers)
        if SITE.exists():
            _photograph(browser, SITE, IMAGES / "site.png", "1280,800")
        else:
            print("build/site is not there: the picture of the site stays. Run make docs.")


def _write_example(folder: Path) -> None:
    """The files of docs/cli.md."""
    (folder / "my_models.py").write_text(MODEL, encoding="utf-8")
    (folder / "warmstart.toml").write_text(SETTINGS, encoding="utf-8")
    old = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 2)})
    torch.save({"model": old.state_dict(), "epoch": 3}, folder / "old.pt")


def _printed(command: str, folder: Path) -> str:
    """What a command prints on a terminal of 80 columns."""
    ours, its = pty.openpty()
    words = [sys.executable, "-m", "torch_warmstart", *shlex.split(command)[1:]]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color"}
    process = subprocess.Popen(words, stdout=its, stderr=its, cwd=folder, env=environment)
    os.close(its)
    printed = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        printed += part
    if process.wait() != 0:
        sys.exit(f"{command} failed:\n{printed.decode()}")
    return printed.decode().replace("\r\n", "\n")


def _terminal(said: str) -> str:
    console = Console(record=True, width=80, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text.from_ansi(said.rstrip("\n")))
    code = '<pre style="font-family:monospace;color:#d9d9d9">{code}</pre>'
    inside = console.export_html(theme=DIMMED_MONOKAI, inline_styles=True, code_format=code)
    return PAGE % (TERMINAL, inside)


def _notebook() -> str:
    old = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 2)})
    new = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 2)})
    info = tws.VocabInfo(["c", "x", "a"], old_vocab=["a", "b", "c", "d"])
    settings = tws.WarmStartSettings(old.state_dict(), ".*", {"embed.weight": info})
    shown = tws.plan_warm_start(new, settings)._repr_html_()
    rows = [
        f"<div class=row><div class=prompt>In [1]:</div><pre class=code>{escape(CELL)}</pre></div>",
        f"<div class=row><div class=prompt>Out[1]:</div><div class=out>{shown}</div></div>",
    ]
    return PAGE % (NOTEBOOK, "".join(rows))


def _plan() -> tws.WarmStartPlan:
    """The plan that the tests of tables look at: a bit of everything."""
    sys.path.insert(0, str(ROOT / "tests" / "display"))
    made: tws.WarmStartPlan = importlib.import_module("shown_things").plan()
    return made


def _photograph(browser: str, page: Path, picture: Path, size: str, *more: str) -> None:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    looks = ("--hide-scrollbars", f"--window-size={size}", "--virtual-time-budget=2000")
    subprocess.run(
        [browser, *flags, *looks, *more, f"--screenshot={picture}", page.as_uri()],
        check=True,
        capture_output=True,
    )
    print(f"Wrote {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
