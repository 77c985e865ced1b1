"""What would be lost: tensors of a checkpoint for parameters that modules are made without.

A Dense has a bias unless it was told otherwise; in an `nn.Linear(bias=False)` there is no variable
that could miss it, and the model would compute something else in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_warmstart.errors import MissingTensorError, SettingsError, plural
from torch_warmstart.model import Variable
from torch_warmstart.names import Source
from torch_warmstart.planning.fitting import keys_of
from torch_warmstart.planning.planning import Planning
from torch_warmstart.planning.renames import file_renames
from torch_warmstart.planning.selection import Filed, select
from torch_warmstart.planning.sources import follow_rule, source_of

_ADVICE = (
    "A tensor that would be lost: make the module with it (bias=True, affine=True), leave its name "
    "out of vars_to_warm_start, or take what fits and lose the rest with on_mismatch='keep'."
)


def refuse_losses(planning: Planning, absent: Sequence[Variable]) -> None:
    """Files a problem for each absent parameter that is selected and in the checkpoint.

    With on_mismatch='keep' they are one remark. What another variable takes is not lost, and what
    torch saved has the model's own tensors.
    """
    if planning.checkpoint.family == "torch" or not absent:
        return
    chosen, _ = select(planning.settings, absent)
    found = [(variable, source) for variable, source in _find_all(planning, chosen) if source]
    taken = _taken(planning) if found else set()
    lost = [(v, s) for v, s in found if taken.isdisjoint(spec.key for spec in s.specs)]
    if not lost:
        return
    if planning.settings.on_mismatch == "keep":
        variable, source = lost[0]
        remark = (
            f"What the checkpoint has for {plural(len(lost), 'parameter')} that modules are made "
            f"without (such as {keys_of(source)} for {variable.name}) is lost."
        )
        planning.remarks[remark] = None
        return
    planning.problems += [
        f"{variable.name} is None, but the checkpoint has {keys_of(source)} for it: it would be "
        "lost."
        for variable, source in lost
    ]
    planning.advice.append(_ADVICE)


def _taken(planning: Planning) -> set[str]:
    """The keys of all that the model's variables are made of, whether selected or not."""
    sources = (source_of(planning, v) for v in planning.variables if v.slot is None)
    return {spec.key for source in sources if source is not None for spec in source.specs}


def _find_all(
    planning: Planning, absent: Sequence[Variable]
) -> Iterator[tuple[Variable, Source | None]]:
    """Where each absent parameter would come from."""
    rules = planning.settings.var_name_to_prev_var_name
    renames, _ = file_renames(rules, absent, {id(variable) for variable in absent})
    in_module = _by_module(planning.variables)
    for variable in absent:
        owner = variable.owners[0]
        sources = [source_of(planning, v) for v in in_module.get(id(owner.module), ())]
        beside = [s for s in sources if s is not None and s.owner.module is owner.module]
        if beside:
            others = (planning.finder.beside(source, owner) for source in beside)
            yield variable, next(filter(None, others), None)
        else:
            yield variable, _find_by_name(planning, variable, renames.get(id(variable)))


def _by_module(variables: Sequence[Variable]) -> dict[int, list[Variable]]:
    """Parameters and buffers, by the id of each module that has them."""
    found: dict[int, list[Variable]] = {}
    for variable in variables:
        if variable.slot is None:
            for module in {id(owner.module) for owner in variable.owners}:
                found.setdefault(module, []).append(variable)
    return found


def _find_by_name(planning: Planning, variable: Variable, renamed: Filed | None) -> Source | None:
    """The source of a variable whose module has no tensors that are found."""
    try:
        if renamed is not None:
            return follow_rule(planning, variable, renamed)
        return planning.finder.find(variable)
    except (MissingTensorError, SettingsError):  # not there, or nobody knows which it is
        return None
