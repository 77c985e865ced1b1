"""What docs/live_models.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "live_models.md"


def test_the_example_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], str(_PAGE), "exec"), {})
    assert "2 variables: 2 remapped" in capsys.readouterr().out
