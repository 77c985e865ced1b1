"""How initialisers stand together, and what holds for all of them."""

from __future__ import annotations

import warnings

import pytest
import torch
from rows_helpers import info_of, letters, start, table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import Mixture, NewRows, SettingsError, init
from torch_warmstart.errors import CallbackError
from torch_warmstart.execution.mixing import sums
from torch_warmstart.new_rows.mixture import count_equal, mixture_of, one_hot

OLD, NEW = letters(40), [*letters(40), *letters(20, "n")]
FIRST = {f"n{at}": f"t{at}" for at in range(5)}
PIECES = {f"n{at}": [f"t{at}", f"t{at + 1}", f"t{at + 9}"] for at in range(3, 12)}


def _started(model, old, info, **more):
    settings = tws.WarmStartSettings(old, var_name_to_vocab_info=info)
    return tws.warm_start(model, settings, **more)


def test_the_first_that_answers_makes_a_row_and_counts_add_up():
    values = table(40, 6)
    chain = init.alias(FIRST) | init.subword(PIECES) | init.mean()
    weight, account = start(values, OLD, NEW, chain, num_oov_buckets=2)
    assert account.new_rows.answered == (("alias", 5), ("subword", 7), ("mean", 10))
    assert sum(count for _, count in account.new_rows.answered) == account.rows.initialised + 2
    assert torch.equal(weight[40:45], values[:5])
    torch.testing.assert_close(weight[45], values[[5, 6, 14]].mean(0))
    torch.testing.assert_close(weight[52:], values.mean(0).expand(10, -1))
    again = init.alias(FIRST) | (init.subword(PIECES) | init.mean())
    assert torch.equal(start(values, OLD, NEW, again, num_oov_buckets=2)[0], weight)


def test_noise_is_on_the_rows_of_what_it_was_added_to():
    values = table(40, 6)
    chain = init.alias(FIRST) | init.subword(PIECES) + init.noise(0.1)
    weight, account = start(values, OLD, NEW, chain | init.mean())
    assert account.new_rows.answered == (("alias", 5), ("subword + noise", 7), ("mean", 8))
    assert torch.equal(weight[40:45], values[:5])
    assert 0 < (weight[45] - values[[5, 6, 14]].mean(0)).abs().max() < 1
    assert account.new_rows.show("n7").endswith(" + noise")
    _, account = start(values, OLD, NEW, (init.alias(FIRST) | init.mean()) + init.noise(0.1))
    assert account.new_rows.answered == (("alias + noise", 5), ("mean + noise", 15))


def test_every_mixture_is_the_dense_product():
    values = table(40, 6)
    chain = init.subword(PIECES, "exp") | init.alias(FIRST)
    weight, _account = start(values, OLD, NEW, chain)
    dense = torch.zeros(20, 40)
    for at in range(3, 12):
        dense[at, [at, at + 1, at + 9]] = torch.tensor([1.0, 2.0, 4.0]) / 7
    dense[torch.arange(3), torch.arange(3)] = 1
    torch.testing.assert_close(weight[40:], dense @ values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype):
    values = table(40, 6, dtype=dtype)
    pieces = {"n0": OLD}
    weight, _ = start(values, OLD, NEW, init.subword(pieces) | init.mean())
    wanted = values.double().mean(0).to(torch.float32).to(dtype)
    torch.testing.assert_close(weight[40], wanted, rtol=0, atol=0)
    assert torch.equal(weight[41], wanted)


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_in_blocks_it_is_the_same_bit_for_bit(monkeypatch, limit):
    values = table(40, 6)
    groups = {entry: number % 3 for number, entry in enumerate(NEW)}
    for chain in (init.subword(PIECES) | init.mean(), init.group_mean(groups)):
        whole, _ = start(values, OLD, NEW, chain)
        with monkeypatch.context() as patch:
            patch.setattr(sums, "GATHERED_BYTES", limit)
            assert torch.equal(start(values, OLD, NEW, chain)[0], whole)


@pytest.mark.parametrize("width", [1, 7, 64])
def test_a_part_of_the_rows_is_that_part_of_the_whole_bit_for_bit(width):
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 9, (30,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(30), counts)
    indices = torch.randint(40, (len(rows),), generator=generator)
    mixture = mixture_of(rows, indices, torch.rand(len(rows), generator=generator), 30)
    values, place = table(41, width), torch.device("cpu")
    whole = sums.mixed_rows(mixture, _Table(values[1:]), width, place)
    for which in (torch.arange(30) % 3 == 1, torch.arange(30) == 29):
        for is_near in (False, True):  # rows are read, or used where they lie
            old = _Table(values[1:], is_near)
            part = sums.mixed_rows(mixture.only(which), old, width, place)
            assert torch.equal(part, whole[which])


class _Table:
    dtype = torch.float32

    def __init__(self, values, is_near=False):
        self.values, self.is_near = values, is_near

    def whole(self, num_needed):
        return self.values if self.is_near else None

    def read(self, rows):
        return self.values[rows]


def test_equal_mixtures_are_counted_in_whatever_order_their_terms_are():
    rows = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    indices = torch.tensor([5, 9, 9, 5, 5, 9, 5])
    weights = torch.tensor([0.25, 0.75, 0.75, 0.25, 0.75, 0.25, 1.0])
    assert count_equal(mixture_of(rows, indices, weights, 4)) == 2
    assert count_equal(one_hot(torch.tensor([3, 3, 3, -1, 4, 4, 6]))) == 5


# -- tables that belong together -------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, tied, rows=60, width=6):
        super().__init__()
        self.embed = nn.Embedding(rows, width)
        self.head = nn.Linear(width, rows)
        if tied:
            self.head.weight = self.embed.weight


@pytest.mark.parametrize("tied", [True, False])
def test_embedding_head_and_bias_follow_one_mixture(tied):
    old = {"embed.weight": table(40, 6), "head.bias": table(40, 1, 2)[:, 0]}
    old |= {} if tied else {"head.weight": table(40, 6, 1)}
    calls = []

    def cut(text):
        calls.append(text)
        return PIECES.get(text, ())

    info = info_of(NEW, OLD, init.subword(cut) | init.mean())
    model = Model(tied)
    report = _started(model, old, {"embed.weight": info, "head": info})
    for name, values in old.items():
        made = dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(made[45], values[[5, 6, 14]].mean(0))
        torch.testing.assert_close(made[59], values.mean(0))
        assert report[name].new_rows.answered == (("subword", 9), ("mean", 11))
    assert len(calls) == 20  # cut once for all
    assert (model.head.weight is model.embed.weight) == tied


def test_by_role_the_last_piece_counts_in_a_table_and_the_first_in_a_head():
    old = {
        "embed.weight": table(40, 6),
        "head.weight": table(40, 6, 1),
        "head.bias": torch.zeros(40),
    }
    info = info_of(NEW, OLD, init.subword(PIECES, "exp") | init.mean())
    model = Model(tied=False)
    _started(model, old, {"embed.weight": info, "head": info})
    at, weights = [5, 6, 14], torch.tensor([1.0, 2.0, 4.0]) / 7
    torch.testing.assert_close(model.embed.weight[45].detach(), weights @ old["embed.weight"][at])
    torch.testing.assert_close(
        model.head.weight[45].detach(), weights.flip(0) @ old["head.weight"][at]
    )


def test_rows_may_lie_along_any_axis_and_in_another_layout():
    values = table(40, 6)
    model = nn.Linear(60, 6, bias=False)
    info = tws.VocabInfo(NEW, 60, 0, OLD, axis=1, backup_initializer=init.subword(PIECES))
    _started(model, {"weight": values.T.contiguous()}, {"weight": info})
    torch.testing.assert_close(model.weight[:, 45].detach(), values[[5, 6, 14]].mean(0))
    head = nn.Linear(6, 60, bias=False)
    settings = tws.WarmStartSettings(
        {"weight": values.T.contiguous()},
        var_name_to_vocab_info={"weight": info_of(NEW, OLD, init.subword(PIECES) | init.mean())},
        var_name_to_layout={"weight": "transpose"},
    )
    tws.warm_start(head, settings)
    torch.testing.assert_close(head.weight[45].detach(), values[[5, 6, 14]].mean(0))
    torch.testing.assert_close(head.weight[59].detach(), values.mean(0))


def test_rows_of_several_dimensions_are_mixed_whole():
    values = table(40, 12).view(40, 3, 4)
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(60, 3, 4))
    _started(model, {"w": values}, {"w": info_of(NEW, OLD, init.subword(PIECES) | init.mean())})
    torch.testing.assert_close(model.w[45].detach(), values[[5, 6, 14]].mean(0))


def test_a_model_may_be_started_from_itself():
    model = nn.Embedding(60, 6)
    values = model.weight.detach().clone()
    old = model.state_dict()
    _started(model, old, {"weight": info_of(NEW, [*OLD, *letters(20, "o")], init.subword(PIECES))})
    torch.testing.assert_close(model.weight[45].detach(), values[[5, 6, 14]].mean(0))
    assert torch.equal(model.weight[:40], values[:40])


def test_slots_of_new_rows_begin_as_the_optimizer_begins_them():
    old, model = nn.Embedding(40, 6), nn.Embedding(60, 6)
    was = torch.optim.Adam(old.parameters())
    old(torch.arange(40)).sum().backward()
    was.step()
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint = {"model": old.state_dict(), "optimizer": was.state_dict()}
    info = info_of(NEW, OLD, init.mean() + init.noise(0.1))
    _started(model, checkpoint, {"weight": info}, optimizer=optimizer)
    state = optimizer.state[model.weight]
    assert state["exp_avg"][:40].abs().min() > 0
    assert not state["exp_avg"][40:].any()
    with pytest.raises(tws.PlanError, match="is an optimizer's slot, whose new rows begin as"):
        _started(
            model,
            checkpoint,
            {"weight": info, "weight/exp_avg": info_of(NEW, OLD, init.mean())},
            optimizer=optimizer,
        )


def test_integers_are_not_mixed():
    model = nn.Module()
    model.register_buffer("w", torch.zeros(60, 2, dtype=torch.int64))
    settings = tws.WarmStartSettings(
        {"w": torch.ones(40, 2, dtype=torch.int64)},
        [".*"],
        {"w": info_of(NEW, OLD, init.mean())},
    )
    with pytest.raises(tws.PlanError, match="only where rows are floating numbers"):
        tws.warm_start(model, settings)


# -- functions of users ----------------------------------------------------------------------------


def halves(new: NewRows) -> Mixture:
    """Half of the rows are half of old row 3."""
    mine = torch.arange(len(new)) % 2 == 0
    rows = mine.nonzero().flatten()
    return mixture_of(rows, torch.full_like(rows, 3), torch.full((len(rows),), 0.5), len(new))


def ones(new: tws.NewRows) -> torch.Tensor:
    return torch.ones(len(new), new.width)


def test_a_function_of_new_rows_stands_alone_and_in_a_chain():
    values = table(40, 6)
    weight, account = start(values, OLD, NEW, init.alias(FIRST) | halves | init.mean())
    assert account.new_rows.answered == (("alias", 5), ("halves", 8), ("mean", 7))
    torch.testing.assert_close(weight[45], values[3] / 2)
    torch.testing.assert_close(weight[46], values.mean(0))
    weight, account = start(values, OLD, NEW, halves | init.mean())
    assert account.new_rows.answered == (("halves", 10), ("mean", 10))
    weight, account = start(values, OLD, NEW, ones)
    assert account.new_rows.answered == (("ones", 20),)
    assert (weight[40:] == 1).all()


def test_the_dry_run_says_that_a_function_is_asked_later():
    info = info_of(NEW, OLD, init.alias(FIRST) | halves | init.mean())
    settings = tws.WarmStartSettings(
        {"weight": table(40, 6)}, var_name_to_vocab_info={"weight": info}
    )
    plan = str(tws.plan_warm_start(nn.Embedding(60, 6), settings))
    assert "5 alias, 15 halves | mean (asked when it is carried out)" in plan


def test_a_function_sees_the_old_table_and_its_own_rows():
    values = table(40, 6)

    def own(new: NewRows):
        assert (new.name, new.role, new.axis, new.width) == ("weight", "input", 0, 6)
        assert new.rows.tolist() == list(range(40, 60))
        assert new.old.size == 40
        assert torch.equal(new.old.read(torch.tensor([7, 7, 0])), values[[7, 7, 0]])
        blocks = list(new.old.blocks(16))
        assert [first for first, _ in blocks] == [0, 16, 32]
        assert torch.equal(torch.cat([block for _, block in blocks]), values)
        torch.testing.assert_close(new.old.mean, values.double().mean(0))
        assert new.old.find(new.entries()).tolist() == [-1] * 20
        return new.old.read(torch.zeros(len(new), dtype=torch.int64))

    weight, _ = start(values, OLD, NEW, own)
    assert torch.equal(weight[40:], values[:1].expand(20, -1))


def _mixture(**changed):
    fields = {
        "offsets": torch.arange(21),
        "indices": torch.zeros(20, dtype=torch.int64),
        "weights": torch.ones(20),
        "answered": torch.ones(20, dtype=torch.bool),
    }
    return Mixture(**{**fields, **changed})


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, r"must return a tws.Mixture, or a tensor of \[20, 6\].*it returned NoneType"),
        (torch.ones(20, 5), r"it returned \[20, 5\]"),
        (_mixture(indices=torch.full((20,), 40)), "indices are int64 from 0 to 39"),
        (_mixture(weights=torch.full((20,), torch.nan)), "weights are finite"),
        (_mixture(weights=torch.ones(19)), "one weight for each index"),
        (_mixture(offsets=torch.arange(20)), r"offsets is int64 of \[21\]"),
        (_mixture(offsets=torch.arange(21).flip(0)), "offsets begin at 0"),
        (_mixture(answered=torch.ones(20)), "answered is bool of"),
        (_mixture(bags=torch.full((20,), 20)), "bags are among"),
    ],
)
def test_what_is_no_row_is_refused_and_nothing_is_changed(made, says):
    def wrong(new: NewRows):
        return made

    model = nn.Embedding(60, 6)
    before = model.weight.detach().clone()
    with pytest.raises(SettingsError, match=says):
        _started(model, {"weight": table(40, 6)}, {"weight": info_of(NEW, OLD, wrong)})
    assert torch.equal(model.weight, before)


def test_a_function_that_raises_or_changes_the_model_changes_nothing():
    model = nn.Embedding(60, 6)
    before = model.weight.detach().clone()

    def fail(new: NewRows):
        raise ValueError("no")

    def write(new: NewRows):
        model.weight.zero_()
        return ones(new)

    for function, says in ((fail, "fail raised ValueError: no"), (write, "has changed a tensor")):
        with pytest.raises(CallbackError, match=says):
            _started(model, {"weight": table(40, 6)}, {"weight": info_of(NEW, OLD, function)})
        assert torch.equal(model.weight, before)


def test_what_shows_late_is_warned_of_before_anything_is_written():
    model = nn.Embedding(60, 6)
    before = model.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", tws.WarmStartWarning)
        with pytest.raises(tws.WarmStartWarning, match="no initialiser answers for 10 new rows"):
            _started(model, {"weight": table(40, 6)}, {"weight": info_of(NEW, OLD, halves)})
    assert torch.equal(model.weight, before)


def test_elsewhere_they_are_refused_by_name():
    with pytest.raises(SettingsError, match="mean makes new rows of old ones"):
        tws.load_and_remap_matrix(
            {"weight": table(4, 2)}, "weight", [0, -1], None, init.mean(), 2, 2
        )


def test_the_report_as_plain_values_says_who_answered():
    model = nn.Embedding(60, 6)
    report = _started(model, {"weight": table(40, 6)}, {"weight": info_of(NEW, OLD, init.mean())})
    (plain,) = report.to_dict()["variables"]
    assert plain["new_rows"] == {"answered": (("mean", 20),)}
    assert "new rows: 20 mean" in str(report)


def test_one_device_is_like_another(device):
    values = table(40, 6)
    chain = init.subword(PIECES) | init.similar((NEW, table(60, 9, 4)), k=3) + init.noise(0.1)
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(5)
        here, _ = start(values.to(dtype), OLD, NEW, chain, generator=generator)
        generator.manual_seed(5)
        there, _ = start(values.to(dtype), OLD, NEW, chain, generator=generator, device=device)
        torch.testing.assert_close(here, there)
