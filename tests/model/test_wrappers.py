"""Names that wrappers put in front of a module's own, or between."""

from __future__ import annotations

import pytest

from torch_warmstart.model.wrappers import CHILDREN, without_children


@pytest.mark.parametrize("child", sorted(CHILDREN))
@pytest.mark.parametrize("separator", [".", "/"])
def test_each_wrapper_s_child_is_no_part_of_a_name(child: str, separator: str) -> None:
    name = separator.join(["a", child, "b"])
    assert without_children(name) == separator.join("ab")
