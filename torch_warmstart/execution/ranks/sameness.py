"""What must be the same on all ranks for one warm start to be one, as short digests.

A plan is made by every rank for itself, of the whole model. Vocabularies and files are compared by
what is in them: of files their lengths and some blocks, of tensors in memory some elements.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import Box
from torch_warmstart.dtypes import INTEGERS, as_bytes
from torch_warmstart.errors import Finding
from torch_warmstart.model import is_on_meta
from torch_warmstart.model.sharding import has_other_ranks
from torch_warmstart.new_rows import Initialised, Mixed
from torch_warmstart.planning import PlanItem, WarmStartPlan, parts_read

if TYPE_CHECKING:
    from torch_warmstart.new_rows import Answers, Fill, Mixture, NewRows, Single

_BLOCK = 4 << 10  # bytes of a file that are looked at in one place
_BLOCKS = 16  # places
_ELEMENTS = 4  # of a tensor in memory, along each dimension


def told_of(plan: WarmStartPlan) -> dict[str, str]:
    """Digests of what must not differ, by what it is called in an error."""
    items = plan.items
    used = parts_read(plan.items)
    return {
        "variables": _digest((i.name, i.variable.kind, i.variable.shape) for i in items),
        "decisions": _digest(map(_decision, items)),
        "vocabularies": _digest(_rows(used)),
        "initialisers of new rows": _digest(_makers(used)),
        "checkpoint files": _digest(_samples(plan)),
    }


def marks_of(plan: WarmStartPlan) -> str:
    """Which very files they are: equal where the ranks share them, not where each has a copy."""
    return _digest(
        (name, found.st_size, found.st_mtime_ns, found.st_ino)
        for name, found in ((os.path.basename(path), os.stat(path)) for path in _files(plan))
    )


def told_of_rows(made: Iterable[tuple[PlanItem, Box, torch.Tensor]]) -> dict[str, dict[str, str]]:
    """Digests of new rows, by variable and by the part of it: copies of a part are compared.

    Args:
        made: The rows of each part that is here.
    """
    found: dict[str, dict[str, str]] = {}
    for item, box, rows in made:
        if any(_is_made_by_user(fill) for fill in item.fills):
            of_part = found.setdefault(item.name, {})
            at = f"{box} {len(of_part)}"  # several where several axes change
            of_part[at] = _digest((tuple(rows.shape), _total(rows), _sample_of_tensor(rows)))
    return found


def _is_made_by_user(fill: Fill) -> bool:
    """Whether a user's function was asked, which may draw from elsewhere than torch does."""
    return isinstance(fill, Initialised) or (isinstance(fill, Mixed) and fill.answers.has_functions)


def _total(rows: torch.Tensor) -> int:
    """Of all bits, as integers of the elements' size; wraps."""
    integer = INTEGERS.get(rows.dtype.itemsize)
    bits = as_bytes(rows) if integer is None else rows.view(integer)
    return int(bits.sum(dtype=torch.int64))


def _digest(values: Iterable[Any]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for value in values:
        made.update(value if isinstance(value, bytes | memoryview) else repr(value).encode())
    return made.hexdigest()


def _decision(item: PlanItem) -> tuple[Any, ...]:
    specs = tuple((spec.key, spec.shape, spec.stored_dtype) for spec in item.sources)
    how = (item.layout.name, item.part, str(item.cast), item.scale)
    axes = tuple((change.axis, str(change.fill or "")) for change in item.changes)
    older = map(_decision, item.patches)
    return (item.state, str(item.variable.tensor.dtype), *specs, *how, *axes, *older)


def _rows(items: Iterable[PlanItem]) -> Iterator[bytes | memoryview]:
    """Each remapping once: variables with the same vocabularies share one."""
    found = {id(c.remapping): c.remapping for item in items for c in item.changes}
    for remapping in found.values():
        yield _raw(remapping.rows)
        yield remapping.new_entries.encode()


def _raw(tensor: torch.Tensor) -> bytes | memoryview:
    values = tensor.cpu().contiguous().numpy()
    return values.data.cast("B") if values.size else b""  # of nothing there is no such view


def _files(plan: WarmStartPlan) -> list[str]:
    return plan.checkpoint.local_files(_keys(plan))


def _keys(plan: WarmStartPlan) -> list[str]:
    return list(dict.fromkeys(key for item in parts_read(plan.items) for key in item.keys))


def _samples(plan: WarmStartPlan) -> Iterator[Any]:
    for key in plan.checkpoint.keys_in_memory(_keys(plan)):
        if not plan.checkpoint.is_in_parts(key):  # each rank has another one
            yield _sample_of_tensor(plan.checkpoint.view_tensor(key))
    files = _files(plan)
    for path in files:
        yield os.path.basename(path)
        yield from _sample_of_file(path, max(2, _BLOCKS // len(files)))


def _sample_of_file(path: str, count: int) -> Iterator[Any]:
    size = os.path.getsize(path)
    yield size
    last = max(0, size - _BLOCK)
    with open(path, "rb", buffering=0) as file:
        for number in range(count):
            file.seek(last * number // (count - 1))
            yield file.read(_BLOCK)


def _sample_of_tensor(tensor: torch.Tensor) -> bytes:
    """All of a small one."""
    is_small = tensor.nbytes <= _BLOCK * _BLOCKS
    steps = tuple(
        slice(None, None, 1 if is_small else max(1, size // _ELEMENTS)) for size in tensor.shape
    )
    return bytes(as_bytes(tensor[steps].contiguous()).cpu().flatten().numpy())


# -- new rows ------------------------------------------------------------------------------------


def _makers(items: Iterable[PlanItem]) -> Iterator[Any]:
    """Who makes which new rows, and of what that is known before they are made."""
    for item in items:
        for change in item.changes:
            fill = change.fill
            if isinstance(fill, Initialised | Mixed):
                yield item.name, change.axis, fill.generator is not None
            if isinstance(fill, Initialised):
                yield from _arguments(fill.initializer)
            elif isinstance(fill, Mixed):
                yield from _answers(fill.answers)


def _answers(answers: Answers) -> Iterator[Any]:
    for part in answers.parts:
        yield part.label, part.single.noise
        yield _raw(part.new.rows)
        if part.mixture is None:
            yield from _maker(part.single, part.new)
        else:
            yield from _terms(part.mixture)
        for single in part.behind:
            yield from _maker(single, part.new)
    yield _raw(answers.open.rows)
    for single in answers.rest:
        yield from _maker(single, answers.open)


def _terms(mixture: Mixture) -> Iterator[bytes | memoryview]:
    yield from map(_raw, (mixture.offsets, mixture.indices, mixture.weights, mixture.answered))
    if mixture.bags is not None:
        yield _raw(mixture.bags)


def _maker(single: Single, new: NewRows) -> Iterator[Any]:
    """Who is asked when the plan is carried out, and what tables from outside it will read."""
    yield single.label, single.noise
    yield from _arguments(single.initializer)
    old = new.old
    tables = [old.outside.table(source) for source in getattr(single.initializer, "tables", ())]
    if tables and old.vocabulary is not None:
        yield old.vocabulary.fingerprint
    for table in tables:
        yield table.vocabulary.fingerprint
        yield _raw(table.read(_some_rows(len(table.vocabulary), table.width)))


def _some_rows(count: int, width: int) -> torch.Tensor:
    """All rows of a small table of float32."""
    most = max(2, _BLOCK * _BLOCKS // (4 * max(1, width)))
    if count <= most:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most, dtype=torch.float64).long()


def _arguments(initializer: Any) -> Iterator[Any]:
    """What an initialiser was told that is short; what else there is shows in what it makes."""
    while isinstance(initializer, functools.partial):
        given = (*initializer.args, *initializer.keywords.items())
        yield from (value for value in given if _is_short(value))
        initializer = initializer.func
    from torch_warmstart.new_rows import RowInitializer

    if isinstance(initializer, RowInitializer):
        tables = {id(table) for table in initializer.tables}  # each rank may have its own place
        told = initializer.arguments.items()
        yield from (item for item in told if _is_short(item) and id(item[1]) not in tables)


def _is_short(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_short, value))
    return isinstance(value, bool | int | float | str | None)


# -- random numbers --------------------------------------------------------------------------------


def chance_of(plan: WarmStartPlan) -> dict[str, str]:
    """The states of the generators that initialisers will use, for all ranks to use these."""
    return {name: _text(generator.get_state()) for name, generator in _generators(plan).items()}


def replicas_may_differ(plan: WarmStartPlan) -> list[Finding]:
    """That one of several processes draws random rows by itself, if it does."""
    drawn = [item for item in plan.items if any(map(_is_drawn, item.fills))]
    if not drawn or not has_other_ranks():
        return []
    text = (
        f"{drawn[0].name}: its new rows are this rank's own, and those of a copy on another rank "
        "are equal only if all draw the same random numbers."
    )
    with_others = "pass process_group=torch.distributed.group.WORLD on all ranks."
    by_seed = "begin with torch.manual_seed(...) of one seed, or a generator= of one, on all ranks."
    is_asked = plan.purpose == "warm start"  # else there is no process_group= to pass
    hint = f"If there are copies, {with_others if is_asked else by_seed}"
    return [Finding("replicas-may-differ", "warning", drawn[0].name, text, hint)]


def _is_drawn(fill: Any) -> bool:
    return isinstance(fill, Initialised) or (isinstance(fill, Mixed) and fill.answers.is_random)


def same_chance(
    plan: WarmStartPlan, states: Mapping[str, str]
) -> contextlib.AbstractContextManager[None]:
    """Within, the generators have the states that are given, if any are.

    Behind it, those that were in another one are as they were; those that were in the same one have
    moved on, as they have on all ranks.
    """
    return _in_states(_generators(plan), states) if states else contextlib.nullcontext()


@contextlib.contextmanager
def _in_states(
    generators: Mapping[str, torch.Generator], states: Mapping[str, str]
) -> Iterator[None]:
    own = {name: generator.get_state() for name, generator in generators.items()}
    try:
        for name, generator in generators.items():
            generator.set_state(_state(states[name]))
        yield
    finally:
        for name, generator in generators.items():
            if _text(own[name]) != states[name]:
                generator.set_state(own[name])


def _generators(plan: WarmStartPlan) -> dict[str, torch.Generator]:
    """Those that a plan may use, by names that are the same on all ranks."""
    fills = [
        (f"{item.name}, {at}" if at else item.name, item, fill)
        for item in plan.items
        for at, fill in enumerate(item.fills)
        if isinstance(fill, Initialised) or (isinstance(fill, Mixed) and fill.answers.is_random)
    ]
    found = {f"of {name}": f.generator for name, _, f in fills if f.generator is not None}
    kinds = {
        i.variable.device.type
        for _, i, f in fills
        if (f.answers.has_functions if isinstance(f, Mixed) else f.generator is None)
    }
    on_meta = [item.variable for item in plan.items if is_on_meta(item.variable)]
    kinds |= {"cpu" for _ in on_meta} | {variable.device.type for variable in on_meta}
    if kinds or any(f.generator is None for _, _, f in fills):
        found["cpu"] = torch.default_generator
    if "cuda" in kinds:
        found["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    return found


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(bytes(state.numpy())).decode()


def _state(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8).clone()
