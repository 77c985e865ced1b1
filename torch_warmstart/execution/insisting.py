"""Something that is finished, whatever interrupts it.

Ctrl-C, and a signal handler that raises, strike between any two bytecodes, those of an `except` or
`finally` too. So what must be finished stands in many `finally` clauses around each other: what
strikes one of them is followed by the next. Signals are not held back: that works in the main
thread only, hides Ctrl-C for minutes on a large model, and does nothing for a debugger's trace.
"""

from __future__ import annotations

from collections.abc import Callable

TIMES = 12  # interruptions that are survived; a person does not press Ctrl-C as often


def insist(act: Callable[[], object], settle: Callable[[], object], *, times: int = TIMES) -> None:
    """Runs `act`, and then `settle` until it has come to its end once.

    Args:
        act: May be left anywhere.
        settle: Puts in order what `act` has left. It is called again after it is done, and then
            does nothing; what it does may be done twice.
        times: How many interruptions of `settle` it is called again after.

    Whatever is raised is raised in the end, by the last with those before it as its context.
    """
    try:
        if times:
            insist(act, settle, times=times - 1)
        else:
            act()
    finally:
        settle()


def insist_once(act: Callable[[], object], settle: Callable[[], object]) -> None:
    """As `insist`, for a `settle` that does not know by itself whether it is done."""
    left = [settle]

    def settle_if_left() -> None:
        while left:
            left[-1]()
            left.pop()

    insist(act, settle_if_left)
