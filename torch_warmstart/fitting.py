"""Whether and how a tensor of a checkpoint becomes a variable: layout, shape, dtype, rows."""

from __future__ import annotations

import torch

from torch_warmstart.errors import SettingsError, UnsupportedError, plural
from torch_warmstart.formats.base import Family, TensorSpec
from torch_warmstart.layouts import IDENTITY, Layout, find_layout
from torch_warmstart.plan import Cast
from torch_warmstart.remapping import Remapping
from torch_warmstart.settings import VocabInfo
from torch_warmstart.tf_layers import tf_layout
from torch_warmstart.variables import Owner, Variable

ON_MISMATCH_ADVICE = (
    "A variable that does not fit: leave it out of vars_to_warm_start, or keep what the model has "
    "with on_mismatch='keep'."
)


class MisfitError(Exception):
    """What is wrong with one variable. The planner collects these; users never see one."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem)
        self.advice = advice  # said once below all problems that share it


def choose_layout(
    variable: Variable, owner: Owner, spec: TensorSpec, family: Family, by_user: str | None
) -> Layout:
    """The user's layout, or the one the module's type calls for; MisfitError if there is none."""
    if by_user is not None:
        try:
            return find_layout(by_user)
        except SettingsError as error:
            raise MisfitError(f"var_name_to_layout: {variable.name}: {error}") from error
    if family != "tensorflow":
        return IDENTITY
    try:
        return tf_layout(owner.module, owner.leaf)
    except UnsupportedError as error:
        raise MisfitError(
            f"{variable.name} cannot be taken from {spec.key!r}: {error}, and this change is not "
            "supported yet. Leave it out of vars_to_warm_start, or if the checkpoint has it as "
            f"torch does, say so: var_name_to_layout={{{variable.name!r}: 'identity'}}."
        ) from error


def shape_in_torch(variable: Variable, spec: TensorSpec, layout: Layout) -> tuple[int, ...]:
    """The shape of a tensor after its layout change; MisfitError if its rank is another."""
    if not layout.applies_to(spec.shape) or len(spec.shape) != len(variable.shape):
        raise MisfitError(_shapes_differ(variable, spec, layout), ON_MISMATCH_ADVICE)
    return layout.shape_in_torch(spec.shape)


def check_shape(variable: Variable, spec: TensorSpec, layout: Layout) -> None:
    """Raises MisfitError unless a tensor has the variable's shape once its layout is changed."""
    if shape_in_torch(variable, spec, layout) != variable.shape:
        raise MisfitError(_shapes_differ(variable, spec, layout), ON_MISMATCH_ADVICE)


def choose_cast(variable: Variable, spec: TensorSpec) -> Cast | None:
    """The change of dtype that is needed, or None; MisfitError if it is not one we make.

    TensorFlow never casts. Floating types are cast to each other, integers to wider ones.
    """
    source, target = spec.dtype, variable.tensor.dtype
    if source is None:
        raise MisfitError(
            f"{variable.name}: {spec.key!r} is of type {spec.stored_dtype}, which no torch tensor "
            "holds.",
            ON_MISMATCH_ADVICE,
        )
    if source == target:
        return None
    if source.is_floating_point and target.is_floating_point:
        return Cast(source, target, lossy=not _holds_all_of(target, source))
    if _is_integer(source) and _is_integer(target) and _covers(target, source):
        return Cast(source, target, lossy=False)
    raise MisfitError(
        f"{variable.name} is {target}, but {spec.key!r} in the checkpoint is {source}: only "
        "floating types are cast to each other, and integers to wider ones.",
        ON_MISMATCH_ADVICE,
    )


def vocab_axis(variable: Variable, info: VocabInfo) -> int:
    """The axis that a VocabInfo is for, counted from 0; MisfitError if the variable has none."""
    rank = len(variable.shape)
    if not -rank <= info.axis < rank:
        raise MisfitError(
            f"{variable.name}: its VocabInfo is for axis {info.axis}, but its shape is "
            f"{list(variable.shape)}."
        )
    return info.axis % rank


def check_other_axes(variable: Variable, spec: TensorSpec, layout: Layout, axis: int) -> int:
    """The old tensor's size along `axis`; MisfitError unless its other sizes are the variable's."""
    old, new = list(shape_in_torch(variable, spec, layout)), list(variable.shape)
    if old[:axis] + old[axis + 1 :] != new[:axis] + new[axis + 1 :]:
        raise MisfitError(
            f"{variable.name}: apart from axis {axis}, which the vocabulary is for, its shape "
            f"{new} must equal that of {spec.key!r}, {old}."
        )
    return old[axis]


def check_new_rows(variable: Variable, remapping: Remapping, axis: int) -> None:
    """Raises MisfitError unless the variable has exactly the rows its VocabInfo describes."""
    size, described = variable.shape[axis], len(remapping.rows)
    if size == described:
        return
    fitting = [at for at, length in enumerate(variable.shape) if length == described]
    hint = f" (axis {fitting[0]} has that size)" if fitting else ""
    raise MisfitError(
        f"{variable.name} has size {size:,} along axis {axis}, but its VocabInfo describes "
        f"{described:,}{hint}: {described - remapping.num_oov:,} new entries and "
        f"{plural(remapping.num_oov, 'OOV row')}."
    )


def check_old_rows(
    variable: Variable, spec: TensorSpec, remapping: Remapping, axis: int, old_size: int
) -> None:
    """Raises MisfitError unless the old tensor has the rows that the old vocabulary stands for."""
    copied = remapping.num_oov_copied
    if copied and remapping.old_rows != old_size:
        raise MisfitError(
            f"{variable.name}: {plural(remapping.num_old, 'old entry')} and "
            f"{plural(copied, 'old OOV row')} make {plural(remapping.old_rows, 'row')}, but "
            f"{spec.key!r} has {old_size:,} along axis {axis}: where its OOV rows are is unclear."
        )
    if remapping.old_rows > old_size:
        raise MisfitError(
            f"{variable.name}: the old vocabulary's entries reach to row "
            f"{remapping.old_rows - 1:,}, but {spec.key!r} has only {plural(old_size, 'row')} "
            f"along axis {axis}. Is old_vocab the vocabulary it was trained with, and "
            "old_vocab_size right?"
        )


def _shapes_differ(variable: Variable, spec: TensorSpec, layout: Layout) -> str:
    how = "" if layout is IDENTITY else f", to be changed by {layout.name!r}"
    problem = (
        f"{variable.name} has shape {list(variable.shape)}, but {spec.key!r} in the checkpoint has "
        f"{list(spec.shape)}{how}."
    )
    if len(variable.shape) != len(spec.shape):
        return problem
    old = layout.shape_in_torch(spec.shape)
    differing = [dim for dim, size in enumerate(variable.shape) if size != old[dim]]
    if len(differing) != 1:
        return problem
    return (
        f"{problem} If a vocabulary behind axis {differing[0]} has changed, describe the change by "
        "a VocabInfo in var_name_to_vocab_info."
    )


def _holds_all_of(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.finfo(target), torch.finfo(source)
    return (
        wide.eps <= narrow.eps
        and wide.max >= narrow.max
        and wide.smallest_normal * wide.eps <= narrow.smallest_normal * narrow.eps
    )


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _covers(target: torch.dtype, source: torch.dtype) -> bool:
    wide, narrow = torch.iinfo(target), torch.iinfo(source)
    return wide.min <= narrow.min and wide.max >= narrow.max
