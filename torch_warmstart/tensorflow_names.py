"""The helpers that TensorFlow's users call by name, for torch.

    load_and_remap_matrix        the op LoadAndRemapMatrix: both axes of a matrix in one go
    warmstart_embedding_matrix   tf.keras.utils.warmstart_embedding_matrix, in memory
    init_from_checkpoint         tf.compat.v1.train.init_from_checkpoint, for a module

Each has TensorFlow's arguments in TensorFlow's order; additions are keyword-only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torch_warmstart import api
from torch_warmstart.computing import on_cpu
from torch_warmstart.dtypes import as_bits, dtype_name
from torch_warmstart.errors import SettingsError, check_kind, plural
from torch_warmstart.execution import WarmStartReport, gather_rows
from torch_warmstart.formats import Checkpoint, TensorSpec
from torch_warmstart.formats.arrays import native
from torch_warmstart.new_rows import find_initializer, initialised
from torch_warmstart.planning import AssignmentMap, plan_assignment, read_map
from torch_warmstart.settings import Initializer, VocabSource
from torch_warmstart.vocabularies import generate_vocab_remapping

Array = torch.Tensor | npt.NDArray[Any]
# Old indices, negative where there is none; or what generate_vocab_remapping returns.
Indices = Sequence[int] | Array | tuple[torch.Tensor, int]


# -- load_and_remap_matrix -------------------------------------------------------------------------


@on_cpu
def load_and_remap_matrix(  # noqa: PLR0917 - TensorFlow's order
    ckpt_path: Any,
    old_tensor_name: str,
    row_remapping: Indices,
    col_remapping: Indices | None,
    initializing_values: Sequence[float] | Array | Initializer,
    num_rows: int,
    num_cols: int,
    max_rows_in_memory: int = -1,
    *,
    generator: torch.Generator | None = None,
    verify: bool = False,
) -> torch.Tensor:
    """Reads a matrix from a checkpoint, its rows and columns remapped: LoadAndRemapMatrix.

    Cell [i, j] of the result is the old cell [row_remapping[i], col_remapping[j]]. Where either
    index is negative the cell is missing, and filled from `initializing_values`. Of the old matrix
    only the rows that are needed are read; its layout stays the checkpoint's (a Dense kernel is
    [in, out]).

    Args:
        ckpt_path: What `load_checkpoint` takes. An open checkpoint stays open; open it yourself
            where credentials or the like are needed.
        old_tensor_name: The key of a matrix, of any floating dtype.
        row_remapping: [num_rows]: for each new row its old row, negative where there is none. A
            sequence, array or tensor of integers, or the pair that `generate_vocab_remapping`
            returns. OOV rows are -1s behind it: `torch.nn.functional.pad(rows, (0, n), value=-1)`.
        col_remapping: [num_cols]: the same for columns. None or empty: all columns as they are.
        initializing_values: The missing cells row by row, exactly as many as there are: a sequence,
            array or tensor of any shape. Or a callable such as `torch.nn.init.xavier_uniform_`,
            which gets a tensor of the result's full shape, and fills it in place or returns
            another one.
        num_rows: Rows of the result.
        num_cols: Columns of the result; without a `col_remapping`, those of the old matrix.
        max_rows_in_memory: How many old rows are held at a time, beside the result; -1 for all.
        generator: Passed to a callable `initializing_values` as `generator=`.
        verify: Check the old matrix against its checksum first, for which all of it is read.

    Returns:
        [num_rows, num_cols] of the old matrix's dtype, on the CPU.

    Raises:
        SettingsError: lengths, sizes or the number of values do not agree; an old index is used
            twice or is not in the old matrix; or the tensor is no matrix of a floating dtype.
        MissingTensorError: the checkpoint has no such tensor.
        CheckpointError: the checkpoint is missing or damaged.

    Example:
        >>> old = {"weights": torch.tensor([[0.0, 1.0], [10.0, 11.0]])}
        >>> rows = generate_vocab_remapping(["mars", "venus"], ["earth", "venus"])
        >>> load_and_remap_matrix(old, "weights", rows, [1, -1, 0], [7, 8, 9, 5], 2, 3)
        tensor([[ 7.,  8.,  9.],
                [11.,  5., 10.]])
    """
    with _opened(ckpt_path, verify=verify) as checkpoint:
        spec = _old_matrix(checkpoint, old_tensor_name)
        rows = _old_indices(_integers("row_remapping", row_remapping), 0, num_rows, spec)
        cols = _integers("col_remapping", () if col_remapping is None else col_remapping)
        as_they_are = not len(cols)
        cols = (
            _all_columns(num_cols, spec) if as_they_are else _old_indices(cols, 1, num_cols, spec)
        )
        result = _matrix_without_old_cells(spec, rows, cols, initializing_values, generator)
        if verify:
            checkpoint.verify(spec.key)
        to_rows, to_cols = _present(rows), _present(cols)
        bits, step = as_bits(result), max_rows_in_memory if max_rows_in_memory > 0 else len(rows)
        for start in range(0, len(to_rows), max(1, step)):
            to = to_rows[start : start + step]
            old = as_bits(checkpoint.get_tensor(spec.key, rows=rows[to]))
            if not as_they_are:
                old = old.index_select(1, cols[to_cols])
            if len(to_cols) == num_cols:
                bits.index_copy_(0, to, old)  # a tenth of the time
            else:
                bits[to[:, None], to_cols] = old
        return result


def _old_matrix(checkpoint: Checkpoint, name: str) -> TensorSpec:
    check_kind("load_and_remap_matrix: old_tensor_name", name, str, "a str")
    spec = checkpoint.spec(name if name in checkpoint else name.removesuffix(":0"))
    if len(spec.shape) != 2 or spec.dtype is None or not spec.dtype.is_floating_point:
        raise SettingsError(
            f"load_and_remap_matrix: {spec.key!r} is {spec.stored_dtype} of shape "
            f"{list(spec.shape)}; only matrices of a floating dtype are remapped."
        )
    return spec


def _integers(name: str, remapping: Indices) -> torch.Tensor:
    """A remapping as an int64 vector on the CPU, whatever it came as."""
    if isinstance(remapping, tuple) and remapping and isinstance(remapping[0], torch.Tensor):
        remapping, *_ = remapping  # generate_vocab_remapping's pair
    indices = _as_tensor(name, remapping)
    integral = not (indices.is_floating_point() or indices.is_complex())
    if indices.ndim != 1 or (len(indices) and (not integral or indices.dtype == torch.bool)):
        raise SettingsError(
            f"load_and_remap_matrix: {name} is a vector of integers, not "
            f"{dtype_name(indices.dtype)} of shape {list(indices.shape)}."
        )
    return indices.to("cpu", torch.int64)


def _old_indices(indices: torch.Tensor, dim: int, size: int, spec: TensorSpec) -> torch.Tensor:
    """A remapping, once it has the right length, and old indices that exist and are not repeated.

    Two new rows of one old row are refused as TensorFlow does: nearly always it is a vocabulary
    with an entry twice.
    """
    name, number, line = (
        ("row_remapping", "num_rows", "row"),
        ("col_remapping", "num_cols", "column"),
    )[dim]
    if len(indices) != size:
        raise SettingsError(
            f"load_and_remap_matrix: {name} has length {len(indices):,}, but {number} is {size:,}."
        )
    if size and int(indices.max()) >= spec.shape[dim]:
        raise SettingsError(
            f"load_and_remap_matrix: {name} asks for {line} {int(indices.max()):,} of "
            f"{spec.key!r}, which has {plural(spec.shape[dim], line)}."
        )
    ordered, order = torch.sort(indices, stable=True)
    again = ((ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)).nonzero().flatten()
    if len(again):
        at = int(again[0])
        raise SettingsError(
            f"load_and_remap_matrix: {name} asks for old {line} {int(ordered[at]):,} twice, for "
            f"the new {line}s {int(order[at]):,} and {int(order[at + 1]):,}."
        )
    return indices


def _all_columns(num_cols: int, spec: TensorSpec) -> torch.Tensor:
    if num_cols != spec.shape[1]:
        raise SettingsError(
            f"load_and_remap_matrix: without a col_remapping num_cols must be {spec.shape[1]:,}, "
            f"as many columns as {spec.key!r} has; it is {num_cols:,}."
        )
    return torch.arange(num_cols)


def _matrix_without_old_cells(
    spec: TensorSpec,
    rows: torch.Tensor,
    cols: torch.Tensor,
    values: Sequence[float] | Array | Initializer,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """The result with its missing cells filled; what the others hold does not matter."""
    shape, dtype = (len(rows), len(cols)), spec.dtype
    assert dtype is not None
    if callable(values):
        return initialised("initializing_values", values, shape, dtype, generator=generator)
    _check_no_generator(generator)
    given = _as_tensor("initializing_values", values).flatten().to("cpu", dtype)
    missing = len(rows) * len(cols) - len(_present(rows)) * len(_present(cols))
    if len(given) != missing:
        raise SettingsError(
            f"load_and_remap_matrix: {plural(missing, 'cell')} of {list(shape)} have no old value, "
            f"but initializing_values has {len(given):,}."
        )
    result = torch.empty(shape, dtype=dtype)
    if missing:
        mask = (rows < 0)[:, None] | (cols < 0)
        as_bits(result).masked_scatter_(mask, as_bits(given))
    return result


def _present(indices: torch.Tensor) -> torch.Tensor:
    return (indices >= 0).nonzero().flatten()


# -- warmstart_embedding_matrix --------------------------------------------------------------------


@on_cpu
def warmstart_embedding_matrix(
    base_vocabulary: VocabSource | npt.NDArray[Any],
    new_vocabulary: VocabSource | npt.NDArray[Any],
    base_embeddings: Array,
    new_embeddings_initializer: str | Array | Initializer = "uniform",
    *,
    generator: torch.Generator | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """The embedding matrix of a new vocabulary, from an old one: Keras 2's function of this name.

    Row i is the row that entry i of the new vocabulary had in `base_embeddings`. The rows of
    entries that the old vocabulary does not have are initialised.

    Args:
        base_vocabulary: What the rows of `base_embeddings` stand for: a sequence or array of str,
            bytes or int, a vector of int, or the path or URL of a file with one entry a line. The
            matrix may have more rows than it has entries; those are ignored.
        new_vocabulary: The same for the new matrix; an entry may be there twice.
        base_embeddings: [rows, dim], of a floating dtype; never written to.
        new_embeddings_initializer: Keras' name of an initialiser ("uniform" is -0.05 to 0.05,
            "glorot_uniform", ...); a matrix of the result's shape, for Keras' Constant(matrix); or
            a callable such as `torch.nn.init.normal_`. Whichever, it is for the full shape.
        generator: What the initialiser draws from, unless it is a matrix.
        storage_options: Passed to fsspec, for vocabularies that are URLs.

    Returns:
        [len(new_vocabulary), dim] of the dtype and on the device of `base_embeddings`; a tensor of
        its own, which does not require grad.

    Raises:
        VocabularyError: a vocabulary is missing or empty or has a blank entry, or the old one has
            an entry twice.
        SettingsError: the matrix or the initialiser does not fit.

    Example:
        >>> old = torch.tensor([[1.0, 1.5], [2.0, 2.5]])
        >>> warmstart_embedding_matrix(["a", "b"], ["b", "new", "a"], old, "zeros")
        tensor([[2.0000, 2.5000],
                [0.0000, 0.0000],
                [1.0000, 1.5000]])
    """
    base = _as_tensor("base_embeddings", base_embeddings)
    if base.ndim != 2 or not base.is_floating_point():
        raise SettingsError(
            "warmstart_embedding_matrix: base_embeddings is a matrix of a floating dtype, not "
            f"{dtype_name(base.dtype)} of shape {list(base.shape)}."
        )
    rows, _ = generate_vocab_remapping(
        _entries("new_vocabulary", new_vocabulary),
        _entries("base_vocabulary", base_vocabulary),
        device=base.device,
        storage_options=storage_options,
    )
    highest = int(rows.max())
    if highest >= len(base):
        raise SettingsError(
            f"warmstart_embedding_matrix: an entry of new_vocabulary is number {highest + 1:,} of "
            f"base_vocabulary, but base_embeddings has only {plural(len(base), 'row')}."
        )
    shape = (len(rows), base.shape[1])
    fresh = _new_embeddings(new_embeddings_initializer, shape, base.dtype, generator)
    return gather_rows(base, rows, out=fresh.to(base.device))


def _entries(name: str, vocabulary: Any) -> VocabSource:
    """A vocabulary as `read_vocabulary` takes it: numpy's text as lists of str or bytes."""
    if isinstance(vocabulary, np.ndarray):
        vocabulary = vocabulary.tolist()
    source: VocabSource = vocabulary
    if isinstance(source, str | os.PathLike | torch.Tensor):
        return source
    if isinstance(vocabulary, bytes) or not isinstance(vocabulary, Sequence):
        raise SettingsError(
            f"warmstart_embedding_matrix: {name} is a sequence or array of str, bytes or int, or a "
            f"path or URL, not a {type(vocabulary).__name__}."
        )
    if any(issubclass(kind, np.generic) for kind in set(map(type, vocabulary))):
        source = [v.item() if isinstance(v, np.generic) else v for v in vocabulary]
    return source


def _new_embeddings(
    initializer: str | Array | Initializer,
    shape: tuple[int, int],
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """A matrix of its own, initialised as a whole."""
    name = "new_embeddings_initializer"
    if isinstance(initializer, str):
        initializer = find_initializer(initializer)
    if not isinstance(initializer, torch.Tensor | np.ndarray):
        if not callable(initializer):
            raise SettingsError(
                f"warmstart_embedding_matrix: {name} is a name, a matrix or a callable, not "
                f"{initializer!r}."
            )
        return initialised(name, initializer, shape, dtype, generator=generator)
    _check_no_generator(generator)
    matrix = _as_tensor(name, initializer)
    if tuple(matrix.shape) != shape:
        raise SettingsError(
            f"warmstart_embedding_matrix: {name} is of shape {list(matrix.shape)}, but the result "
            f"of {list(shape)}."
        )
    return matrix.to(dtype, copy=True)


# -- init_from_checkpoint --------------------------------------------------------------------------


@on_cpu
def init_from_checkpoint(
    model: torch.nn.Module,
    ckpt_dir_or_file: Any,
    assignment_map: AssignmentMap,
    *,
    verify: bool = True,
    progress: bool | None = None,
) -> WarmStartReport:
    """Fills variables of a model in place by an assignment map, and no others.

    The entries of the map, from the checkpoint to the model:

    ```
    "old/kernel": "new.weight"    a tensor to a parameter or buffer, by name; `new/weight` too
    "old/kernel": model.new.weight                  ... or the parameter or buffer itself
    "old/": "new/"                every parameter and persistent buffer below a scope; "/" is the
                                  root on either side
    ```

    In a scope the leaves have TensorFlow's names: `new.weight` of a Linear is `old/kernel`, and
    what torch keeps in one tensor may be several, as in an LSTM. Every variable of it must be in
    the checkpoint. Layouts are changed as in `warm_start`. A variable's own entry counts more than
    that of a scope around it, and an inner scope more than an outer one.

    Args:
        model: The model to fill. Parameters are never replaced; device and dtype stay.
        ckpt_dir_or_file: What `load_checkpoint` takes. An open checkpoint stays open; open it
            yourself where credentials or the like are needed.
        assignment_map: A mapping, or pairs, so that one tensor can go to two variables.
        verify: Check what is read against the checkpoint's checksums before the model changes.
        progress: Show a progress bar; None shows one for long work on a terminal.

    Returns:
        The account of every variable of the model; those outside the map are kept.

    Raises:
        SettingsError: the map is malformed.
        PlanError: the map asks for what is not there or does not fit; all problems at once.
            Nothing has been changed.
        CheckpointError: the checkpoint is missing or damaged. Nothing has been changed.

    Example:
        >>> model = torch.nn.ModuleDict({"new": torch.nn.Linear(2, 1)})
        >>> old = {"old.weight": torch.tensor([[3.0, 4.0]]), "old.bias": torch.tensor([5.0])}
        >>> report = init_from_checkpoint(model, old, {"old/": "new/"})
        >>> model["new"].weight
        Parameter containing:
        tensor([[3., 4.]], requires_grad=True)
    """
    check_kind("The model", model, torch.nn.Module, "a torch.nn.Module")
    entries = read_map(assignment_map)
    with _opened(ckpt_dir_or_file, verify=verify) as checkpoint:
        plan = plan_assignment(model, entries, checkpoint, verify=verify)
        return api.apply_plan(plan, progress=progress)


# -- what they share -------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(source: Any, *, verify: bool) -> Iterator[Checkpoint]:
    """A checkpoint, closed afterwards unless it was open already."""
    if isinstance(source, Checkpoint):
        yield source
    else:
        with api.load_checkpoint(source, verify=verify) as checkpoint:
            yield checkpoint


def _as_tensor(name: str, values: Any) -> torch.Tensor:
    """An array or nested sequence as a tensor, in its own dtype; not copied where that can be."""
    if isinstance(values, torch.Tensor):
        return values.detach()
    try:
        array = native(np.asarray(values, order="C"))
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name} is nothing that a tensor can be made of: {error}") from error


def _check_no_generator(generator: torch.Generator | None) -> None:
    if generator is not None:
        raise SettingsError("A generator is of no use with values that are given.")
