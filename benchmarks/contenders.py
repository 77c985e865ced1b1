"""The contenders: each prepares a model, and then warm-starts it when it is told to.

`prepare` is not measured: imports, models and sessions are made there. What `run` does is. All of
them read the same files, leave a float32 table behind, and fill rows of new tokens with zeros.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from inputs import HAS_TENSORFLOW, KEY, Inputs

Stages = dict[str, float]  # seconds


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be warm-started."""

    run: Callable[[], Stages]  # the measured part; the stages it timed itself, if any
    table: Callable[[], np.ndarray]  # the result, read afterwards
    has_table: bool = True  # whether the new table has its memory before `run`


class Model(torch.nn.Module):
    """A model with one embedding."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.item_embedding = torch.nn.Embedding(rows, dim)

    @property
    def weight(self) -> torch.Tensor:
        """The table, out of autograd's sight."""
        return self.item_embedding.weight.detach()


def prepare_ours(inputs: Inputs) -> Prepared:
    """torch_warmstart.warm_start, with every default."""
    import torch_warmstart as tws

    model = Model(inputs.rows, inputs.dim)

    def run() -> Stages:
        tws.warm_start(model, _settings(inputs))
        return {}

    return Prepared(run, model.weight.numpy)


def prepare_stages(inputs: Inputs) -> Prepared:
    """What `warm_start` does, in its three parts."""
    import torch_warmstart as tws

    model = Model(inputs.rows, inputs.dim)

    def run() -> Stages:
        started = time.perf_counter()
        plan = tws.plan_warm_start(model, _settings(inputs))
        planned = time.perf_counter()
        plan.checkpoint.verify(KEY)  # once and for all: apply_plan need not do it again
        verified = time.perf_counter()
        tws.apply_plan(plan)
        return {
            "plan: read and join the vocabularies": planned - started,
            "verify: the checkpoint's checksum": verified - planned,
            "apply: gather the rows": time.perf_counter() - verified,
        }

    return Prepared(run, model.weight.numpy)


def _settings(inputs: Inputs):
    import torch_warmstart as tws

    info = tws.VocabInfo(
        new_vocab=inputs.new_vocab,
        new_vocab_size=inputs.rows,
        num_oov_buckets=0,
        old_vocab=inputs.old_vocab,
    )
    return tws.WarmStartSettings(
        inputs.checkpoint, var_name_to_vocab_info={"item_embedding.weight": info}
    )


def prepare_tf(inputs: Inputs) -> Prepared:
    """tf.compat.v1.train.warm_start in graph mode, which is the only mode it has."""
    import tensorflow as tf

    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default():
        variable = v1.get_variable(KEY, [inputs.rows, inputs.dim], initializer=v1.zeros_initializer)
    session = v1.Session(graph=graph)
    info = v1.train.VocabInfo(
        new_vocab=inputs.new_vocab,
        new_vocab_size=inputs.rows,
        num_oov_buckets=0,
        old_vocab=inputs.old_vocab,
    )

    def run() -> Stages:
        with graph.as_default():
            v1.train.warm_start(inputs.checkpoint, var_name_to_vocab_info={KEY: info})
            session.run(v1.global_variables_initializer())
        return {}

    return Prepared(run, lambda: session.run(variable), has_table=False)


def prepare_dict(inputs: Inputs) -> Prepared:
    """What one writes by hand: a dict of the old tokens, then one indexed copy."""
    weight, read_table = _by_hand(inputs)

    def run() -> Stages:
        row_of = {token: row for row, token in enumerate(_read_tokens(inputs.old_vocab))}
        new = _read_tokens(inputs.new_vocab)
        rows = torch.tensor([row_of.get(token, -1) for token in new])
        known = rows >= 0
        weight.zero_()
        weight[known] = read_table().index_select(0, rows[known])
        return {}

    return Prepared(run, weight.numpy)


def prepare_rowloop(inputs: Inputs) -> Prepared:
    """What one writes first: a loop over the rows. For small tables."""
    weight, read_table = _by_hand(inputs)

    def run() -> Stages:
        row_of = {token: row for row, token in enumerate(_read_tokens(inputs.old_vocab))}
        table = read_table()
        weight.zero_()
        for row, token in enumerate(_read_tokens(inputs.new_vocab)):
            if token in row_of:
                weight[row] = table[row_of[token]]
        return {}

    return Prepared(run, weight.numpy)


def _by_hand(inputs: Inputs) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """The table to fill, and a function that reads the old one.

    Without our library one reads a checkpoint with TensorFlow. Where that is missing, ours stands
    in for it, and the comparison is about the vocabularies alone.
    """
    if HAS_TENSORFLOW:
        import tensorflow as tf

        def read_table() -> torch.Tensor:
            return torch.from_numpy(tf.train.load_checkpoint(inputs.checkpoint).get_tensor(KEY))
    else:
        import torch_warmstart as tws

        def read_table() -> torch.Tensor:
            return tws.load_variable(inputs.checkpoint, KEY)

    return Model(inputs.rows, inputs.dim).weight, read_table


def _read_tokens(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


CONTENDERS: dict[str, Callable[[Inputs], Prepared]] = {
    "ours": prepare_ours,
    "tf": prepare_tf,
    "dict": prepare_dict,
    "rowloop": prepare_rowloop,
}
