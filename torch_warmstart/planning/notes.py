"""What a plan says besides its items: what stays behind, and what weights cannot carry over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from torch_warmstart.errors import Finding, SettingsError, plural
from torch_warmstart.model import Variable
from torch_warmstart.names import Finder
from torch_warmstart.planning.audit import Audit, audit_port
from torch_warmstart.planning.plan import PlanItem
from torch_warmstart.planning.selection import selects_parameters_only
from torch_warmstart.settings import WarmStartSettings


def notes_on(
    settings: WarmStartSettings, items: Sequence[PlanItem], finder: Finder
) -> Iterator[Finding]:
    """What is worth knowing about a plan without problems."""
    if selects_parameters_only(settings):
        yield from _buffers_left_behind(settings, items, finder)
    lossy = [item.name for item in items if item.cast is not None and item.cast.lossy]
    if lossy:
        text = (
            f"{plural(len(lossy), 'variable')} (such as {lossy[0]!r}) lose precision or range: the "
            "model's dtype is narrower than the checkpoint's."
        )
        yield Finding("lossy-cast", "note", lossy[0], text)


def _buffers_left_behind(
    settings: WarmStartSettings, items: Iterable[PlanItem], finder: Finder
) -> Iterator[Finding]:
    """Unselected buffers the checkpoint has: in TensorFlow a silent loss of accuracy."""
    buffers = [item.variable for item in items if item.variable.kind == "buffer"]
    left = [buffer.name for buffer in buffers if _is_in(finder, buffer)]
    if left:
        text = (
            f"{plural(len(left), 'buffer')} that the checkpoint has (such as {left[0]!r}) stay as "
            "they are, because a pattern given as a str selects parameters only. "
            f"{_write_a_list(settings)}"
        )
        yield Finding("buffers-left-behind", "warning", left[0], text)


def _write_a_list(settings: WarmStartSettings) -> str:
    return f"To take them too, write a list: vars_to_warm_start=[{settings.vars_to_warm_start!r}]."


def _is_in(finder: Finder, variable: Variable) -> bool:
    try:
        return finder.find(variable) is not None
    except SettingsError:  # there, and more than once
        return True


def audits_of(
    model: torch.nn.Module, items: Iterable[PlanItem], finder: Finder
) -> tuple[Audit, ...]:
    """What to compare by hand, where TensorFlow's weights come into a model."""
    if not finder.conventions.has_own_layers:
        return ()
    layouts: dict[torch.nn.Module, list[str]] = {}
    for item in items:
        if item.state != "kept" and item.owner:
            layouts.setdefault(item.owner.module, []).append(item.layout.name)
    return audit_port(model, layouts)
