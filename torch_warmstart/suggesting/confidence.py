"""How sure a suggested name is, and how sure it must be to count.

high     names agree, and no other tensor would do
medium   the best that there is by a margin, or all that fits, but the names share little or nothing
low      several would do, and only order or a small difference decides; or it is all, but tiny
none     nothing of the right shapes is left

Nothing is imported, for the command line names these in its help without torch.
"""

from __future__ import annotations

from typing import Literal

Confidence = Literal["high", "medium", "low", "none"]
CONFIDENCES: tuple[Confidence, ...] = ("high", "medium", "low", "none")  # the surest first
ASKED_FOR = CONFIDENCES[:-1]  # what a caller may want at least
WRITTEN: Confidence = "medium"  # less sure rules are commented out in a file, unless it is said
