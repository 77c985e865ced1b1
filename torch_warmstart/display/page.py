"""A sheet as HTML: a table to sort, filter and unfold, in one page that needs nothing else.

Whatever a file says is escaped, and the page forbids itself to load or send anything. Without
scripts it is a table with everything in it.
"""

from __future__ import annotations

import html
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch_warmstart.display.sheet import Entry, Sheet, kind_of_remark
from torch_warmstart.errors import plural, printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_UNFOLDED = 60  # entries; a page with more begins folded
_PARTS = 8  # colours of a bar: one for each part of RowAccount.parts
_SEPARATOR = re.compile(r"([/._])(?=\w)")
_LAST_PART = re.compile(r"[./][^./]*$")


def as_page(sheet: Sheet) -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(sheet.title)}</title>\n"
        "<style>body { margin: 0; } .tws { box-sizing: border-box; min-height: 100vh; }</style>\n"
        "</head>\n"
        f"<body>\n{as_fragment(sheet)}\n</body>\n</html>\n"
    )


def as_fragment(sheet: Sheet) -> str:
    """A section with its style and script, for a notebook."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    body = "\n".join(_section(sheet))
    return (
        f'<style>{style}</style>\n<section class="tws">\n{body}\n</section>\n'
        f"<script>{script}</script>"
    )


def _asset(name: str) -> str:
    found = pkgutil.get_data(__package__, name)
    assert found is not None  # it is part of the package
    return found.decode()


def _section(sheet: Sheet) -> Iterator[str]:
    sheet = _without_empty_columns(sheet)
    yield f"<h1>{_text(sheet.title)}</h1>"
    yield f"<p>{_text(sheet.totals)}</p>"
    for remark in sheet.remarks:
        yield f'<p class="{kind_of_remark(remark)}">{_text(remark)}</p>'
    if sheet.entries:
        yield _tools(sheet)
        yield "<table>"
        has_rows = any(entry.detail or entry.bar for entry in sheet.entries)
        yield f"<thead><tr>{''.join(_heads(sheet, has_rows))}</tr></thead>"
        is_open = len(sheet.entries) <= _UNFOLDED
        for layer, entries in _layers(sheet.entries).items():
            yield from _layer(sheet, layer, entries, has_rows, is_open=is_open)
        yield "</table>"


def _without_empty_columns(sheet: Sheet) -> Sheet:
    kept = [
        at
        for at, column in enumerate(sheet.columns)
        if at < sheet.names or column == sheet.state or any(e.cells[at] for e in sheet.entries)
    ]
    columns = tuple(sheet.columns[at] for at in kept)
    entries = (replace(e, cells=tuple(e.cells[at] for at in kept)) for e in sheet.entries)
    return replace(sheet, columns=columns, entries=tuple(entries))


def _tools(sheet: Sheet) -> str:
    states = ""
    if sheet.state is not None:
        at = sheet.columns.index(sheet.state)
        listed = dict.fromkeys(entry.cells[at] for entry in sheet.entries)
        options = "".join(f"<option>{_text(state)}</option>" for state in listed if state)
        states = (
            f'<select aria-label="{_text(sheet.state)}">'
            f'<option value="">every {_text(sheet.state)}</option>{options}</select>'
        )
    return (
        '<div class="tools"><input type="search" placeholder="Filter" aria-label="Filter">'
        f'{states}<button type="button" data-open="true">Unfold all</button>'
        '<button type="button" data-open="false">Fold all</button>'
        '<span class="shown" aria-live="polite"></span></div>'
    )


def _heads(sheet: Sheet, has_rows: bool) -> Iterator[str]:
    for column in sheet.columns:
        kind = ' class="number"' if column in sheet.right else ""
        yield f'<th{kind} aria-sort="none"><button type="button">{_text(column)}</button></th>'
    if has_rows:
        yield '<th aria-sort="none"><button type="button">rows</button></th>'


def _layers(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries by the name of their layer, each layer where its first entry stands."""
    layers: dict[str, list[Entry]] = {}
    for entry in entries:
        layers.setdefault(_layer_of(entry.cells[0]), []).append(entry)
    return layers


def _layer_of(name: str) -> str:
    shorter = _LAST_PART.sub("", name)
    return shorter if shorter != name else ""


def _layer(
    sheet: Sheet, layer: str, entries: Sequence[Entry], has_rows: bool, *, is_open: bool
) -> Iterator[str]:
    yield f'<tbody data-open="{"true" if is_open else "false"}">'
    if layer and len(entries) > 1:
        columns = len(sheet.columns) + has_rows
        yield (
            f'<tr class="fold"><th colspan="{columns}"><button type="button" aria-expanded="true">'
            f"{_text(layer)} <span>{plural(len(entries), sheet.noun)}</span></button></th></tr>"
        )
    yield from (_entry(sheet, entry, has_rows) for entry in entries)
    yield "</tbody>"


def _entry(sheet: Sheet, entry: Entry, has_rows: bool) -> str:
    state = entry.cells[sheet.columns.index(sheet.state)] if sheet.state is not None else ""
    cells = [
        f'<td class="{_kind(sheet, at, column)}">{_breakable(cell)}</td>'
        for at, (column, cell) in enumerate(zip(sheet.columns, entry.cells, strict=True))
    ]
    if sheet.state is not None:
        at = sheet.columns.index(sheet.state)
        cells[at] = f'<td class="state {_word(state)}">{_text(state)}</td>'
    if has_rows:
        cells.append(f"<td>{_bar(entry.bar)}<small>{_text(entry.detail)}</small></td>")
    kind = "entry aside" if entry.is_aside else "entry"
    return f'<tr class="{kind}" data-state="{_text(state)}">{"".join(cells)}</tr>'


def _kind(sheet: Sheet, at: int, column: str) -> str:
    if column in sheet.right:
        return "number"
    return "name" if at < sheet.names else "text"


def _word(state: str) -> str:
    """The state as the name of a class; what a file says is none."""
    return state if state.isascii() and state.isalpha() else ""


def _bar(parts: Iterable[tuple[str, int]]) -> str:
    listed = [(at, what, count) for at, (what, count) in enumerate(parts) if count]
    if not listed:
        return ""
    said = ", ".join(f"{count:,} {what}" for _, what, count in listed)
    spans = "".join(
        f'<span class="part-{at % _PARTS}" style="flex:{count}" '
        f'title="{_text(f"{count:,} {what}")}"></span>'
        for at, what, count in listed
    )
    return f'<div class="bar" role="img" aria-label="{_text(said)}">{spans}</div>'


def _breakable(cell: str) -> str:
    """A cell that may go on in a second line behind each separator of a name."""
    return _SEPARATOR.sub(r"\1<wbr>", _text(cell))


def _text(text: str) -> str:
    return html.escape(printable(text))
