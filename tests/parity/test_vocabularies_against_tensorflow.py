"""Any two vocabularies: a warm start gives the rows that TensorFlow's own gives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_oracle
import torch
from against_tensorflow_helpers import assert_same, write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import torch_warmstart as tws
from torch_warmstart.vocabularies.loading.content import HEAD, what_else_it_is

pytestmark = pytest.mark.tensorflow


# -- any two vocabularies --------------------------------------------------------------------------

# A line ends at \n, and one \r before it is dropped; everything else is part of the entry.
ODD_ENTRIES = (
    *(b"a", b"b", b"A", b"ab", b" ", b" a", b"a ", b"\t", b"a\tb", b"\ra", b"a\rb", b"a\r"),
    *(b"\x0b", b"a\x0bb", b"\x0c", b"\xc2\x85", b"a\xc2\x85", b"\xe2\x80\xa8", b"\x1c"),
    *(b"\xff", b"\xff\xfe", b"\x80a", b"\xef\xbb\xbfa", b"\x00", b"a\x00", b"\x00a"),
    *(b"\xc3\xa9", b"e\xcc\x81", b"12345678", b"123456789", b"1234567\x00", b"x" * 20),
)
BACKUP = 42.0


@dataclass(frozen=True)
class Scenario:
    old: list[bytes]
    new: list[bytes]
    old_file: bytes
    new_file: bytes
    old_vocab_size: int
    new_vocab_size: int
    num_oov_buckets: int
    extra_old_rows: int
    width: int
    axis: int
    partitions: int  # of the old variable
    from_directory: bool
    with_backup: bool
    seed: int

    @property
    def old_shape(self) -> tuple[int, int]:
        return self._shape(len(self.old) + self.extra_old_rows)

    @property
    def new_shape(self) -> tuple[int, int]:
        return self._shape(self.new_vocab_size + self.num_oov_buckets)

    def _shape(self, size: int) -> tuple[int, int]:
        return (size, self.width) if self.axis == 0 else (self.width, size)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    entry = st.sampled_from(ODD_ENTRIES) | st.binary(min_size=1, max_size=4).filter(is_an_entry)
    count = draw(st.integers(1, 24))  # drawn by itself: left to a list, most would be short
    entries = draw(st.lists(entry, min_size=count, max_size=count, unique=True))
    old = draw(some_of(entries))
    new = draw(some_of(entries))
    extra_old_rows = draw(st.integers(0, 2))
    width = draw(st.integers(1, 3))
    axis = draw(st.sampled_from([0, 1]))
    # TensorFlow ignores old_vocab_size for axis 1, so all of the vocabulary it is.
    old_sizes = st.just(-1) if axis == 1 else st.just(-1) | st.integers(1, len(old))
    return Scenario(
        old=old,
        new=new,
        old_file=draw(file_of(old)),
        new_file=draw(file_of(new)),
        old_vocab_size=draw(old_sizes),
        new_vocab_size=draw(st.integers(1, len(new))),
        num_oov_buckets=draw(st.integers(0, 3)),
        extra_old_rows=extra_old_rows,
        width=width,
        axis=axis,
        partitions=draw(st.integers(1, min(3, width if axis else len(old) + extra_old_rows))),
        from_directory=draw(st.booleans()),
        with_backup=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def is_an_entry(raw: bytes) -> bool:
    return b"\n" not in raw and raw != b"\r"


def some_of(entries: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.permutations(entries).flatmap(
        lambda shuffled: st.integers(1, len(shuffled)).map(lambda count: shuffled[:count])
    )


@st.composite
def file_of(draw: st.DrawFn, entries: list[bytes]) -> bytes:
    """A vocabulary file, with or without a final newline, each line ended in either way."""
    always, never = st.just(True), st.just(False)
    crlf = draw(st.sampled_from([always, never, st.booleans()]))
    # An entry that ends with \r needs one more behind it: exactly one is dropped.
    lines = [e + (b"\r" if e.endswith(b"\r") or draw(crlf) else b"") for e in entries]
    return b"\n".join(lines) + draw(st.sampled_from([b"\n", b""]))


class Table(nn.Module):
    """A user's own module: its tensor is copied as it is, without a change of layout."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(values.copy()))


def any_bits(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Any float32 there is: subnormals, infinities and every kind of NaN among them."""
    bits = np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)
    special = np.array([0x7F800001, 0xFFC00000, 0x80000000, 0x00000001], dtype=np.uint32)
    bits.flat[: len(special)] = special[: bits.size]
    return bits.view(np.float32)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],  # TensorFlow's graphs, not the drawing
)
@given(scenario=scenarios())
def test_any_two_vocabularies_give_tensorflow_s_bits(
    tmp_path_factory: pytest.TempPathFactory, scenario: Scenario
) -> None:
    check_scenario(scenario, tmp_path_factory.mktemp("scenario"))


@pytest.mark.parametrize("axis", [0, 1])
def test_two_long_vocabularies_give_tensorflow_s_bits(tmp_path: Path, axis: int) -> None:
    random = np.random.default_rng(0)
    entries = [b"%d" % number * (number % 7 + 1) for number in random.permutation(30_000)]
    scenario = Scenario(
        old=entries[:20_000],
        new=(new := [entries[at] for at in random.permutation(30_000)[:20_000]]),
        old_file=b"\n".join(entries[:20_000]),
        new_file=b"\r\n".join(new),
        old_vocab_size=19_000 if axis == 0 else -1,
        new_vocab_size=18_000,
        num_oov_buckets=5,
        extra_old_rows=5,
        width=2,
        axis=axis,
        partitions=2,
        from_directory=True,
        with_backup=True,
        seed=0,
    )
    check_scenario(scenario, tmp_path)


def check_scenario(scenario: Scenario, folder: Path) -> None:
    """Both warm starts end in the same bits, and the report counts what was drawn."""
    values = {"table": any_bits(scenario.old_shape, scenario.seed)}
    prefix = tf_oracle.save(folder, values, partitions=scenario.partitions)
    source = str(folder) if scenario.from_directory else prefix
    start = any_bits(scenario.new_shape, scenario.seed + 1)
    ours, theirs = vocab_infos(scenario, folder)
    expected = tf_oracle.warm_start(
        {"table": start}, source, var_name_to_vocab_info={"table": theirs}
    )
    model = Table(start)
    settings = tws.WarmStartSettings(source, var_name_to_vocab_info={"table": ours})
    try:
        report = tws.warm_start(model, settings)
    except tws.PlanError as error:  # D-NOTHING-FOUND, where another reading would match
        if nothing_is_found(scenario) and "that were tried would be found if" in str(error):
            return
        raise
    assert_same({"table": model.table.detach().numpy()}, expected)
    assert report["table"].rows == expected_rows(scenario)


def vocab_infos(scenario: Scenario, folder: Path) -> tuple[tws.VocabInfo, Any]:
    """Our VocabInfo and TensorFlow's."""
    (folder / "old.txt").write_bytes(scenario.old_file)
    (folder / "new.txt").write_bytes(scenario.new_file)
    fields: dict[str, Any] = {
        "new_vocab": str(folder / "new.txt"),
        "new_vocab_size": scenario.new_vocab_size,
        "num_oov_buckets": scenario.num_oov_buckets,
        "old_vocab": str(folder / "old.txt"),
        "old_vocab_size": scenario.old_vocab_size,
        "axis": scenario.axis,
    }
    ours, theirs = None, None
    if scenario.with_backup:
        ours = partial(nn.init.constant_, val=BACKUP)
        theirs = tf_oracle.constant_initializer(BACKUP)
    # D-OTHER-CONTENT: where we refuse a file, its entries are given as a sequence.
    files = {"new_vocab": scenario.new_file, "old_vocab": scenario.old_file}
    entries = {"new_vocab": scenario.new, "old_vocab": scenario.old}
    given = {name: entries[name] for name, file in files.items() if what_else_it_is(file[:HEAD])}
    return (
        tws.VocabInfo(**{**fields, **given}, backup_initializer=ours),
        tf_oracle.vocab_info(**fields, backup_initializer=theirs),
    )


def nothing_is_found(scenario: Scenario) -> bool:
    used = len(scenario.old) if scenario.old_vocab_size == -1 else scenario.old_vocab_size
    return not set(scenario.new[: scenario.new_vocab_size]) & set(scenario.old[:used])


def expected_rows(scenario: Scenario) -> tws.RowAccount:
    """The account of a scenario, counted on the entries that were drawn."""
    used = len(scenario.old) if scenario.old_vocab_size == -1 else scenario.old_vocab_size
    new = set(scenario.new[: scenario.new_vocab_size])
    copied = len(new & set(scenario.old[:used]))
    return tws.RowAccount(
        total=len(new) + scenario.num_oov_buckets,
        copied=copied,
        oov_copied=0,
        initialised=len(new) - copied,
        oov_initialised=scenario.num_oov_buckets,
        left=0,
        dropped=used - copied,
        old_unused=len(scenario.old) + scenario.extra_old_rows - used,
    )


# -- a vocabulary of a Dense kernel: its axes are the other way round in torch ---------------------


@pytest.mark.parametrize(("tf_axis", "axis"), [(0, 1), (1, 0)])
def test_a_vocabulary_of_a_dense_kernel_is_for_the_other_axis_in_torch(
    tmp_path: Path, tf_axis: int, axis: int
) -> None:
    """The inputs of a linear model over a vocabulary, and the classes of a classifier."""
    size = 5
    kernel = any_bits((size, size), seed=1)
    prefix = tf_oracle.save(tmp_path, {"logits/kernel": kernel})
    fields: dict[str, Any] = {
        "new_vocab": write_lines(tmp_path / "new.txt", [7, 3, 0, 4]),
        "new_vocab_size": size - 1,
        "num_oov_buckets": 1,
        "old_vocab": write_lines(tmp_path / "old.txt", range(size)),
    }
    expected = tf_oracle.warm_start(
        {"logits/kernel": np.ones((size, size), np.float32)},
        prefix,
        var_name_to_vocab_info={"logits/kernel": tf_oracle.vocab_info(**fields, axis=tf_axis)},
    )
    model = nn.ModuleDict({"logits": nn.Linear(size, size, bias=False)})
    info = tws.VocabInfo(**fields, axis=axis)
    tws.warm_start(
        model, tws.WarmStartSettings(prefix, var_name_to_vocab_info={"logits.weight": info})
    )
    weight = model.state_dict()["logits.weight"]
    assert_same({"logits/kernel": weight.T.contiguous().numpy()}, expected)
