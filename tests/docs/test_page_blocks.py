"""Every block of the pages for users runs; each page links only to what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import torch_warmstart

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "from_tensorflow", "resume_or_warm_start", "language_models", "faq", "trainers")
RECIPE = "folders"  # made by a test of its own, which runs the block: test_recipe_*.py
BLOCK = re.compile(r"(?:<!-- needs (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)


def blocks() -> list[Any]:
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        parts = BLOCK.findall(text)
        assert len(parts) == text.count("```python")
        found += [
            pytest.param(*part, id=f"{page}-{at}")
            for at, part in enumerate(parts)
            if part[0] != RECIPE
        ]
    return found


@pytest.mark.filterwarnings("ignore:::lightning", "ignore:.*(LeafSpec|treespec).*")
@pytest.mark.parametrize(("needed", "code"), blocks())
def test_a_block_runs(
    needed: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needed:
        pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "page"})


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(?:::: torch_warmstart\.|### )([\w.]+)$", text, re.MULTILINE)
    names = [name.rpartition(".")[2] for name in listed if not name.startswith("integrations.")]
    assert sorted(names) == sorted(torch_warmstart.__all__)


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"[\w-]+\.md", nav)) == pages
