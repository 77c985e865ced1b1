"""Writes docs/licences.md: what the package and its extras install, and under which licence.

    python docs/site/licences.py    # where everything of constraints.txt is installed

Licences are what the installed distributions say of themselves.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
NAME = re.compile(r"[\w.-]+")
HEAD = """\
# Licences

torch_warmstart is under Apache-2.0. This page lists the versions it is developed and tested with
(`constraints.txt`), what installs them, and the licence that each distribution states. What these
install in turn is theirs. `python docs/site/licences.py` writes the page.

| distribution | version | licence | installed by |
|---|---|---|---|
"""
# As they are said in the distributions' own words, where these are longer than a name.
SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Version by name, of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines)
    return {normal(pin[1]): pin[2] for pin in pins if pin}


def installed_by() -> dict[str, list[str]]:
    """By name, the extras that install it; "" for the package itself."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for extra, names in [("", _list(text, "dependencies")), *_extras(text)]:
        for name in names:
            found.setdefault(normal(name), []).append(extra)
    return found


def _extras(text: str) -> Iterator[tuple[str, list[str]]]:
    table = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    for extra in re.findall(r"^(\w+) = \[", table, re.MULTILINE):
        yield extra, _list(table, extra)


def _list(text: str, key: str) -> list[str]:
    """The names in a list of requirements."""
    inside = re.search(rf"^{key} = \[(.*?)\](?:\s*#.*)?$", text, re.MULTILINE | re.DOTALL)
    assert inside is not None, key
    return [NAME.match(said)[0] for said in re.findall(r'"([^"]+)"', inside[1])]  # type: ignore[index]


def licence(name: str) -> str:
    """What a distribution says of itself."""
    said = importlib.metadata.metadata(name)
    if said["License-Expression"]:
        return str(said["License-Expression"])
    classifiers = (line.split(" :: ") for line in said.get_all("Classifier") or ())
    kinds = [kind[-1] for kind in classifiers if kind[0] == "License" and len(kind) > 2]
    kinds = kinds or [str(said["License"]).split("\n")[0]]
    return ", ".join(SPDX.get(kind, kind) for kind in kinds)


def main() -> None:
    """Writes the page."""
    by, versions = installed_by(), pinned()
    rows = [
        f"| {name} | {versions[name]} | {licence(name)} | {_told(by[name])} |\n"
        for name in sorted(by.keys() & versions.keys())
    ]
    PAGE.write_text(HEAD + "".join(rows), encoding="utf-8")


def _told(extras: list[str]) -> str:
    return ", ".join(f"`[{extra}]`" if extra else "the package" for extra in extras)


if __name__ == "__main__":
    main()
