"""What new rows begin with, made of old ones: for `backup_initializer`.

    from torch_warmstart import init

    VocabInfo(new, ..., backup_initializer=init.subword(tokenizer) | init.mean() + init.noise(0.02))

`a | b` is the first that answers for a row, `a + init.noise(s)` is a row with noise on it (`+`
binds tighter). The dry run and the report say for how many rows each has answered.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torch_warmstart.dtypes import as_python
from torch_warmstart.errors import SettingsError, check_choice, is_number, is_whole
from torch_warmstart.new_rows import Noise, RowInitializer
from torch_warmstart.new_rows.initializers import (
    Alias,
    GroupMean,
    Mean,
    Normal,
    Omp,
    Similar,
    Subword,
    Vectors,
)
from torch_warmstart.settings import VocabSource
from torch_warmstart.values import (
    Alignment,
    Alike,
    Anchors,
    Covariance,
    PieceWeights,
    TableRole,
    VectorWeights,
    WhichRows,
)

__all__ = [
    "alias",
    "group_mean",
    "mean",
    "noise",
    "normal",
    "omp",
    "similar",
    "subword",
    "vectors",
]

# A table whose rows have entries: a file of vectors, or a vocabulary and a matrix, which is given
# or named by a checkpoint and its key.
Table = str | os.PathLike[str] | tuple[VocabSource, torch.Tensor | np.ndarray | tuple[Any, str]]


def mean(of: WhichRows = "trained") -> RowInitializer:
    """New rows are the mean of the old ones: needs one pass over them.

    Args:
        of: "trained" leaves out old rows that are near zero (a hundredth of the median length
            or less), not finite, or reserved (`[unused7]`, `<|reserved_special_token_3|>`); "all"
            takes every row that the old vocabulary describes.

    Raises:
        SettingsError: of another value; while preparing, if no row looks trained.

    Example:
        >>> tws.init.mean() + tws.init.noise(0.02)                          # doctest: +SKIP
    """
    check_choice("init.mean: of", of, WhichRows)
    return Mean(of)


def normal(
    cov: Covariance = "full", scale: float = 1.0, *, of: WhichRows = "trained"
) -> RowInitializer:
    """New rows are drawn from a normal with the old rows' mean and covariance.

    Args:
        cov: "full", or "diagonal" for each number by itself. Of less than full rank is fine.
        scale: What deviations are multiplied by.
        of: As for `mean`.

    Raises:
        SettingsError: of another value.

    Example:
        >>> tws.init.normal("diagonal", scale=0.5)                          # doctest: +SKIP
    """
    check_choice("init.normal: cov", cov, Covariance)
    check_choice("init.normal: of", of, WhichRows)
    return Normal(cov, _positive("normal", "scale", scale), of)


def subword(
    pieces: Any,
    weights: PieceWeights = "mean",
    role: TableRole = "auto",
) -> RowInitializer:
    """New rows are weighted means of the pieces into which the old tokenizer cuts their text.

    It does not answer for rows without text (special tokens, bytes that are no text by themselves)
    and for those of which no piece is in the old vocabulary.

    Args:
        pieces: The old tokenizer: of `tokenizers`, `transformers`, `sentencepiece` or `tiktoken`;
            the path of its `tokenizer.json`, of a directory with one, or of a `.model`, which is
            read by these libraries when it is needed; a function from text to pieces; or a mapping
            of new entries to pieces. Pieces are entries of the old vocabulary, or its ids.
        weights: "mean"; "last" or "first" piece only; "exp" halves from the heaviest on: the last
            piece in an input table, the first in an output table and its bias.
        role: Which of these it is for "exp"; "auto": by the variable's module. A tied table is an
            input.

    Raises:
        SettingsError: of another value; while planning, if there is no such file, or none that the
            library can read.

    Example:
        >>> tws.init.subword(old_tokenizer, "exp") | tws.init.mean()        # doctest: +SKIP
    """
    check_choice("init.subword: weights", weights, PieceWeights)
    check_choice("init.subword: role", role, TableRole)
    return Subword(pieces, weights, role)


def similar(
    vectors: Table,
    k: int | None = 10,
    *,
    weights: VectorWeights = "softmax",
    temperature: float = 0.1,
    anchors: Anchors = "old",
    old_vectors: Table | None = None,
    of: WhichRows = "trained",
) -> RowInitializer:
    """New rows are weighted sums of the old rows whose entries have the most similar vectors.

    WECHSEL is the default, with both sides' vectors in one space; FOCUS is `k=None,
    weights="sparsemax", temperature=1, anchors="shared"` with vectors of the new tokens; CLP is
    `k=None, weights="proportional", anchors="shared"` with a smaller model's table. It answers for
    rows that have a vector.

    Args:
        vectors: A file of vectors, or `(vocabulary, matrix)`, `(vocabulary, (url, key))`; a matrix
            is a tensor or an array.
        k: How many of the most similar old rows; None: all. "softmax" needs a number.
        weights: Of cosines: their softmax, their sparsemax, or in proportion to them (to those
            above zero: sums near zero would make rows without bounds).
        temperature: What cosines are divided by before softmax and sparsemax.
        anchors: Which old rows count: all, or those whose entries the new vocabulary has too.
        old_vectors: Where old entries have vectors of their own; of the same width and space.
        of: As for `mean`.

    Raises:
        SettingsError: of another value; while preparing, if no old entry has a vector.

    Example:
        >>> tws.init.similar("cc.fr.300.vec", k=5) | tws.init.mean()        # doctest: +SKIP
    """
    check_choice("init.similar: weights", weights, VectorWeights)
    check_choice("init.similar: anchors", anchors, Anchors)
    check_choice("init.similar: of", of, WhichRows)
    temperature = _positive("similar", "temperature", temperature)
    if k is not None or weights == "softmax":
        k = _count("similar", "k", k)
    return Similar(
        vectors,
        k,
        weights=weights,
        temperature=temperature,
        anchors=anchors,
        old_vectors=old_vectors,
        of=of,
    )


def omp(donor: Table, k: int = 64, *, of: WhichRows = "trained") -> RowInitializer:
    """New rows are those combinations of old ones that make the new entry's row in a donor's table.

    By orthogonal matching pursuit among the donor's rows of shared entries. It answers for rows
    that the donor has. Of all initialisers it costs most: `rows * k * shared * width` steps.

    Args:
        donor: Another model's table with the new vocabulary: `(vocabulary, matrix)`,
            `(vocabulary, (url, key))`, or a file of vectors.
        k: How many old rows make a new one at most.
        of: As for `mean`.

    Raises:
        SettingsError: of another value; while preparing, if the donor shares no entry.

    Example:
        >>> tws.init.omp(("tokenizer.txt", ("donor.safetensors", "embed.weight")))  # doctest: +SKIP
    """
    k = _count("omp", "k", k)
    check_choice("init.omp: of", of, WhichRows)
    return Omp(donor, k, of)


def alias(
    mapping: Mapping[Any, Any] | Alike,
    *,
    num_oov_buckets: int | None = None,
) -> RowInitializer:
    """New rows are one old row each: of another entry that means the same.

    Args:
        mapping: New entries to old ones. Or "casefold": the first old entry that differs in case
            only; "bytes": that is the same text in another tokenizer's spelling (`Ġx`, `▁x`,
            `##x`); "prefix": the longest old entry that the new one begins with, of two bytes or
            more besides such signs in front; "oov_bucket": the OOV row that the entry has used
            until now, by TensorFlow's hash (`to_hash_bucket_fast`).
        num_oov_buckets: How many OOV rows lay behind the old vocabulary's, for "oov_bucket"; None:
            `old_num_oov_buckets` of the VocabInfo.

    Raises:
        SettingsError: of another value; while planning, if an old entry is not there.

    Example:
        >>> tws.init.alias({"colour": "color"}) | tws.init.alias("casefold")  # doctest: +SKIP
    """
    if not isinstance(mapping, Mapping):
        check_choice("init.alias: mapping", mapping, Alike)
    elif not mapping:
        raise SettingsError("init.alias: the mapping is empty.")
    if num_oov_buckets is not None:
        num_oov_buckets = _count("alias", "num_oov_buckets", num_oov_buckets)
        if mapping != "oov_bucket":
            raise SettingsError('init.alias: num_oov_buckets is for "oov_bucket" only.')
    return Alias(mapping, num_oov_buckets)


def group_mean(groups: Mapping[Any, Any]) -> RowInitializer:
    """New rows are the mean of the old rows of their group: a new item that of its category.

    It answers for rows whose group has an old one.

    Args:
        groups: Entries, old and new ones, to whatever names their groups. None, NaN and pandas' NA
            are no group.

    Raises:
        SettingsError: there are none.

    Example:
        >>> tws.init.group_mean(dict(zip(ids, categories))) | tws.init.mean()  # doctest: +SKIP
    """
    if not isinstance(groups, Mapping) or not groups:
        raise SettingsError("init.group_mean takes a mapping of entries to their groups.")
    return GroupMean(groups)


def vectors(
    vectors: Table,
    align: Alignment | None = "ridge",
    *,
    ridge: float = 1e-4,
    of: WhichRows = "trained",
) -> RowInitializer:
    """New rows are vectors from elsewhere, mapped into the old table's space.

    The mapping is fitted on the entries that have both. It answers for rows that have a vector.

    Args:
        vectors: A file of vectors, or `(vocabulary, matrix)`, `(vocabulary, (url, key))`; a matrix
            is a tensor or an array.
        align: "ridge": a linear mapping, of any two widths; "procrustes": a rotation and a scale;
            None: as they are, of the table's own width.
        ridge: How strongly the linear mapping is held small, in parts of the vectors' mean square.
        of: As for `mean`: which shared rows are fitted on.

    Raises:
        SettingsError: of another value; while planning, if widths differ with `align=None`; while
            preparing, if under two entries are shared.

    Example:
        >>> tws.init.vectors("glove.6B.300d.txt", align="ridge")            # doctest: +SKIP
    """
    if align is not None:
        check_choice("init.vectors: align", align, Alignment)
    check_choice("init.vectors: of", of, WhichRows)
    return Vectors(vectors, align, _positive("vectors", "ridge", ridge), of)


def noise(scale: float) -> RowInitializer:
    """Normal noise that is added to another initialiser's rows, so that no two begin equal.

    Args:
        scale: Its standard deviation, in parts of how the trained old rows spread in each number.

    Raises:
        SettingsError: it is no positive number.

    Example:
        >>> tws.init.mean() + tws.init.noise(0.02)                          # doctest: +SKIP
    """
    return Noise(_positive("noise", "scale", scale))


def _count(method: str, argument: str, value: object) -> int:
    value = as_python(value)
    if not is_whole(value) or value < 1:
        raise SettingsError(f"init.{method}: {argument} is a number from 1 on, not {value!r}.")
    return value


def _positive(method: str, argument: str, value: object) -> float:
    value = as_python(value)
    if not is_number(value) or not 0 < float(value) < math.inf:
        raise SettingsError(f"init.{method}: {argument} is a positive number, not {value!r}.")
    return float(value)
