"""The pages in a real browser: sorted, filtered, unfolded, dark. `make browser` installs chromium.

A script at the end of a page does what a user would, and writes down what is then to be seen.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_warmstart as tws

BROWSER = os.environ.get("TORCH_WARMSTART_BROWSER") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="there is no chromium on this machine; make browser installs it"
)
SECONDS = 1_000  # until a browser that hangs is ended; no measure of anything

DRIVER = """
<script>
const seen = (element) => element.getClientRects().length > 0;
const rows = () => [...document.querySelectorAll("tr.entry")].filter(seen)
  .map((row) => row.cells[0].textContent);
const head = (name) => [...document.querySelectorAll("thead th")]
  .find((cell) => cell.textContent === name);
const type = (text) => { const field = document.querySelector("input");
  field.value = text; field.dispatchEvent(new Event("input")); };
const choose = (text) => { const field = document.querySelector("select");
  field.value = text; field.dispatchEvent(new Event("change")); };
const click = (element) => { element.click(); return rows(); };
const found = {};
%s
const said = document.createElement("pre");
said.id = "said";
said.textContent = JSON.stringify(found);
document.body.append(said);
</script>
"""


def model() -> nn.Module:
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(4, 2),
            "a": nn.ModuleDict({"fc": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2)}),
            "b": nn.Linear(2, 2),
        }
    )


def plan() -> tws.WarmStartPlan:
    info = tws.VocabInfo(["x", "b", "c", "a"], 4, 0, ["a", "b", "c", "d"])
    settings = tws.WarmStartSettings(model().state_dict(), ".*", {"embed.weight": info})
    return tws.plan_warm_start(model(), settings)


def browse(page: str, *options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    return subprocess.run(
        [BROWSER, *flags, "--virtual-time-budget=2000", *options, page],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )


def done_in(folder: Path, page: str, script: str, *options: str):
    """What a script found in a page."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", (DRIVER % script) + "</body>"), encoding="utf-8")
    dom = browse(path.as_uri(), "--dump-dom", *options).stdout
    said = re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL)
    assert said, dom[-2000:]
    return json.loads(html.unescape(said[1]))


@functools.cache
def plan_page() -> str:
    return plan().to_html()


def test_a_table_is_sorted_by_its_headings(tmp_path):
    found = done_in(
        tmp_path,
        plan_page(),
        """
        found.before = rows();
        found.up = click(head("variable"));
        found.order = head("variable").getAttribute("aria-sort");
        found.down = click(head("variable"));
        found.again = click(head("variable"));
        """,
    )
    names = [item.name for item in plan().items]
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    by_layer = [name for layer in layers for name in names if name.rpartition(".")[0] == layer]
    assert found["before"] == by_layer
    assert found["up"] == sorted(names)
    assert found["order"] == "ascending"
    assert found["down"] == sorted(names, reverse=True)
    assert found["again"] == by_layer


def test_numbers_are_sorted_as_numbers(tmp_path):
    sizes = {"a": 9, "b": 2000, "c": 100}
    checkpoint = tws.load_checkpoint({k: torch.zeros(n) for k, n in sizes.items()})
    found = done_in(tmp_path, checkpoint.to_html(), 'found.up = click(head("bytes"));')
    assert found["up"] == ["a", "c", "b"]


def test_a_table_is_filtered_by_a_text_and_by_a_state(tmp_path):
    found = done_in(
        tmp_path,
        plan_page(),
        """
        type("NORM.w"); found.text = rows();
        found.count = document.querySelector(".shown").textContent;
        type(""); choose("remapped"); found.state = rows();
        choose(""); found.all = rows().length;
        """,
    )
    assert found["text"] == ["a.norm.weight"]
    assert found["count"] == "1 of 10"
    assert found["state"] == ["embed.weight"]
    assert found["all"] == 10


def test_layers_are_folded_and_unfolded(tmp_path):
    found = done_in(
        tmp_path,
        plan_page(),
        """
        const folds = [...document.querySelectorAll("tr.fold")];
        found.layers = folds.map((fold) => fold.textContent.trim());
        found.one = click(folds[0].querySelector("button"));
        found.expanded = folds[0].querySelector("button").getAttribute("aria-expanded");
        found.none = click(document.querySelector('.tools button[data-open="false"]')).length;
        type("fc"); found.found = rows(); type("");
        found.every = click(document.querySelector('.tools button[data-open="true"]')).length;
        """,
    )
    assert found["layers"] == ["a.fc 2 variables", "a.norm 5 variables", "b 2 variables"]
    assert not any(name.startswith("a.fc") for name in found["one"])
    assert found["expanded"] == "false"
    assert found["none"] == 1  # embed.weight is no layer of several
    assert found["found"] == ["a.fc.weight", "a.fc.bias"]
    assert found["every"] == 10


def test_a_bar_is_as_wide_as_its_rows(tmp_path):
    found = done_in(
        tmp_path,
        plan_page(),
        """
        found.parts = [...document.querySelectorAll(".bar span")]
          .map((part) => [part.title, part.getBoundingClientRect().width]);
        """,
    )
    widths = dict(found["parts"])
    assert set(widths) == {"2 in place", "1 moved", "1 new", "1 dropped"}
    assert widths["2 in place"] == pytest.approx(2 * widths["1 moved"], rel=0.05)


def test_it_is_dark_where_the_reader_wants_that(tmp_path):
    script = """
        const style = getComputedStyle(document.querySelector(".tws"));
        found.paper = style.backgroundColor; found.ink = style.color;
    """
    light = done_in(tmp_path, plan_page(), script)
    dark = done_in(tmp_path, plan_page(), script, "--blink-settings=preferredColorScheme=0")
    assert light == {"paper": "rgb(255, 255, 255)", "ink": "rgb(31, 35, 40)"}
    assert dark == {"paper": "rgb(13, 17, 23)", "ink": "rgb(230, 237, 243)"}


def test_what_a_file_says_does_nothing(tmp_path):
    hostile = '<img src=x onerror="found.attacked=1"><script>found.attacked=1</script>'
    checkpoint = tws.load_checkpoint({hostile: torch.ones(1), "b": torch.ones(1)})
    found = done_in(
        tmp_path, checkpoint.to_html(), 'click(head("key")); type("img"); found.rows = rows();'
    )
    assert found == {"rows": [hostile]}


def test_a_screenshot_can_be_taken(tmp_path):
    """`TORCH_WARMSTART_SCREENSHOTS` names a folder where they are kept."""
    folder = Path(os.environ.get("TORCH_WARMSTART_SCREENSHOTS", tmp_path))
    page = tmp_path / "plan.html"
    page.write_text(plan_page(), encoding="utf-8")
    for name, options in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",))):
        path = folder / f"plan_{name}.png"
        browse(page.as_uri(), f"--screenshot={path}", "--window-size=1200,760", *options)
        assert path.read_bytes().startswith(b"\x89PNG")
