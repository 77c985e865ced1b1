"""A progress bar for long work, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str, int], None]  # what has been done, and how many bytes of the total it was

_WORTH_SHOWING = 256 << 20  # bytes; less is over before a bar can be read


def _advance_nothing(description: str, count: int) -> None:
    """What is called where no bar is shown."""


@contextmanager
def progress_bar(total: int, *, show: bool | None) -> Iterator[Advance]:
    """Yields a function to call after each step.

    Args:
        total: Bytes of work altogether.
        show: True or False; None shows a bar if the work is long and stderr is a terminal.
    """
    if show is None:
        show = total >= _WORTH_SHOWING and sys.stderr.isatty()
    if not show:
        yield _advance_nothing
        return
    from rich.console import Console  # imported for a bar only: it takes longer than small work
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Warm start", total=total)

        def advance(description: str, count: int) -> None:
            progress.update(task, description=description, advance=count)

        yield advance
