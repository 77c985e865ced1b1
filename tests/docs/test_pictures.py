"""Every picture of docs/images is shown on a page, and says what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/**/*.md")]
SHOWN = {
    (page.parent / target).resolve(): said
    for page in PAGES
    for said, target in re.findall(
        r"!\[([^\]]*)\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8")
    )
}


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/images").iterdir()), ids=lambda p: p.name)
def test_a_picture_is_shown_and_described(picture):
    assert len(SHOWN[picture]) > 10


def test_what_is_shown_is_there():
    assert SHOWN
    assert all(path.exists() for path in SHOWN)
