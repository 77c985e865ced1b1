"""What would be lost: tensors of a checkpoint for parameters that modules are made without.

A Dense has a bias unless it was told otherwise; in an `nn.Linear(bias=False)` there is no variable
that could miss it, and the model would compute something else in silence. It is the same for what
torch saved: its own loading refuses such a key, too, unless it is told not to be strict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from torch_warmstart.errors import Finding, MissingTensorError, SettingsError, plural
from torch_warmstart.model import Variable, absent_variables
from torch_warmstart.names import Source
from torch_warmstart.planning.fitting import keys_of
from torch_warmstart.planning.locating import Located, follow_rule
from torch_warmstart.planning.renames import Renaming, read_renames
from torch_warmstart.planning.selection import Entry, select
from torch_warmstart.settings import WarmStartSettings

_HINT = (
    "A tensor that would be lost: make the module with it (bias=True, affine=True), leave its name "
    "out of vars_to_warm_start, or take what fits and lose the rest with on_mismatch='keep'."
)


def find_lost(
    model: nn.Module, settings: WarmStartSettings, located: Located
) -> list[tuple[Variable, Source]]:
    """The parameters that modules are made without and the checkpoint has, selected or not.

    What another variable takes is not lost.
    """
    absent = absent_variables(model) if located.unused else ()
    found = [(v, source) for v, source in _find_all(settings, absent, located) if source]
    return [(v, s) for v, s in found if located.used.isdisjoint(spec.key for spec in s.specs)]


def say_lost(settings: WarmStartSettings, lost: Sequence[tuple[Variable, Source]]) -> list[Finding]:
    """What is wrong with those that are selected; with on_mismatch='keep' they are one warning."""
    selected = frozenset(select(settings, [variable for variable, _ in lost])[0])
    chosen = [(variable, source) for variable, source in lost if variable in selected]
    if chosen and settings.on_mismatch == "keep":
        return [_warning(*chosen[0], len(chosen))]
    return [_problem(variable, source) for variable, source in chosen]


def _warning(variable: Variable, source: Source, count: int) -> Finding:
    text = (
        f"What the checkpoint has for {plural(count, 'parameter')} that modules are made without "
        f"(such as {keys_of(source)} for {variable.name}) is lost."
    )
    return Finding("parameter-lost", "warning", variable.name, text)


def _problem(variable: Variable, source: Source) -> Finding:
    text = (
        f"{variable.name} is None, but the checkpoint has {keys_of(source)} for it: it would be "
        "lost."
    )
    return Finding("parameter-lost", "error", variable.name, text, _HINT)


def _find_all(
    settings: WarmStartSettings, absent: Sequence[Variable], located: Located
) -> Iterator[tuple[Variable, Source | None]]:
    """Where each absent parameter would come from."""
    rules = settings.var_name_to_prev_var_name
    renames, _ = read_renames(rules, absent, frozenset(absent))
    for variable in absent:
        owner = variable.owners[0]
        sources = [located.source(v) for v in located.in_module(owner.module)]
        beside = [s for s in sources if s is not None and s.owner.module is owner.module]
        if beside:
            others = (located.finder.beside(source, owner) for source in beside)
            yield variable, next(filter(None, others), None)
        else:
            yield variable, _find_by_name(variable, renames.get(variable), located)


def _find_by_name(
    variable: Variable, rename: Entry[Renaming] | None, located: Located
) -> Source | None:
    """The source of a variable whose module has no tensors that are found."""
    try:
        if rename is not None:
            return follow_rule(located.finder, variable, rename)
        return located.finder.find(variable)
    except (MissingTensorError, SettingsError):  # not there, or nobody knows which it is
        return None
