"""Columns of concatenated features, as TensorFlow's own input_layer lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch_warmstart as tws

pytestmark = pytest.mark.tensorflow

OLD = {"age": 1, "colour": ["red", "blue"], "zip": 2}
NEW = {"age": 1, "city": ["rome", "oslo"], "colour": ["blue", "pink", "red"], "zip": 2}
SEEN = {"zip": [[5.0, 7.0]], "age": [[2.0]], "colour": [["blue"]], "city": [["oslo"]]}


def layer_of(features: dict[str, Any]) -> np.ndarray:
    """What input_layer makes of a row, whatever order its columns are given in."""
    tf = pytest.importorskip("tensorflow")
    columns = [
        tf.feature_column.numeric_column(name, (kind,))
        if isinstance(kind, int)
        else tf.feature_column.indicator_column(
            tf.feature_column.categorical_column_with_vocabulary_list(name, kind)
        )
        for name, kind in reversed(features.items())
    ]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        row = {name: tf.constant(SEEN[name]) for name in features}
        made = tf.compat.v1.feature_column.input_layer(row, columns)
        session.run(tf.compat.v1.tables_initializer())
        return session.run(made)


def test_a_feature_that_input_layer_puts_in_the_middle_shifts_no_other_s_columns():
    before, after = layer_of(OLD), layer_of(NEW)
    assert (before.shape, after.shape) == ((1, 5), (1, 8))
    colour = tws.VocabInfo(NEW["colour"], old_vocab=OLD["colour"])
    features = tws.SegmentInfo(
        {"age": 1, "city": 2, "colour": colour, "zip": 2}, {"age": 1, "colour": 2, "zip": 2}
    )
    old, model = torch.nn.Linear(5, 4), torch.nn.Linear(8, 4)
    infos = {"weight": features}
    tws.warm_start(model, tws.WarmStartSettings(old.state_dict(), ".*", infos))
    torch.testing.assert_close(model(torch.tensor(after)), old(torch.tensor(before)))
