"""The command `explain`: what a code means, from the page of the documentation that lists them."""

from __future__ import annotations

import argparse
import pkgutil
import re
from dataclasses import asdict

from torch_warmstart.cli.answer import DIFFERENT, Answer
from torch_warmstart.display import VERSION, render, terminal_width
from torch_warmstart.errors import did_you_mean
from torch_warmstart.values import frozen

_PAGE = "findings.md"  # docs/findings.md, which this is a link to
_ROW = re.compile(r"^\| `([\w-]+)` \| (.*?) \| (.*) \| (.*) \|$", re.MULTILINE)


@frozen
class Explanation:
    """A row of the page."""

    code: str
    severity: str
    when: str
    what_to_do: str


def explain(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if there is no such code."""
    known = explanations()
    if options.code is None:
        rows = [(each.code, each.severity, each.when) for each in known.values()]
        table = render(("code", "severity", "when"), rows, width=terminal_width())
        listed = [asdict(each) for each in known.values()]
        return Answer(table, document={"version": VERSION, "kind": "codes", "codes": listed})
    found = known.get(options.code)
    if found is None:
        said = (
            f"No problem, warning or note has the code {options.code!r}; without one, all are "
            "listed."
        )
        document = {"version": VERSION, "kind": "codes", "codes": []}
        return Answer("", DIFFERENT, said + did_you_mean(options.code, known), document)
    text = f"{found.code} ({found.severity})\n\nWhen: {found.when}\n\nDo:   {found.what_to_do}"
    document = {"version": VERSION, "kind": "codes", "codes": [asdict(found)]}
    return Answer(text, document=document)


def explanations() -> dict[str, Explanation]:
    """All codes, as the page has them."""
    page = pkgutil.get_data("torch_warmstart.cli", _PAGE)
    assert page is not None  # it is part of the package
    rows = (Explanation(*match.groups()) for match in _ROW.finditer(page.decode()))
    return {each.code: each for each in rows}
