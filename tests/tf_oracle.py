"""Real TensorFlow as the oracle of a warm start, with numpy arrays going in and coming out.

Graph mode, because that is where `tf.compat.v1.train.warm_start` works in full: it swaps the
initializers of variables, and the values are there once a session has run them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import: it logs a page otherwise

import tensorflow as tf

tf1 = tf.compat.v1
tf1.logging.set_verbosity(tf1.logging.ERROR)

Values = Mapping[str, np.ndarray]


def save(folder: Path, values: Values, *, step: int = 1000, partitions: int = 1) -> str:
    """Saves variables, cut along axis 0, as `folder/model-<step>` with a state file.

    Returns the prefix.
    """
    with tf1.Graph().as_default(), tf1.Session() as session:
        partitioner = tf1.fixed_size_partitioner(partitions) if partitions > 1 else None
        with tf1.variable_scope("", partitioner=partitioner):
            _make_variables(values)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(save_relative_paths=True)
        path = str(folder / "model")
        return saver.save(session, path, global_step=step, write_meta_graph=False)


def warm_start(
    start: Values, *settings: Any, not_trainable: Collection[str] = (), **more_settings: Any
) -> dict[str, np.ndarray]:
    """What variables that begin with the values of `start` hold after TensorFlow's warm start.

    Settings are those of `tf.compat.v1.train.warm_start`, as they are.
    """
    with tf1.Graph().as_default(), tf1.Session() as session:
        variables = _make_variables(start, not_trainable)
        tf1.train.warm_start(*settings, **more_settings)
        session.run(tf1.global_variables_initializer())
        return session.run(variables)


def vocab_info(**fields: Any) -> Any:
    """TensorFlow's VocabInfo."""
    return tf1.train.VocabInfo(**fields)


def constant_initializer(value: float) -> Any:
    """A backup initializer; TensorFlow's own constants cannot take the symbolic shape they get."""
    return lambda shape, **_: tf.fill(shape, tf.constant(value, tf.float32))


def selected(names: Collection[str], pattern: str) -> set[str]:
    """The names of global variables that TensorFlow selects by a pattern in a list."""
    with tf1.Graph().as_default() as graph:
        _make_variables({name: np.zeros((), np.float32) for name in names})
        chosen = graph.get_collection(tf1.GraphKeys.GLOBAL_VARIABLES, scope=pattern)
        return {variable.op.name for variable in chosen}


def _make_variables(values: Values, not_trainable: Collection[str] = ()) -> dict[str, Any]:
    return {
        name: tf1.get_variable(
            name,
            shape=value.shape,
            dtype=value.dtype,
            initializer=_initializer(value),
            trainable=name not in not_trainable,
        )
        for name, value in values.items()
    }


def _initializer(value: np.ndarray) -> Any:
    """An initializer that gives a value, or one partition's part of it."""

    def initialize(shape: Any, dtype: Any = None, partition_info: Any = None) -> Any:
        starts = partition_info.var_offset if partition_info else [0] * value.ndim
        part = tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
        return tf.constant(value[part], dtype)

    return initialize
