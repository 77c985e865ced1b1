"""The tables of a model whose vocabularies change: which they are, and how high they become."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.entries import MASK, PADDING, Vocabulary
from torch_warmstart.errors import (
    Finding,
    PlanError,
    SettingsError,
    VocabularyError,
    WarmStartError,
)
from torch_warmstart.layouts import is_untransposed_linear, output_axis
from torch_warmstart.model import (
    Owner,
    Shape,
    Variable,
    VariablesByName,
    model_variables,
    modules_of,
    named_modules,
    padding_row,
    positions_from,
)
from torch_warmstart.planning.fitting import ProblemError, vocab_axis
from torch_warmstart.planning.live.refusals import (
    WITH_BIAS,
    check_model,
    why_computed,
    why_not_in_mapping,
    why_not_made_anew,
)
from torch_warmstart.planning.rows import padding_rows_of
from torch_warmstart.planning.selection import by_variable, written_out
from torch_warmstart.settings import (
    KEEP,
    ClipOrPad,
    FromCheckpoint,
    Infos,
    SegmentInfo,
    VocabInfo,
    WarmStartSettings,
    check_infos,
    infos_of,
    takes_new_rows,
)
from torch_warmstart.values import frozen
from torch_warmstart.vocabularies import (
    Remapping,
    count_rows,
    read_vocabularies,
    read_vocabulary,
    remapping_between,
    remapping_of_segments,
)

CHANGE = "The vocabulary change"  # what has problems, in an error
_SETTING = "change_vocabulary"
_ANEW = "not-made-anew"
# What a Hugging Face config calls how many rows the tables have for what goes in, and comes out.
SIZES_IN = ("vocab_size", "src_vocab_size")
SIZES_OUT = ("decoder_vocab_size", "tgt_vocab_size")
_AS_HIGH = 0.9  # of the rows of the higher of two tables of the same tokens
_LOGITS_BIAS = "final_logits_bias"  # a buffer


Sized = VocabInfo | SegmentInfo  # what says how many rows there will be


@frozen(eq=False)
class TableChange:
    """One axis of a tensor, and which of its old rows the new ones are."""

    info: Sized
    axis: int  # counted from 0
    old_size: int  # rows along the axis, before
    remapping: Remapping

    @property
    def new_size(self) -> int:
        """Rows along the axis, behind."""
        return len(self.remapping.rows)

    def row_of(self, old: int) -> int | None:
        """Where an old row is now; None if it is gone."""
        found = (self.remapping.rows == old).nonzero().flatten()
        return int(found[0]) if len(found) else None


@frozen(eq=False)
class ChangedTable:
    """A tensor that is made anew, and what changes along its axes, as it was listed."""

    variable: Variable  # of the model, or of a copy of it
    changes: tuple[TableChange, ...]

    @property
    def shape(self) -> Shape:
        """That of the new tensor."""
        shape = list(self.variable.shape)
        for change in self.changes:
            shape[change.axis] = change.new_size
        return tuple(shape)

    @property
    def rows(self) -> TableChange | None:
        """What changes along the first axis, along which an embedding has its entries."""
        return self.along(0)

    def along(self, axis: int) -> TableChange | None:
        """What changes along an axis."""
        return next((change for change in self.changes if change.axis == axis), None)


def read_tables(model: torch.nn.Module, infos: Mapping[str, Infos]) -> tuple[ChangedTable, ...]:
    """The tables that change; raises PlanError with all that keeps them from it.

    A module's name stands for its own tensors that have such an axis, and the bias of a layer whose
    classes change comes along.
    """
    _check_infos(infos)
    _raise_if(check_model(model))  # first: of a scripted one the rest cannot be looked at
    computed = {name: why for name in infos if (why := why_computed(model, name)) is not None}
    problems = [Finding(_ANEW, "error", n, f"{n} {why}") for n, why in computed.items()]
    infos = {name: info for name, info in infos.items() if name not in computed}
    variables = model_variables(model)
    # Only what it says of vocabularies is looked at; there is no checkpoint yet.
    settings = written_out(WarmStartSettings({}, [".*"], infos), variables)
    named = settings.named_infos
    entries, unknown = by_variable(named, _SETTING, variables, frozenset(variables))
    given = {variable: _sized(infos_of(entry.value)) for variable, entry in entries.items()}
    shapeless = [v for v in given if v.is_lazy]
    problems += [finding for v in shapeless if (finding := _why_not(model, v)) is not None]
    given = {variable: its for variable, its in given.items() if variable not in shapeless}
    given = _with_rows_for_no_input(given)
    chosen = _with_biases(model, given, variables)
    tables, others = _tables(model, chosen)
    problems += [*unknown, *others, *_half_changed(model, tables), *_moved_padding(model, tables)]
    _raise_if(problems or [*_without_weights(tables)])
    return tuple(tables)


def _raise_if(problems: Sequence[Finding]) -> None:
    if problems:
        raise PlanError.of(CHANGE, problems)


def _check_infos(infos: Any) -> None:
    if not isinstance(infos, Mapping) or not infos:
        raise SettingsError(
            "change_vocabulary takes a mapping of variable name to VocabInfo, such as "
            "{'tok.weight': VocabInfo(new_vocab, old_vocab=old_vocab)}, not "
            f"{'an empty one' if isinstance(infos, Mapping) else type(infos).__name__}."
        )
    for name, value in infos.items():
        if not isinstance(name, str):
            raise SettingsError(
                f"change_vocabulary takes each variable by its name, not by {name!r}: "
                "{name: VocabInfo(...) for name in names}."
            )
        check_infos(f"change_vocabulary: {name!r}", value)
        for info in infos_of(value):
            _check_info(name, info)


def _check_info(name: str, info: Any) -> None:
    if isinstance(info, ClipOrPad):
        raise SettingsError(
            f"{name!r} needs a VocabInfo or a SegmentInfo here, which say how many rows the new "
            "tensor has, not a ClipOrPad."
        )
    inner = info.new_segments.values() if isinstance(info, SegmentInfo) else [info]
    if any(isinstance(o, VocabInfo) and isinstance(o.old_vocab, FromCheckpoint) for o in inner):
        raise SettingsError(
            f"{name!r}: there is no checkpoint here that could hold the old vocabulary. Give "
            "it: old_vocab= takes what new_vocab takes."
        )
    if isinstance(info.backup_initializer, str) and info.backup_initializer == KEEP:
        raise SettingsError(
            f"{name!r}: new rows of a new tensor hold nothing that could be kept. Leave "
            "backup_initializer out (zeros), or give one of tws.init or of torch.nn.init."
        )
    if isinstance(info, VocabInfo) and info.fallback:
        raise SettingsError(
            f"{name!r}: fallback takes rows from older checkpoints in a warm start from one; here "
            "they begin as backup_initializer says. Leave it out, or use warm_start."
        )
    if isinstance(info, VocabInfo) and info.has_filter:
        raise SettingsError(
            f"{name!r}: min_frequency, since_version and where are for tables of a checkpoint "
            "that keep their ids."
        )


def _with_rows_for_no_input(
    given: Mapping[Variable, tuple[Sized, ...]],
) -> dict[Variable, tuple[Sized, ...]]:
    """With what modules say of a row that has no entry, before and behind: it is for no input.

    So it stays what it is, and where it is. A layer's bias follows its weight.
    """
    rows = {id(v.tensor): next(iter(padding_rows_of(v)), None) for v in given}
    reader = _Reader()
    found = {}
    for variable, infos in given.items():
        weights = (id(o.module._parameters.get("weight")) for o in variable.owners)
        row = next((rows[one] for one in weights if rows.get(one) is not None), None)
        found[variable] = tuple(
            info if row is None else _with_row_for_no_input(variable, info, row, reader)
            for info in infos
        )
    return found


class _Reader:
    """Vocabularies, each read once, and with a row for no input."""

    def __init__(self) -> None:
        self._read: dict[Hashable, tuple[Any, Vocabulary]] = {}
        self._with_row: dict[tuple[int, int], Vocabulary] = {}

    def of(self, source: Any) -> Vocabulary:
        """What a source holds."""
        key = source if isinstance(source, str) else id(source)
        if key not in self._read:
            self._read[key] = source, read_vocabulary(source)  # held, so that its id stays its own
        return self._read[key][1]

    def with_row(self, vocabulary: Vocabulary, row: int) -> Vocabulary:
        """The same, of which a row is for no input."""
        special = {**vocabulary.special, MASK: range(row, row + 1)}
        made = replace(vocabulary, special=special)
        return self._with_row.setdefault((id(vocabulary), row), made)


def _with_row_for_no_input(variable: Variable, info: Sized, row: int, reader: _Reader) -> Sized:
    if not isinstance(info, VocabInfo) or info.axis % max(1, len(variable.shape)):
        return info
    try:
        new, old = reader.of(info.new_vocab), reader.of(info.old_vocab)
    except (WarmStartError, MemoryError):  # it is read again, and told with all others
        return info
    row %= max(1, variable.shape[0])
    if _may_be_for_no_input(new, row) and _may_be_for_no_input(old, row):
        new, old = reader.with_row(new, row), reader.with_row(old, row)
    return replace(info, new_vocab=new, old_vocab=old)


def _may_be_for_no_input(vocabulary: Vocabulary, row: int) -> bool:
    """Whether a row has no entry and no other purpose, and no other row is for no input."""
    if not row < len(vocabulary) or vocabulary.special.get(MASK, range(row, row + 1))[0] != row:
        return False
    purposes = (name for name, rows in vocabulary.special.items() if row in rows)
    has_another = any(name not in (MASK, PADDING) for name in purposes)
    return not has_another and int(vocabulary.numbers_at(torch.tensor([row]))) < 0


def _sized(infos: Iterable[Any]) -> tuple[Sized, ...]:
    return tuple(info for info in infos if isinstance(info, VocabInfo | SegmentInfo))


def _with_biases(
    model: torch.nn.Module,
    chosen: Mapping[Variable, tuple[Sized, ...]],
    variables: Sequence[Variable],
) -> dict[Variable, tuple[Sized, ...]]:
    """With the biases of layers whose outputs change: a layer does not work without."""
    by_id = {id(variable.tensor): variable for variable in variables}
    biases = {
        by_id[id(owner.module._parameters["bias"])]: (_of_bias(info),)
        for variable, infos in chosen.items()
        for info in infos
        for owner in variable.owners
        if _has_bias(owner.module)
        and owner.leaf == "weight"
        and info.axis % max(1, len(variable.shape)) == output_axis(owner.module)
        and id(owner.module._parameters.get("bias")) in by_id
    }
    both = {**biases, **dict(_logits_biases(model, chosen, by_id)), **chosen}
    return {variable: both[variable] for variable in variables if variable in both}


def _of_bias(info: Sized) -> Sized:
    """Mixtures of old rows are of a bias, too; what fills a matrix (fan-based) leaves it zeros."""
    if info.backup_initializer is not None and takes_new_rows(info.backup_initializer):
        return replace(info, axis=0)
    return replace(info, backup_initializer=None, generator=None, axis=0)


def _has_bias(module: torch.nn.Module) -> bool:
    """Whether a layer's bias has what its weight has along its outputs."""
    return isinstance(module, WITH_BIAS) or is_untransposed_linear(module)


def _logits_biases(
    model: torch.nn.Module,
    chosen: Mapping[Variable, tuple[Sized, ...]],
    by_id: Mapping[int, Variable],
) -> Iterator[tuple[Variable, tuple[Sized, ...]]]:
    """What BART and its kin add to each token's logit, of `[1, vocab_size]`."""
    for module in modules_of(model):
        bias = by_id.get(id(module._buffers.get(_LOGITS_BIAS)))
        going_in, coming_out = token_weights(module)
        weight = by_id.get(id(going_in if coming_out is None else coming_out))
        for info in chosen.get(weight, ()) if weight is not None else ():
            if bias is not None and len(bias.shape) == 2 and info.axis == 0:
                yield bias, (replace(info, backup_initializer=None, generator=None, axis=1),)


def _tables(
    model: torch.nn.Module, chosen: Mapping[Variable, tuple[Sized, ...]]
) -> tuple[list[ChangedTable], list[Finding]]:
    tried = [_tried(model, variable, infos) for variable, infos in chosen.items()]
    tables = [found for found in tried if isinstance(found, ChangedTable)]
    return tables, [found for found in tried if isinstance(found, Finding)]


def _tried(
    model: torch.nn.Module, variable: Variable, infos: tuple[Sized, ...]
) -> ChangedTable | Finding:
    try:
        return _table(model, variable, infos)
    except ProblemError as problem:
        return problem.finding
    except WarmStartError as error:
        return Finding(error.code, "error", variable.name, f"{variable.name}: {error}")
    except MemoryError:
        text = f"{variable.name}: its new vocabulary has more rows than there is memory for."
        return Finding(VocabularyError.code, "error", variable.name, text)


def _why_not(model: torch.nn.Module, variable: Variable) -> Finding | None:
    why = why_not_made_anew(model, variable)
    if why is None:
        return None
    return Finding(_ANEW, "error", variable.name, f"{variable.name} {why}")


def _table(model: torch.nn.Module, variable: Variable, infos: tuple[Sized, ...]) -> ChangedTable:
    why = _why_not(model, variable)
    if why is not None:
        raise ProblemError(why.code, variable, why.text)
    table = ChangedTable(variable, tuple(_change(variable, info) for info in infos))
    _check_padding_rows(table)
    return table


def _change(variable: Variable, info: Sized) -> TableChange:
    axis = vocab_axis(variable, info)
    size = variable.shape[axis]
    if isinstance(info, VocabInfo):
        return TableChange(info, axis, size, _between(info, variable.device))
    segments = {
        name: _segment(info, name, inner, variable.device)
        for name, inner in info.new_segments.items()
    }
    remapping = remapping_of_segments(info, segments, size, variable.device)
    return TableChange(info, axis, size, remapping)


def _between(info: VocabInfo, device: torch.device) -> Remapping:
    return remapping_between(info, read_vocabularies(info).to(device))


def _segment(
    info: SegmentInfo, name: str, inner: int | VocabInfo, device: torch.device
) -> int | Remapping:
    """How many columns a feature has, or which old one each is."""
    if not isinstance(inner, VocabInfo):
        return inner
    return _between(inner, device) if name in info.old_segments else count_rows(inner)


def _check_padding_rows(table: ChangedTable) -> None:
    for module, change, row in padding_rows(table):
        if change.row_of(row) is None:
            raise ProblemError(
                "padding-row-lost",
                table.variable,
                f"{table.variable.name}: row {row} is the padding_idx of its "
                f"{type(module).__name__}, and {_how_it_is_lost(change, row)}, or set "
                "padding_idx=None before.",
            )


def _how_it_is_lost(change: TableChange, row: int) -> str:
    """What has become of a padding row's entry, or of a row without one, and what to do."""
    gone, info = "its entry is not in the new vocabulary. Add it to that", change.info
    if not isinstance(info, VocabInfo):
        return gone
    at = torch.tensor([row])
    if int(read_vocabulary(info.old_vocab).numbers_at(at)) >= 0:
        return gone
    new = read_vocabulary(info.new_vocab)
    number = int(new.numbers_at(at))
    now = (
        f"in the new one it is the row of {new.show(number)}"
        if number >= 0
        else "the new has none there"
    )
    return (
        f"has no entry in the old vocabulary; {now}. Say of the old one, before it is "
        "updated, that the row is for no input, dataclasses.replace(vocabulary, special="
        f"{{**vocabulary.special, 'mask': range({row}, {row + 1})}})"
    )


def padding_rows(table: ChangedTable) -> Iterator[tuple[torch.nn.Module, TableChange, int]]:
    """The modules of a table that have a row for padding, how rows change, and which row it is."""
    for owner in table.variable.owners:
        row, change = padding_row(owner.module), table.rows
        if row is not None and change is not None:
            yield owner.module, change, row % change.old_size


def _moved_padding(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """A model that counts positions from its padding row's number, which would be another."""
    positions = {positions_from(*named): named[0] for named in named_modules(model)}
    for table in tables:
        for _, change, row in padding_rows(table):
            now = change.row_of(row)
            if now not in (row, None) and row in positions:
                text = (
                    f"{table.variable.name}: its padding, row {row}, would be row {now}, and "
                    f"{positions[row]} counts positions from that number: give the padding row "
                    f"{row} of the new vocabulary."
                )
                yield Finding("padding-row-moved", "error", table.variable.name, text)
                break


def _half_changed(model: torch.nn.Module, tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """A Hugging Face model has one vocabulary for what goes in and what comes out."""
    changed = {id(t.variable.tensor): (t, t.rows) for t in tables if t.rows is not None}
    for path, module in named_modules(model):
        both = [weight for weight in token_weights(module) if weight is not None]
        first = next((changed[id(w)] for w in both if id(w) in changed), None)
        left = [w for w in both if id(w) not in changed]
        if first is None or not left or not is_as_high(left[0].shape[0], first[1].old_size):
            continue
        if _has_two_sizes(module):
            continue
        table, _ = first
        found = find_of(model, left[0])
        name = found.name if found is not None else path
        own = left[0].shape[0]
        of_own = f", by the vocabulary of its {own:,} rows" * (own != first[1].old_size)
        text = (
            f"{table.variable.name} gets another vocabulary and {name} does not, though one config "
            f"has the {SIZES_IN[0]} of both: name {name!r} too{of_own}."
        )
        yield Finding("half-changed", "error", table.variable.name, text)
        return


def is_as_high(rows: int, others: int) -> bool:
    """Whether two tables may be of the same tokens: one may be padded, or lack special ones."""
    return min(rows, others) >= _AS_HIGH * max(rows, others)


def _has_two_sizes(module: torch.nn.Module) -> bool:
    """Whether its config has a size for each of two vocabularies, its own or its parts'."""
    config = vars(module)["config"]
    is_of_halves = getattr(config, "is_encoder_decoder", False) and not hasattr(config, SIZES_IN[0])
    return is_of_halves or any(hasattr(config, name) for name in SIZES_OUT)


def _without_weights(tables: Sequence[ChangedTable]) -> Iterator[Finding]:
    """A layer whose bias gets other rows than its weight does not work."""
    changed = {id(table.variable.tensor): table for table in tables}
    for table in tables:
        for owner in table.variable.owners:
            module = owner.module
            if not _has_bias(module) or owner.leaf != "bias":
                continue
            whole, own = changed.get(id(module._parameters.get("weight"))), table.rows
            rows = None if whole is None else whole.along(output_axis(module))
            name = table.variable.name
            weight = f"{name.removesuffix('bias')}weight"
            if rows is None:
                text = f"{name} gets other rows and {weight} does not: name {weight!r}, or both."
                yield Finding("half-changed", "error", name, text)
            elif own is not None and not torch.equal(own.remapping.rows, rows.remapping.rows):
                text = (
                    f"{name} and {weight} get other rows than each other, and are one layer's: "
                    f"name {weight!r} only, whose bias follows it."
                )
                yield Finding("half-changed", "error", name, text)


def find_of(model: torch.nn.Module, tensor: torch.Tensor) -> Variable | None:
    """The variable that a tensor is."""
    return next((v for v in model_variables(model) if v.tensor is tensor), None)


def token_weights(module: torch.nn.Module) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The weights of a Hugging Face model's tokens, going in and coming out."""
    if "config" not in vars(module):
        return None, None
    return (_weight_by(module, "get_input_embeddings"), _weight_by(module, "get_output_embeddings"))


def _weight_by(module: torch.nn.Module, method: str) -> torch.Tensor | None:
    try:
        layer = getattr(module, method)()
        is_computed = torch.nn.utils.parametrize.is_parametrized(layer, "weight")  # asked, u moves
        weight = None if is_computed else getattr(layer, "weight", None)
    except Exception:  # theirs: a model may have none, and says so in its own way
        return None
    return weight if isinstance(weight, torch.Tensor) else None


# -- copies of the model ---------------------------------------------------------------------------


def copies_of(tables: Iterable[ChangedTable], copy: Any) -> tuple[ChangedTable, ...]:
    """The same tables in a copy of the model, such as a running average of its parameters.

    Args:
        tables: The model's.
        copy: A module with the same names, itself or in its `module`; or a mapping of names to
            tensors.

    Raises SettingsError if it is none, and PlanError if its tensors cannot be made anew.
    """
    problems: list[Finding] = []
    found = []
    inner = inner_copy(copy)
    known = VariablesByName(model_variables(inner) if isinstance(inner, torch.nn.Module) else ())
    for table in tables:
        is_module = isinstance(inner, torch.nn.Module)
        variable = _in_module(known, table) if is_module else _in_mapping(inner, table)
        if variable is None:
            continue  # an average of what is trained need not have the rest
        why = why_not_made_anew(inner, variable) if is_module else why_not_in_mapping(variable)
        if variable.shape != table.variable.shape:
            why = f"has the shape {list(variable.shape)}, the model's {list(table.variable.shape)}."
        if why is not None:
            text = f"ema: {variable.name} {why}"
            problems.append(Finding(_ANEW, "error", variable.name, text))
        found.append(replace(table, variable=variable))
    if problems:
        raise PlanError.of(CHANGE, problems)
    if not found:
        raise SettingsError(
            f"ema: a {type(copy).__name__} has none of the tensors that change. It is a module "
            "with the model's names, such as AveragedModel, or a mapping of these names to tensors."
        )
    return tuple(found)


def inner_copy(copy: Any) -> Any:
    """The module or mapping that has the model's names; raises SettingsError if there is none."""
    if isinstance(copy, torch.optim.swa_utils.AveragedModel):
        return copy.module
    if isinstance(copy, torch.nn.Module):
        names = [name for name, child in copy._modules.items() if child is not None]
        return copy.module if names == ["module"] else copy
    if isinstance(copy, MutableMapping):
        return copy
    raise SettingsError(
        f"ema: a {type(copy).__name__} is not known: pass its module, or the mapping of names to "
        "tensors that it keeps."
    )


def _in_module(known: VariablesByName, table: ChangedTable) -> Variable | None:
    found = known.find(table.variable.name)
    return None if found is None else found[0]


def _in_mapping(mapping: Mapping[str, Any], table: ChangedTable) -> Variable | None:
    """A mapping's tensor as a variable: nobody else's, at the names that it has there."""
    names = [name for name in table.variable.names if isinstance(mapping.get(name), torch.Tensor)]
    if not names:
        return None
    nobody = torch.nn.Module()
    owners = tuple(Owner(name, name, nobody, name.rpartition(".")[2]) for name in names)
    return Variable(mapping[names[0]], "buffer", owners)
