"""The public functions; they only connect the rooms.

A function imports what it alone needs when it is called, so that to read a checkpoint is not to
import what plans and executes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.errors import (
    CallbackError,
    PlanError,
    SettingsError,
    as_sentence,
    check_choice,
    check_kind,
    path_of,
)
from torch_warmstart.formats import Checkpoint, open_checkpoint
from torch_warmstart.formats import latest_checkpoint as find_latest_checkpoint
from torch_warmstart.storage import MAX_GAP, Storage, alone_with
from torch_warmstart.values import Opener, Overlap, Staging

if TYPE_CHECKING:
    from torch_warmstart.conversion import Conversion
    from torch_warmstart.execution import WarmStartReport
    from torch_warmstart.planning import WarmStartPlan
    from torch_warmstart.proof import CheckpointDiff
    from torch_warmstart.settings import ClipOrPad, SegmentInfo, VocabInfo, WarmStartSettings
    from torch_warmstart.suggesting import Suggestions


@on_cpu
def warm_start(
    model: torch.nn.Module,
    settings: WarmStartSettings | Any,
    *,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    overlap: Overlap = "error",
    staging: Staging = "none",
    memory_limit: int | None = None,
    process_group: Any = None,
    timeout: timedelta | float | None = None,
    progress: bool | None = None,
) -> WarmStartReport:
    """Warm-starts a model in place from a checkpoint.

    Args:
        model: The model to fill. Parameters are overwritten under `torch.no_grad()` and never
            replaced; device, dtype, strides and `requires_grad` stay.
        settings: A `WarmStartSettings`; or what its `ckpt_to_initialize_from` takes (a path, a
            state_dict, a module, an open checkpoint), for all trainable variables of that one. Or a
            list of these: one plan of several checkpoints, all of it or nothing.
        optimizer: The model's optimizer, or a list of them. The state of the selected parameters
            then comes along; with a list of patterns that of the slots whose own names match,
            `<variable>/<slot>` (`embed.weight/exp_avg`). It need not have taken a step yet.
        overlap: Of a list, whether a variable that two of it would fill is an error, or the first
            one's ("first").
        staging: "memory" reads all that is needed into memory before the first write, so that a
            source that changes or vanishes cannot stop it half way: no PartialWriteError. It takes
            what the values and the rows that are used take in the checkpoint's dtype.
        memory_limit: Bytes that staging, the whole tensor that a plain `backup_initializer` is
            given, what moving rows works with and what other ranks send may take, each for itself;
            above it the warm start is refused and nothing has been changed. None: no limit.
        process_group: Processes that do this together, beside those that the model is sharded over
            or copied to by DistributedDataParallel: none writes before all have said that they
            can. A plain model without a group is this process's own, and nobody else is asked.
        timeout: How long they wait for each other, in seconds; None: 30 minutes, as torch does.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        An account of every variable and row; `missing, unexpected = warm_start(...)` works too.

    Raises:
        PlanError: with every problem there is. Nothing has been changed.
        CheckpointError: the checkpoint is missing or damaged. Nothing has been changed.
        WarmStartError: another rank cannot, has another plan, or does not answer.

    Example:
        >>> report = warm_start(model, "gs://bucket/model_dir")         # doctest: +SKIP
        >>> print(report)                                               # doctest: +SKIP
    """
    from torch_warmstart.execution import agreement_on, execute_plan

    with alone_with(model):
        agreement = agreement_on(_checked(model), process_group, timeout)
        with agreement.telling():
            plan = plan_warm_start(model, settings, optimizer=optimizer, overlap=overlap)
        return execute_plan(
            plan,
            progress=progress,
            agreement=lambda: agreement,
            staging=staging,
            memory_limit=memory_limit,
        )


@on_cpu
def plan_warm_start(
    model: torch.nn.Module,
    settings: WarmStartSettings | Any,
    *,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    overlap: Overlap = "error",
) -> WarmStartPlan:
    """Plans a warm start and changes nothing; `print()` the plan for a dry run.

    Vocabularies are read and joined; of tensors only names, shapes and dtypes.

    Raises:
        PlanError: with every problem there is.
        CheckpointError: the checkpoint is missing or damaged.
    """
    from torch_warmstart.planning import make_plan

    def complete(plan: WarmStartPlan) -> WarmStartPlan:
        if not any(item.fallback for item in plan.items):
            return plan
        from torch_warmstart.planning.several import with_returned

        return with_returned(plan, optimizer, lambda older: _open(model, older)[0])

    check_choice("overlap", overlap, Overlap)
    if isinstance(settings, list):
        if not settings:
            raise SettingsError("A list of settings needs at least one.")
        from torch_warmstart.planning.several import plan_several

        with alone_with(model):
            sources = [_open(model, one) for one in settings]
            return plan_several(model, sources, optimizer, overlap=overlap, complete=complete)
    with alone_with(model):
        checkpoint, settings = _open(model, settings)
        try:
            plan = make_plan(model, settings, checkpoint, optimizer)
        except PlanError as error:
            from torch_warmstart.suggesting import with_proposals

            raise with_proposals(error, model, settings, checkpoint) from None
        return complete(plan)


def _open(
    model: torch.nn.Module, settings: WarmStartSettings | Any
) -> tuple[Checkpoint, WarmStartSettings]:
    from torch_warmstart.model import NamesInStates
    from torch_warmstart.settings import WarmStartSettings

    _checked(model)
    if not isinstance(settings, WarmStartSettings):
        settings = WarmStartSettings(settings)
    if settings.ckpt_to_initialize_from is None:
        raise SettingsError(
            "`ckpt_to_initialize_from` must be set in WarmStartSettings; None is for load_planner."
        )
    checkpoint = open_checkpoint(
        _in_boxes(settings.ckpt_to_initialize_from),
        storage=settings.storage,
        verify=settings.verify,
        format=settings.format,
        entry=settings.entry,
        wanted=NamesInStates(model),
    )
    return checkpoint, settings


def _checked(model: torch.nn.Module) -> torch.nn.Module:
    """The model, showing what is its own; raises if it is none that can be filled."""
    from torch_warmstart.model import check_own_shapes, check_tensors_hold_values
    from torch_warmstart.model.sharding import show_shards

    check_kind("The model", model, torch.nn.Module, "a torch.nn.Module")
    check_tensors_hold_values()
    check_own_shapes(model)
    show_shards(model)
    return model


@on_cpu
def apply_plan(
    plan: WarmStartPlan,
    *,
    staging: Staging = "none",
    memory_limit: int | None = None,
    process_group: Any = None,
    timeout: timedelta | float | None = None,
    progress: bool | None = None,
) -> WarmStartReport:
    """Carries out a plan; the model must not have been rebuilt since it was made.

    The arguments are those of `warm_start`. Of a model that is spread over several processes each
    makes the plan and applies it.

    Raises:
        SettingsError: the model has changed.
        CorruptCheckpointError: what is to be read fails its checksum. Nothing has been changed.
    """
    from torch_warmstart.execution import agreement_on, execute_plan
    from torch_warmstart.planning import WarmStartPlan

    check_kind("apply_plan: plan", plan, WarmStartPlan, "what plan_warm_start returns")
    with alone_with(plan.model):
        return execute_plan(
            plan,
            progress=progress,
            agreement=partial(agreement_on, plan.model, process_group, timeout),
            staging=staging,
            memory_limit=memory_limit,
        )


def load_planner(
    model: torch.nn.Module, settings: WarmStartSettings, *, read_limit: int = 64 << 20
) -> Any:
    """A planner with which `torch.distributed.checkpoint.load` warm-starts a model.

    For those who read with a storage reader of their own. Names, layouts and vocabularies are the
    settings'; rows that a vocabulary moves come through buffers. Nothing is unpickled. The model's
    load hooks are not run. What `load` reads is written at once: where reading fails on one rank,
    all are told, and what has been written stays.

    Args:
        model: The model whose tensors the state to be loaded has. It may be sharded.
        settings: What to do; its `ckpt_to_initialize_from` is None, as the reader has that.
        read_limit: Bytes of a buffer: of rows that are moved, or of the tensors that a layout makes
            one of.

    Returns:
        The planner, for one `load`. `planner.plan` is the plan, once that has begun, and
        `planner.report()` says what was done, when it has ended.

    Raises:
        SettingsError: the settings name a checkpoint, or read_limit is not above 0. `load` raises
            CheckpointException with what is wrong on each rank: PlanError with every problem,
            SettingsError where read_limit is too small.

    Example:
        >>> planner = load_planner(model, WarmStartSettings(None, ".*", infos))  # doctest: +SKIP
        >>> dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner)  # doctest: +SKIP
    """
    from torch_warmstart.execution.dcp import WarmStartLoadPlanner

    return WarmStartLoadPlanner(_checked(model), settings, read_limit)


@on_cpu
def change_vocabulary(
    model: torch.nn.Module,
    var_name_to_vocab_info: Mapping[
        str, VocabInfo | ClipOrPad | SegmentInfo | Sequence[VocabInfo | ClipOrPad | SegmentInfo]
    ],
    *,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    ema: Any = (),
    progress: bool | None = None,
) -> WarmStartReport:
    """Gives a live model another vocabulary: parameters of the new size in the old ones' places.

    Rows whose entries stay move to their new places, with the optimizer's state; new rows begin as
    their `VocabInfo` and the optimizer say. Everything is made beside the model first; then it is
    put in place, all or nothing. Ties stay ties; `num_embeddings`, `out_features`, `in_features`,
    `padding_idx`, and what a Hugging Face config says (`vocab_size`, `..._token_id`) follow. The
    new parameters have no gradient yet.

    Args:
        model: The model, not compiled, and before DDP or FSDP wrap it.
        var_name_to_vocab_info: Variable name, or a module's for its weight and bias, to `VocabInfo`
            with an `old_vocab`, as there is no checkpoint, to `SegmentInfo`, or to a list of these
            where several axes change. They say how large the tensor becomes. The bias of a `Linear`
            follows its weight.
        optimizer: The model's, or a list of them; its param groups stay the same objects, so that
            learning rate schedulers go on.
        ema: Copies of the model, one or several: modules (`AveragedModel`), or mappings of the
            model's names to tensors. Their own rows move, and new ones are the model's.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        An account of each table and slot that was made anew.

    Raises:
        PlanError: with every problem there is, such as tensors that cannot be made anew.
        SettingsError: an argument is wrong.
        UnsupportedError: the optimizer keeps something that cannot follow.

    Whatever is raised, nothing has been changed, unless a note of it says so.

    Example:
        >>> import torch_warmstart as tws
        >>> info = tws.VocabInfo(["b", "c", "new"], old_vocab=["a", "b"])
        >>> model = torch.nn.Sequential(torch.nn.Embedding(2, 4))
        >>> report = tws.change_vocabulary(model, {"0.weight": info})
        >>> model
        Sequential(
          (0): Embedding(3, 4)
        )
    """
    from torch_warmstart.execution.exchanging import exchange_vocabulary
    from torch_warmstart.planning.live import read_tables

    copies = list(ema) if isinstance(ema, list | tuple) else [ema]
    with alone_with(model):
        tables = read_tables(_checked(model), var_name_to_vocab_info)
        return exchange_vocabulary(model, tables, optimizer, copies, progress=progress)


@on_cpu
def suggest_names(model: torch.nn.Module, settings: WarmStartSettings | Any) -> Suggestions:
    """Proposes names in a checkpoint for the variables that find nothing by themselves.

    From the types of layers, the names of their tensors, shapes under their layouts, how alike the
    names are, and last the order of the layers. Only names and shapes are read. What several
    tensors could be is shown with all of them and low confidence.

    Args:
        model: The model to fill; it is not changed.
        settings: As for `warm_start`. Variables that they do not select or that they rename get no
            suggestion, nor do slots of optimizers, which follow their variables.

    Returns:
        Suggestions to print, to save as a rules file (`save_rules`), or to use at once as
        `var_name_to_prev_var_name=suggestions.as_rules("high")`.

    Raises:
        SettingsError: the settings are wrong, with every problem they have.
        CheckpointError: the checkpoint is missing or damaged.
    """
    from torch_warmstart.suggesting import suggest_for_model

    with alone_with(model):
        checkpoint, settings = _open(model, settings)
        try:
            return suggest_for_model(model, settings, checkpoint)
        finally:
            if checkpoint is not settings.ckpt_to_initialize_from:
                checkpoint.close()


@on_cpu
def load_checkpoint(
    source: Any,
    *,
    format: str | None = None,
    entry: str | None = None,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: Opener = "auto",
    max_gap: int = MAX_GAP,
    mirror_dir: str | os.PathLike[str] | None = None,
    mirror_limit: int | None = None,
) -> Checkpoint:
    """Opens a checkpoint of any format for reading; no tensor is read yet.

    Args:
        source: A path or URL (a TensorFlow prefix, directory, SavedModel or one of their files; a
            `.pt`, `.pth` or `.safetensors` file, a directory of Hugging Face's `save_pretrained` or
            of torch.distributed.checkpoint), a state_dict, a module, or an open checkpoint.
        format: What it is, instead of looking at its content: a name of docs/formats.md.
        entry: Which mapping of a nested torch checkpoint is meant, as a path of keys: "model",
            "ema/model". None: the only one there is besides optimizer states.
        verify: Check a tensor against its checksum, once, before it is handed out.
        storage_options: Passed to fsspec for a URL: credentials, endpoints, ...
        filesystem: "fsspec"; "gfile" for TensorFlow's own filesystems; "auto" takes fsspec, and
            TensorFlow's only for `gs://` where gcsfs is not installed and TensorFlow is.
        max_gap: Of a remote file, bytes between two ranges that are rather fetched for nothing
            than left out at the price of another request.
        mirror_dir: Where copies of what is fetched lie. None: where Python's `tempfile` says.
        mirror_limit: Bytes that these copies may take together. None: as much as there is room.

    Returns:
        A mapping of key to `TensorSpec`, and a context manager.

    Raises:
        CheckpointNotFoundError: there is none; the message says what was looked for.
        CorruptCheckpointError: the index or header is damaged.
        UnsupportedError: a format that is not read.
    """
    storage = Storage(storage_options, filesystem, max_gap, mirror_dir, mirror_limit)
    source = _in_boxes(source)
    return open_checkpoint(source, storage=storage, verify=verify, format=format, entry=entry)


def _in_boxes(source: Any) -> Any:
    """A state_dict or a module with what is here of sharded tensors, for readers to know."""
    if not isinstance(source, Mapping | torch.nn.Module) or isinstance(source, Checkpoint):
        return source
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return source  # nothing is sharded
    from torch_warmstart.formats import read_once
    from torch_warmstart.model.sharding import in_boxes, is_sharded

    if isinstance(source, Mapping):
        return in_boxes(read_once(source))
    state = source.state_dict()
    return in_boxes(state) if any(is_sharded(tensor) for tensor in state.values()) else source


@on_cpu
def convert(
    source: Any,
    path: str | os.PathLike[str],
    *,
    model: torch.nn.Module | None = None,
    settings: WarmStartSettings | Any = None,
    force: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
) -> Conversion:
    """Writes a checkpoint's tensors, or those of a model that they are loaded into, to a file.

    The file is there whole or not at all. Tensors are read and written one after another: memory
    is needed for the largest that cannot be mapped, not for all.

    Args:
        source: As for `load_checkpoint`.
        path: A local `.safetensors` or `.pt` (`.pth`, `.bin`).
        model: Warm-started from `source`, in place; its `state_dict()` is written. None: the
            checkpoint's tensors as they are, under their own names.
        settings: How `model` is warm-started, a `WarmStartSettings`; its checkpoint is replaced by
            `source`, unless that is None. None: all global variables (`[".*"]`).
        force: Replace a file that is there.
        dry_run: Write nothing, and leave `model` as it is; the result says what would be written.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        What was written, and what was left out: strings, and dtypes that the format has not.

    Raises:
        SettingsError: the path is taken or of an unknown kind; a `.pt` would not tell whose layouts
            the tensors have; there is nothing to write.
        PlanError: the model cannot be warm-started.
        CheckpointError: the checkpoint is missing or damaged.

    Example:
        >>> tws.convert("model_dir", "model.safetensors")                # doctest: +SKIP
    """
    from torch_warmstart.conversion import convert_checkpoint, write_state

    if model is None:
        if settings is not None:
            raise SettingsError("settings are of no use to convert() without a model.")
        with load_checkpoint(source) as checkpoint:
            return convert_checkpoint(
                checkpoint, path, force=force, dry_run=dry_run, progress=progress
            )
    with alone_with(model):
        plan = plan_warm_start(model, _settings_for(source, settings))
        url = plan.checkpoint.url
        would_write = write_state(_saved(model), path, url, force=force, dry_run=True)
        if dry_run:
            return would_write
        apply_plan(plan, progress=progress)
        return write_state(_saved(model), path, url, force=force, progress=progress)


def _saved(model: torch.nn.Module) -> Any:
    """What a model saves, in its own way if it has one."""
    try:
        return model.state_dict()
    except Exception as error:
        raise CallbackError(
            f"The model's own state_dict() raised {type(error).__name__}: {as_sentence(str(error))}"
        ) from error


def _settings_for(source: Any, settings: WarmStartSettings | Any) -> WarmStartSettings:
    from torch_warmstart.settings import WarmStartSettings

    if settings is None:
        return WarmStartSettings(source, [".*"])
    if not isinstance(settings, WarmStartSettings):
        raise SettingsError(
            f"settings of convert() are a WarmStartSettings, not a {type(settings).__name__}."
        )
    return settings if source is None else replace(settings, ckpt_to_initialize_from=source)


@on_cpu
def diff(
    old: Any, new: Any, *, values: bool = True, progress: bool | None = None
) -> CheckpointDiff:
    """Compares two checkpoints: names, shapes, dtypes, and values with their norms.

    Args:
        old: As for `load_checkpoint`.
        new: The same.
        values: Compare values too; without, only what the indexes say, and nothing is found
            renamed.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        What differs; true if anything does. A tensor under another name is "renamed" if it alone
        has the same bytes.

    Raises:
        CheckpointError: one of them is missing or damaged.

    Example:
        >>> print(tws.diff("yesterday.pt", "today.pt"))                  # doctest: +SKIP
    """
    from torch_warmstart.proof import diff_checkpoints

    with load_checkpoint(old) as one, load_checkpoint(new) as other:
        return diff_checkpoints(one, other, values=values, progress=progress)


def load_settings(path: str | os.PathLike[str]) -> WarmStartSettings | list[WarmStartSettings]:
    """Reads settings from a TOML file; docs/cli.md shows one.

    Fields have their names in `WarmStartSettings` and `VocabInfo`. Paths in it are as they would be
    in Python: relative ones begin at the working directory.

    Args:
        path: A local file.

    Returns:
        The settings; a list, if the file has `[[warm_start]]` tables.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or a field is unknown or wrong.

    Example:
        >>> settings = tws.load_settings("warmstart.toml")               # doctest: +SKIP
    """
    from torch_warmstart.settings import read_settings

    return read_settings(path, named_initializers())


def save_settings(
    path: str | os.PathLike[str], settings: WarmStartSettings | Sequence[WarmStartSettings]
) -> None:
    """Writes settings into a TOML file that `load_settings` reads.

    Args:
        path: A local file; one that is there is replaced.
        settings: One, or a list of them.

    Raises:
        SettingsError: a field holds what TOML cannot say (a model, a tensor, a function that is
            none of `torch.nn.init` or `tws.init`, a generator); the message names it. Nothing is
            written.

    Example:
        >>> tws.save_settings("warmstart.toml", settings)                # doctest: +SKIP
    """
    from torch_warmstart.settings import write_settings

    write_settings(path, settings, named_initializers())


def named_initializers() -> dict[str, Any]:
    """What `backup_initializer` may be in a file, by name: of torch.nn.init and of tws.init."""
    from torch_warmstart import init

    functions = vars(torch.nn.init).items()
    of_torch = {n: f for n, f in functions if n.endswith("_") and n[0] != "_" and callable(f)}
    return of_torch | {name: getattr(init, name) for name in init.__all__}


@on_cpu
def list_variables(source: Any, *, entry: str | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """Key and shape of every tensor, sorted by key, as `tf.train.list_variables`.

    `entry` is that of `load_checkpoint`, which also raises what is wrong with the file.
    """
    with load_checkpoint(source, entry=entry) as checkpoint:
        return sorted((key, checkpoint.spec(key).shape) for key in checkpoint)


@on_cpu
def load_variable(source: Any, key: str, *, entry: str | None = None) -> Any:
    """One tensor by its key; a `:0` at the end is dropped, as `tf.train.load_variable` does.

    `entry` is that of `load_checkpoint`, which also raises what is wrong with the file.
    """
    check_kind("load_variable: key", key, str, "a str")
    with load_checkpoint(source, entry=entry) as checkpoint:
        return checkpoint.get_tensor(key if key in checkpoint else key.removesuffix(":0"))


def latest_checkpoint(
    directory: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> str | None:
    """The prefix of a directory's latest checkpoint, by its `checkpoint` file; None without one.

    Raises:
        CheckpointNotFoundError: the file names a checkpoint that is gone.
        CorruptCheckpointError: the file cannot be parsed.
    """
    where = path_of("latest_checkpoint: directory", directory)
    return find_latest_checkpoint(where, Storage(storage_options))
