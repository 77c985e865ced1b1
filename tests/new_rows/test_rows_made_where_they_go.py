"""Many new rows are summed where they go; they are those that would be made before."""

from __future__ import annotations

import warnings

import pytest
import torch
from rows_helpers import info_of, letters, start, table
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.execution import staging
from torch_warmstart.execution.commit import LaterRows
from torch_warmstart.execution.mixing import fill, later

OLD = letters(40)
NEW = [*letters(30, "n"), *OLD[3:20], *letters(20, "m")]
ROWS = torch.tensor([at for at, entry in enumerate(NEW) if entry not in OLD])
PIECES = {entry: [OLD[at % 40], OLD[(7 * at) % 40]] for at, entry in enumerate(NEW[:30])}
CHAINS = {
    "subword": init.subword(PIECES),
    "then the mean": init.subword(PIECES) | init.mean(),
    "then another": init.subword(PIECES) | init.alias({"m3": "t4", "m9": "t0"}),
    "then drawn": init.alias({"n1": "t4"}) | init.normal(),
}


@pytest.fixture
def waiting(monkeypatch):
    """Rows wait, however few they are; what was to be made later."""
    found, original = [], fill.rows_later

    def seen(*given):
        found.append(original(*given))
        return found[-1]

    monkeypatch.setattr(later, "WORTH_BYTES", 0)
    monkeypatch.setattr(fill, "rows_later", seen)
    return found


def made(values, chain, **more):
    seed = torch.Generator().manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tws.WarmStartWarning)
        return start(values, OLD, NEW, chain, generator=seed, **more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chain", CHAINS)
def test_they_are_the_same_bit_for_bit(monkeypatch, waiting, chain, dtype):
    values = table(40, 6, dtype=dtype)
    weight, item = made(values, CHAINS[chain])
    is_later = isinstance(waiting[0], LaterRows)
    monkeypatch.setattr(later, "WORTH_BYTES", 1 << 40)
    wanted, before = made(values, CHAINS[chain])
    assert torch.equal(weight, wanted)
    assert item.new_rows == before.new_rows
    is_copied = dtype in (torch.bfloat16, torch.float16)  # in float32: 40 rows for 50 of half
    assert is_later is not (is_copied and "subword" in str(CHAINS[chain]))
    assert waiting[1] is None


@pytest.mark.parametrize("staging", ["none", "memory"])
@pytest.mark.parametrize("step", [1, 40, 1 << 20])
def test_of_a_file_and_in_blocks_too(tmp_path, monkeypatch, waiting, staging, step):
    values = table(40, 6)
    path = str(tmp_path / "old.safetensors")
    save_file({"weight": values}, path)
    wanted, _ = made(values, CHAINS["then the mean"])
    monkeypatch.setattr("torch_warmstart.execution.mixing.sums._SUMMED_BYTES", step)
    model = nn.Embedding(len(NEW), 6)
    info = info_of(NEW, OLD, CHAINS["then the mean"])
    settings = tws.WarmStartSettings(path, var_name_to_vocab_info={"weight": info})
    tws.warm_start(model, settings, staging=staging)
    assert torch.equal(model.weight, wanted)
    assert all(isinstance(one, LaterRows) for one in waiting)


def test_what_is_staged_is_counted(monkeypatch, waiting):
    asked = {}
    monkeypatch.setattr(
        staging.Memory, "_check", lambda _, nbytes, what, instead: asked.update({what: nbytes})
    )
    info = info_of(NEW, OLD, CHAINS["subword"])
    source = {"weight": table(40, 6)}
    settings = tws.WarmStartSettings(source, var_name_to_vocab_info={"weight": info})
    tws.warm_start(nn.Embedding(len(NEW), 6), settings, staging="memory")
    assert isinstance(waiting[0], LaterRows)
    assert asked["staging='memory'"] == (len(ROWS) + 17) * 6 * 4  # new ones, and old ones


def test_a_table_that_is_written_over_itself_is_read_before(waiting):
    values = table(len(NEW), 6)
    wanted, _ = made(values[:40], CHAINS["then the mean"])
    model = nn.Embedding(len(NEW), 6)
    with torch.no_grad():
        model.weight.copy_(values)
    info = info_of(NEW, OLD, CHAINS["then the mean"])
    source = {"weight": model.weight.detach()[:40]}
    tws.warm_start(model, tws.WarmStartSettings(source, var_name_to_vocab_info={"weight": info}))
    assert torch.equal(model.weight, wanted)
    assert waiting[-1] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_might_not_be_finite_is_seen_before(waiting, value):
    values, new = table(40, 6), NEW[:30]
    values[7] = value
    info = info_of(new, OLD, init.alias(dict.fromkeys(new, "t7")))
    settings = tws.WarmStartSettings({"weight": values}, var_name_to_vocab_info={"weight": info})
    model = nn.Embedding(30, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tws.WarmStartWarning)
        report = tws.warm_start(model, settings)
    assert ("new-rows-not-finite" in [note.code for note in report.notes]) is (value != 3e38)
    assert model.weight[0, 0].item() == pytest.approx(value, nan_ok=True)
    assert waiting == [None]


def test_no_row_waits_that_a_function_of_the_users_makes(waiting):
    def first(new: tws.NewRows) -> tws.Mixture:
        one, count = torch.arange(len(new) + 1), len(new)
        terms = torch.zeros(count, dtype=torch.int64), torch.ones(count)
        return tws.Mixture(one, *terms, torch.ones(count, dtype=torch.bool))

    values = table(40, 6)
    weight, _ = start(values, OLD, NEW, first)
    assert torch.equal(weight[ROWS], values[:1].expand(len(ROWS), -1))
    assert waiting == []


def test_many_rows_take_no_memory_of_their_own(monkeypatch):
    held = []
    monkeypatch.setattr(later, "WORTH_BYTES", 1 << 20)
    original = later._Later.blocks

    def counted(self):
        for which, rows in original(self):
            held.append(rows.untyped_storage().nbytes())
            yield which, rows

    monkeypatch.setattr(later._Later, "blocks", counted)
    new = [*OLD, *letters(8000, "n")]
    pieces = {entry: ["t1", "t2"] for entry in new[40:]}
    weight, _ = start(table(40, 512), OLD, new, init.subword(pieces))
    assert weight[40:].nbytes > 15 << 20
    assert held
    assert max(held) <= 4 << 20
