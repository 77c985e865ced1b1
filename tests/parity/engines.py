"""One warm start by two engines: ours, and where it is installed, TensorFlow's.

A test that takes the fixture `engine` runs once with each, so that the values written out in it are
known to be TensorFlow's and known to be ours. Names are TensorFlow's in both: `a/b/c` is the
parameter `a.b.c` of a torch model. Every variable starts at zeros.

Ours has checkpoints that `bundle_writer` wrote, TensorFlow those of its own Saver.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle_writer import (
    FULL,
    BundleEntry,
    BundleSlice,
    DType,
    field_bytes,
    field_varint,
    write_bundle,
)
from torch import nn

import torch_warmstart as tws

Shapes = Mapping[str, Sequence[int]]
Values = dict[str, np.ndarray]
Warmed = dict[str, torch.Tensor]


class Ours:
    """torch_warmstart, which needs no TensorFlow."""

    is_tensorflow = False
    failures = (tws.WarmStartError,)

    def save(self, folder: Path, values: Mapping[str, Any], *, partitions: int = 1) -> str:
        """Writes `folder/model-0`, its variables cut along axis 0, and a state file."""
        return write_checkpoint(folder, values, partitions=partitions)

    def save_objects(self, folder: Path, values: Mapping[str, Any]) -> str:
        """An object-based checkpoint: attribute `v0`, `v1`, ... for each variable."""
        entries = [float_entry(f"v{at}{ATTRIBUTE}", v) for at, v in enumerate(values.values())]
        graph = object_graph([(f"v{at}", name) for at, name in enumerate(values)])
        entries.append(BundleEntry("_CHECKPOINTABLE_OBJECT_GRAPH", DType.STRING, (), [graph]))
        write_bundle(folder / "ckpt-1", entries)
        return _state_file(folder, "ckpt-1")

    def vocab_info(self, **fields: Any) -> tws.VocabInfo:
        return tws.VocabInfo(**fields)

    def constant(self, value: float) -> Callable[..., Any]:
        """A backup initialiser that fills with a value."""
        return partial(nn.init.constant_, val=value)

    def warm_start(
        self,
        shapes: Shapes,
        *settings: Any,
        variables: Collection[str] = (),
        partitions: int = 1,
        partition_axis: int = 0,
        **more: Any,
    ) -> Warmed:
        """What variables of these shapes hold after a warm start.

        Args:
            shapes: Name to shape.
            settings: Those of `WarmStartSettings`, in its order.
            variables: Names of variables to select as objects.
            partitions: Of the new variables, which torch does not have: they are whole.
            partition_axis: The axis along which TensorFlow cuts them.
            more: Settings by name.
        """
        del partitions, partition_axis
        model = model_of({name: torch.zeros(tuple(shape)) for name, shape in shapes.items()})
        if variables:
            more["vars_to_warm_start"] = [model.get_parameter(dotted(name)) for name in variables]
        tws.warm_start(model, tws.WarmStartSettings(*settings, **more))
        return {name: model.get_parameter(dotted(name)).detach() for name in shapes}

    def init_from_checkpoint(self, shapes: Shapes, source: Any, assignment_map: Any) -> Warmed:
        """What variables hold after an assignment map was carried out."""
        model = model_of({name: torch.zeros(tuple(shape)) for name, shape in shapes.items()})
        tws.init_from_checkpoint(model, source, assignment_map)
        return {name: model.get_parameter(dotted(name)).detach() for name in shapes}

    def vocab_remapping(
        self, new: str, old: str, *, offset: int = 0, count: int, old_size: int = -1
    ) -> tuple[list[int], int]:
        """For each of `count` new entries its old index, and how many have one."""
        rows, num_present = tws.generate_vocab_remapping(
            new, old, new_vocab_offset=offset, num_new_vocab=count, old_vocab_size=old_size
        )
        return rows.tolist(), num_present

    def remap_matrix(
        self,
        source: str,
        name: str,
        rows: Sequence[int],
        cols: Sequence[int],
        values: Sequence[float],
        num_rows: int,
        num_cols: int,
        max_rows: int = -1,
    ) -> torch.Tensor:
        """A matrix of a checkpoint, both its axes remapped."""
        return tws.load_and_remap_matrix(
            source, name, rows, cols, values, num_rows, num_cols, max_rows
        )


class TensorFlow:
    """Real TensorFlow, in graph mode."""

    is_tensorflow = True
    failures: tuple[type[Exception], ...]

    def __init__(self) -> None:
        import tf_oracle

        self._oracle = tf_oracle
        self._tf = tf_oracle.tf
        self._tf1 = tf_oracle.tf1
        self.failures = (ValueError, TypeError, self._tf.errors.OpError)

    def save(self, folder: Path, values: Mapping[str, Any], *, partitions: int = 1) -> str:
        arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
        return self._oracle.save(folder, arrays, step=0, partitions=partitions)

    def save_objects(self, folder: Path, values: Mapping[str, Any]) -> str:
        tf = self._tf
        variables = {
            f"v{at}": tf.Variable(np.asarray(value, np.float32), name=name)
            for at, (name, value) in enumerate(values.items())
        }
        return tf.train.Checkpoint(**variables).save(str(folder / "ckpt"))

    def vocab_info(self, **fields: Any) -> Any:
        return self._oracle.vocab_info(**fields)

    def constant(self, value: float) -> Callable[..., Any]:
        return self._oracle.constant_initializer(value)

    def warm_start(
        self,
        shapes: Shapes,
        *settings: Any,
        variables: Collection[str] = (),
        partitions: int = 1,
        partition_axis: int = 0,
        **more: Any,
    ) -> Warmed:
        tf1 = self._tf1
        with tf1.Graph().as_default(), tf1.Session() as session:
            partitioner = (
                tf1.fixed_size_partitioner(partitions, partition_axis) if partitions > 1 else None
            )
            with tf1.variable_scope("", partitioner=partitioner):
                made = {
                    name: tf1.get_variable(name, shape, initializer=tf1.zeros_initializer())
                    for name, shape in shapes.items()
                }
            if variables:
                more["vars_to_warm_start"] = [made[name] for name in variables]
            tf1.train.warm_start(*settings, **more)
            session.run(tf1.global_variables_initializer())
            wholes = {name: tf1.convert_to_tensor(variable) for name, variable in made.items()}
            return {name: torch.from_numpy(v) for name, v in session.run(wholes).items()}

    def init_from_checkpoint(self, shapes: Shapes, source: Any, assignment_map: Any) -> Warmed:
        tf1 = self._tf1
        with tf1.Graph().as_default(), tf1.Session() as session:
            made = {name: tf1.get_variable(name, shape) for name, shape in shapes.items()}
            tf1.train.init_from_checkpoint(source, assignment_map)
            session.run(tf1.global_variables_initializer())
            return {name: torch.from_numpy(v) for name, v in session.run(made).items()}

    def vocab_remapping(
        self, new: str, old: str, *, offset: int = 0, count: int, old_size: int = -1
    ) -> tuple[list[int], int]:
        rows, num_present = self._tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=new,
            old_vocab_file=old,
            new_vocab_offset=offset,
            num_new_vocab=count,
            old_vocab_size=old_size,
        )
        return rows.numpy().tolist(), int(num_present)

    def remap_matrix(
        self,
        source: str,
        name: str,
        rows: Sequence[int],
        cols: Sequence[int],
        values: Sequence[float],
        num_rows: int,
        num_cols: int,
        max_rows: int = -1,
    ) -> torch.Tensor:
        matrix = self._tf.raw_ops.LoadAndRemapMatrix(
            ckpt_path=source,
            old_tensor_name=name,
            row_remapping=np.array(rows, np.int64),
            col_remapping=np.array(cols, np.int64),
            initializing_values=np.array(values, np.float32),
            num_rows=num_rows,
            num_cols=num_cols,
            max_rows_in_memory=max_rows,
        )
        return torch.from_numpy(matrix.numpy().copy())


# -- checkpoints without TensorFlow ----------------------------------------------------------------

ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"


def write_checkpoint(folder: Path, values: Mapping[str, Any], *, partitions: int = 1) -> str:
    entries = [float_entry(name, value, partitions) for name, value in values.items()]
    write_bundle(folder / "model-0", entries)
    return _state_file(folder, "model-0")


def _state_file(folder: Path, name: str) -> str:
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    return str(folder / name)


def float_entry(name: str, value: Any, partitions: int = 1) -> BundleEntry:
    """A float32 tensor, whole or in as many slices along axis 0."""
    array = np.asarray(value, "<f4")
    if partitions == 1:
        return BundleEntry(name, DType.FLOAT, array.shape, array.tobytes())
    slices, start = [], 0
    for part in np.array_split(array, partitions):  # the first ones get what is left over
        extents = [(start, len(part)), *[FULL] * (array.ndim - 1)]
        slices.append(BundleSlice(extents, part.tobytes()))
        start += len(part)
    return BundleEntry(name, DType.FLOAT, array.shape, slices=slices)


def object_graph(variables: Sequence[tuple[str, str]]) -> bytes:
    """A TrackableObjectGraph of a root with variables: (attribute's name, variable's full name)."""
    children = b"".join(
        field_bytes(1, field_varint(1, node) + field_bytes(2, edge.encode()))
        for node, (edge, _) in enumerate(variables, 1)
    )
    nodes = [children]
    for edge, full_name in variables:
        texts = ("VARIABLE_VALUE", full_name, edge + ATTRIBUTE)
        attribute = b"".join(field_bytes(n, text.encode()) for n, text in enumerate(texts, 1))
        nodes.append(field_bytes(2, attribute))
    return b"".join(field_bytes(1, node) for node in nodes)


def write_vocab(folder: Path, name: str, entries: Sequence[str], *, end: str = "") -> str:
    """A vocabulary file, by default without a newline at its end."""
    path = folder / name
    path.write_text("\n".join(entries) + end)
    return str(path)


def assert_equal(found: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0)


# -- torch models with TensorFlow's names ----------------------------------------------------------


def dotted(name: str) -> str:
    return name.replace("/", ".")


def model_of(values: Mapping[str, torch.Tensor]) -> nn.Module:
    """A model whose parameters have the values: `a/b/c` is the parameter `c` of `model.a.b`."""
    model = nn.Module()
    for name, value in values.items():
        *path, leaf = name.split("/")
        module = model
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(value.clone()))
    return model
