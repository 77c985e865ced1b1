"""What is prepared: steps that have changed nothing yet, and that may be done again."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings
from torch_warmstart.execution import commit
from torch_warmstart.execution.commit import (
    ATTEMPTS,
    Copy,
    Gather,
    HandOver,
    Load,
    Prepared,
    RollForward,
)
from torch_warmstart.execution.execute import check_unchanged
from torch_warmstart.execution.insisting import insist
from torch_warmstart.execution.prepare import prepare
from torch_warmstart.new_rows import asked_of


def _advance(description, count):
    pass


def _commit(prepared, advance):
    forward = RollForward(prepared, advance)
    insist(forward.finish, forward.finish)


class Net(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.words = nn.Embedding(rows, 2)
        self.out = nn.Linear(2, 3)


def _trained(rows):
    net = Net(rows)
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    for parameter in net.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return net, optimizer


def _plan(new_rows, **more):
    old, was = _trained(4)
    net = Net(3)
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    info = VocabInfo(["c", "x", "a"], -1, 0, list("abcd"), backup_initializer=new_rows)
    checkpoint = {"model": old.state_dict(), "optimizer": was.state_dict()}
    settings = WarmStartSettings(checkpoint, [".*"], {"words.weight": info}, **more)
    return net, optimizer, tws.plan_warm_start(net, settings, optimizer=optimizer)


def _values(net, optimizer):
    """All that a warm start may change, as it is now."""
    return copy.deepcopy((net.state_dict(), optimizer.state_dict()["state"]))


def _same(one, other):
    (tensors, state), (others, other_state) = one, other
    assert tensors.keys() == others.keys()
    assert state.keys() == other_state.keys()
    for at, slots in state.items():
        assert slots.keys() == other_state[at].keys()
        assert all(torch.equal(slots[name], other_state[at][name]) for name in slots)
    return all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.parametrize("new_rows", [None, "keep", nn.init.ones_])
def test_to_prepare_changes_nothing_and_to_commit_twice_changes_nothing_more(new_rows):
    net, optimizer, plan = _plan(new_rows)
    before = _values(net, optimizer)
    with torch.no_grad():
        prepared = prepare(plan, _advance, asked_of)
        assert _same(before, _values(net, optimizer))
        _commit(prepared, _advance)
        after = _values(net, optimizer)
        _commit(prepared, _advance)
    assert not torch.equal(before[0]["words.weight"], after[0]["words.weight"])
    assert len(after[1]) == 3
    assert _same(after, _values(net, optimizer))


def test_each_step_may_be_done_again_before_the_next():
    net, optimizer, plan = _plan(nn.init.ones_)
    with torch.no_grad():
        for step in prepare(plan, _advance, asked_of).steps:
            step.run()
            step.run()
    once = _values(net, optimizer)
    tws.apply_plan(plan)
    assert _same(once, _values(net, optimizer))


def test_whole_tensors_are_loaded_first_and_slots_are_handed_over_last():
    _, _, plan = _plan(None)
    with torch.no_grad():
        steps = prepare(plan, _advance, asked_of).steps
    kinds = [type(step) for step in steps]
    assert (kinds[0], kinds[-1]) == (Load, HandOver)
    assert set(kinds[1:-1]) == {Copy, Gather}
    done = [item.name for step in steps for item in step.items]
    assert sorted(done) == sorted(item.name for item in plan.items if item.state != "kept")


def test_a_step_that_fails_to_be_prepared_leaves_all_as_it_was():
    def fail(tensor):
        raise RuntimeError("no more memory")

    net, optimizer, plan = _plan(fail)
    before = _values(net, optimizer)
    with pytest.raises(RuntimeError, match="no more memory"):
        tws.apply_plan(plan)
    assert _same(before, _values(net, optimizer))
    assert not optimizer.state


def test_a_model_that_has_changed_is_noticed():
    model = nn.Embedding(3, 2)
    settings = WarmStartSettings({"weight": torch.ones(2, 2)}, ".*", {"weight": ClipOrPad()})
    plan = tws.plan_warm_start(model, settings)
    check_unchanged(plan)
    model.weight = nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(tws.SettingsError, match="weight is another tensor now"):
        check_unchanged(plan)


def test_a_model_that_has_got_a_layer_is_noticed():
    model = nn.Sequential(nn.Linear(2, 2))
    plan = tws.plan_warm_start(model, nn.Sequential(nn.Linear(2, 2)).state_dict())
    model.append(nn.Linear(2, 2))
    with pytest.raises(tws.SettingsError, match="it had 2 variables, and has 4 now"):
        check_unchanged(plan)


@pytest.mark.parametrize(
    "new",
    [torch.zeros(4, 2), torch.zeros(2, 2), torch.zeros(3, 1), torch.zeros(3, 2).half()],
    ids=["longer", "shorter", "narrower", "half"],
)
@pytest.mark.parametrize(
    "vocab", [None, VocabInfo(list("cab"), old_vocab=list("abc"))], ids=["plain", "vocabulary"]
)
def test_other_memory_behind_a_tensor_that_was_planned_for_is_noticed(new, vocab):
    model = nn.Embedding(3, 2)
    infos = {} if vocab is None else {"weight": vocab}
    plan = tws.plan_warm_start(model, WarmStartSettings({"weight": torch.ones(3, 2)}, ".*", infos))
    model.weight.data = new.clone()
    with pytest.raises(tws.SettingsError, match=r"weight has changed since .*was float32 \[3, 2\]"):
        tws.apply_plan(plan)
    assert torch.equal(model.weight, new)


def test_a_model_that_goes_to_another_place_is_filled_there():
    model = nn.Embedding(3, 2)
    plan = tws.plan_warm_start(model, WarmStartSettings({"weight": torch.ones(3, 2)}))
    model.weight.data = torch.zeros(3, 2)
    tws.apply_plan(plan)
    assert model.weight.tolist() == [[1.0, 1.0]] * 3


class _Flaky:
    """A step that fails some times before it is done."""

    items = ()

    def __init__(self, failures):
        self.failures, self.is_done = failures, False

    def run(self):
        if self.failures:
            self.failures -= 1
            raise MemoryError("for now")
        self.is_done = True


def test_many_steps_may_each_fail_and_be_done_again():
    steps = tuple(_Flaky(2) for _ in range(20))  # more together than interruptions are survived
    with pytest.raises(MemoryError, match="for now"):
        _commit(Prepared(steps), _advance)
    assert all(step.is_done for step in steps)


def test_a_step_that_always_fails_stops_it():
    steps = (_Flaky(0), _Flaky(ATTEMPTS), _Flaky(0))
    forward = RollForward(Prepared(steps), _advance)
    with pytest.raises(MemoryError):
        forward.finish()
    assert isinstance(forward.stopped_by, MemoryError)
    assert [step.is_done for step in steps] == [True, False, False]


@pytest.mark.parametrize("failures", [0, 2])
def test_whole_tensors_that_threads_copy_ahead_are_each_what_they_should_be(monkeypatch, failures):
    monkeypatch.setattr(commit, "_WORTH_THREADS", 1)
    monkeypatch.setattr(commit, "_TASK_BYTES", 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    left = dict.fromkeys(range(4, 30, 7), failures)  # tries that fail, by the tensor's number

    def flaky(source, out):
        number = int(source[0])
        if left.get(number, 0):
            left[number] -= 1
            raise MemoryError("for now")
        out.copy_(source)

    monkeypatch.setattr(commit, "copy_whole", flaky)
    targets = [torch.zeros(4) for _ in range(30)]
    sources = [torch.full((4,), float(number)) for number in range(30)]
    copies = (Copy(s, t, 2.0, ()) for s, t in zip(sources, targets, strict=True))
    forward = RollForward(Prepared((Load(tuple(copies)),)), _advance)
    with pytest.raises(MemoryError) if failures > 1 else nullcontext():
        forward.finish()
    assert forward.is_complete
    assert [target.tolist() for target in targets] == [[2.0 * n] * 4 for n in range(30)]
