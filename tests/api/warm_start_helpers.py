"""What the tests of whole warm starts share."""

from __future__ import annotations

import numpy as np
from bundle_writer import BundleEntry, DType
from torch import nn

from torch_warmstart import VocabInfo

OLD, NEW = ["apple", "banana", "guava", "orange"], ["orange", "fig", "apple"]


def float_entry(key, values):
    array = np.asarray(values, dtype="<f4")
    return BundleEntry(key, DType.FLOAT, array.shape, array.tobytes())


def vocab(**changes):
    fields = {"new_vocab": NEW, "new_vocab_size": -1, "num_oov_buckets": 0, "old_vocab": OLD}
    return VocabInfo(**{**fields, **changes})


class Tagger(nn.Module):
    def __init__(self, words=3, classes=2):
        super().__init__()
        self.embed = nn.Embedding(words, 2)
        self.norm = nn.BatchNorm1d(2)
        self.out = nn.Linear(2, classes)
