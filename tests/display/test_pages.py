"""HTML of what is shown: one page that needs nothing else, and in which nothing acts."""

from __future__ import annotations

import html.parser
import pkgutil
import re

import pytest
import shown_things
import torch

import torch_warmstart as tws
from torch_warmstart.display import Entry, Sheet
from torch_warmstart.display.page import _bar, as_page

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


class Reader(html.parser.HTMLParser):
    """The tags, their attributes, and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "wbr"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.cells and "td" in self.open:
            self.cells[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=shown_things.EVERY)
def shown(request):
    return shown_things.EVERY[request.param]()


def test_a_page_is_written_and_returned(shown, tmp_path):
    page = shown.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert page.startswith("<!DOCTYPE html>")
    assert not Reader(page).open


def test_a_page_loads_nothing_from_anywhere(shown):
    page = shown.to_html()
    reader = Reader(page)
    for _, attributes in reader.tags:
        assert not {"src", "href", "action", "data"} & set(attributes)
    assert "url(" not in page
    assert "@import" not in page
    assert "http://" not in page
    assert "https://" not in page
    (policy,) = [meta for meta in reader.of("meta") if "http-equiv" in meta]
    assert policy["content"].startswith("default-src 'none';")


def test_every_variable_has_a_row_with_its_state(shown):
    reader = Reader(shown.to_html())
    rows = [tag for tag in reader.of("tr") if (tag.get("class") or "").startswith("entry")]
    assert len(rows) == len(shown._sheet().entries)
    assert all(row["data-state"] for row in rows)


def test_a_notebook_gets_the_same_table(shown):
    page, fragment = shown.to_html(), shown._repr_html_()
    assert fragment in page


def test_rows_of_a_remapped_table_are_a_bar():
    reader = Reader(shown_things.plan().to_html())
    (bar,) = [tag for tag in reader.of("div") if tag.get("class") == "bar"]
    assert bar["aria-label"] == "3 moved, 3 new, 1 oov new, 3 dropped"
    parts = [tag for tag in reader.of("span") if (tag.get("class") or "").startswith("part-")]
    assert [part["style"] for part in parts] == ["flex:3", "flex:3", "flex:1", "flex:3"]


def test_each_part_of_a_bar_has_a_colour_of_its_own():
    parts = [name for name, _ in tws.RowAccount(0, 0, 0, 0, 0, 0, 0, 0).parts]
    css = pkgutil.get_data("torch_warmstart.display", "page.css").decode()
    colours = dict(re.findall(r"\.part-(\d) \{ background: (var\(--\w+\))", css))
    assert sorted(colours) == [str(at) for at in range(len(parts))]
    assert len(set(colours.values())) == len(parts)
    bar = _bar([(name, 1) for name in parts])
    assert re.findall(r"part-(\d)", bar) == sorted(colours)


def test_layers_are_folded_if_there_are_many():
    model = torch.nn.ModuleDict({f"l{n}": torch.nn.Linear(1, 1) for n in range(40)})
    reader = Reader(tws.plan_warm_start(model, model).to_html())
    bodies = reader.of("tbody")
    assert len(bodies) == 40
    assert {body["data-open"] for body in bodies} == {"false"}


@pytest.mark.parametrize("place", ["title", "cell", "state", "remark", "bar"])
def test_whatever_a_file_says_is_only_text(place):
    text = dict.fromkeys(["title", "cell", "state", "remark", "bar"], "x") | {place: HOSTILE}
    row = Entry((f"a.{text['cell']}", text["state"]), text["cell"], bar=((text["bar"], 1),))
    sheet = Sheet(
        text["title"], ("n", "state"), (row, row), "T", state="state", remarks=(text["remark"],)
    )

    class One(tws.CheckpointDiff):
        def _sheet(self):
            return sheet

    page = One("", "", (), 0, True).to_html()
    reader = Reader(page)
    assert len(reader.of("script")) == 1
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_names_of_keys_are_only_text():
    checkpoint = {f"w{HOSTILE}": torch.ones(1), f"w{HOSTILE}2": torch.ones(1)}
    page = tws.load_checkpoint(checkpoint).to_html()
    assert len(Reader(page).of("script")) == 1


def test_it_has_two_sets_of_colours():
    page = shown_things.plan().to_html()
    assert "prefers-color-scheme: dark" in page
    assert 'name="color-scheme" content="light dark"' in page
    colours = re.findall(r"--ink: (#\w+)", page)
    assert len(set(colours)) == 2


def test_a_page_of_many_rows_looks_at_each_a_few_times():
    """Counted, not timed: to look at all rows for each row would be a billion looks."""
    looks = 0

    class Counted(tuple):
        def __iter__(self):
            nonlocal looks
            for entry in tuple.__iter__(self):
                looks += 1
                yield entry

    entries = Counted(Entry((f"l.{n}", "copied")) for n in range(3_000))
    as_page(Sheet("T", ("n", "state"), entries, "Totals", state="state"))
    assert looks <= 6 * len(entries)


def test_a_column_that_nobody_fills_is_left_out():
    rows = (Entry(("a", "", "copied")), Entry(("b", "", "kept")))
    page = as_page(Sheet("T", ("name", "why", "state"), rows, "2", state="state"))
    assert re.findall(r'<button type="button">(\w+)</button></th>', page) == ["name", "state"]
    assert page.count("<td") == 4
