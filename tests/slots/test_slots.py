"""An optimizer's slots as the target of a warm start: every optimizer of torch, and others.

The oracle is index code written out by hand: it moves rows of weights and of state, and the two
ways must agree bit for bit, then and after training on.
"""

from __future__ import annotations

import copy

import pytest
import torch
from slots_helpers import (
    ALL,
    NEW,
    OLD,
    OPTIMIZERS,
    SHARED,
    Words,
    assert_same_state,
    build,
    moved,
    same,
    saved,
    state_of,
    train,
    vocab_info,
)
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import torch_warmstart as tws
from torch_warmstart import PlanError, SettingsError, UnsupportedError, WarmStartSettings


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other cost these small tensors more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# What rows without an old one begin with, where that is not zero.
STARTS = {("adagrad", "sum"): 0.25, ("rprop", "step_size"): 0.05}
# Their update of one row depends on all rows.
NOT_ROW_BY_ROW = {"adafactor", "muon"}


def by_hand(name, old, old_optimizer):
    """A new model and its optimizer, made by index code and `load_state_dict`."""
    model, optimizer = build(name, len(NEW), seed=1)
    with torch.no_grad():
        model.embed.weight.copy_(moved(old.embed.weight))
        if hasattr(model, "out"):
            model.out.weight.copy_(old.out.weight)
    state = copy.deepcopy(old_optimizer.state_dict())
    for slot, value in state["state"][0].items():
        if isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[0] == len(OLD):
            state["state"][0][slot] = moved(value, STARTS.get((name, slot), 0.0))
    optimizer.load_state_dict(state)
    return model, optimizer


# -- every optimizer of torch ----------------------------------------------------------------------


@pytest.mark.parametrize("steps_before", [0, 2], ids=["fresh", "used"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_slots_follow_the_vocabulary_as_index_code_moves_them(name, steps_before):
    old, old_optimizer = build(name, len(OLD))
    train(old, old_optimizer, OLD, 5)
    model, optimizer = build(name, len(NEW), seed=1)
    train(model, optimizer, NEW, steps_before)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    expected, expected_optimizer = by_hand(name, old, old_optimizer)

    assert torch.equal(model.embed.weight, expected.embed.weight)
    assert_same_state(optimizer, expected_optimizer)
    assert report.missing_keys == report.unexpected_keys == ()

    steps = 2 if steps_before else 100
    train(model, optimizer, NEW, steps, seed=1)
    train(expected, expected_optimizer, NEW, steps, seed=1)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert_same_state(optimizer, expected_optimizer)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - NOT_ROW_BY_ROW))
def test_training_goes_on_for_the_words_that_stay_and_would_not_without_slots(name):
    old, old_optimizer = build(name, len(OLD))
    train(old, old_optimizer, OLD, 5)
    checkpoint = copy.deepcopy(saved(old, old_optimizer))
    vocab = {"embed.weight": vocab_info()}
    model, optimizer = build(name, len(NEW), seed=1)
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL, vocab), optimizer=optimizer)
    without, fresh = build(name, len(NEW), seed=1)
    tws.warm_start(without, WarmStartSettings(checkpoint, ".*", vocab))
    old_rows = [OLD.index(word) for word in SHARED]
    new_rows = [NEW.index(word) for word in SHARED]

    apart = 0.0
    for step in range(100):
        train(old, old_optimizer, OLD, 1, seed=step)
        train(model, optimizer, NEW, 1, seed=step)
        train(without, fresh, NEW, 1, seed=step)
        reached = old.embed.weight[old_rows]
        if name.endswith("fused"):  # whose rounding depends on where in a tensor a value lies
            torch.testing.assert_close(model.embed.weight[new_rows], reached)
        else:
            assert torch.equal(model.embed.weight[new_rows], reached), step
        apart = max(apart, (without.embed.weight[new_rows] - reached).abs().max().item())
    assert apart > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_one_that_torch_would_save_and_load(name, device):
    if device.type == "cuda" and name == "adagrad-fused":
        pytest.skip("torch has no fused Adagrad for CUDA")
    old, old_optimizer = build(name, len(OLD), device=device)
    train(old, old_optimizer, OLD, 3)
    model, optimizer = build(name, len(OLD), seed=1, device=device)
    tws.warm_start(model, WarmStartSettings(saved(old, old_optimizer), ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)
    _, other = build(name, len(OLD), seed=2, device=device)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_same_state(other, old_optimizer)
    train(model, optimizer, OLD, 1)
    train(old, old_optimizer, OLD, 1)
    assert_same_state(optimizer, old_optimizer)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "options", [{"capturable": True}, {"fused": True}, {"fused": True, "amsgrad": True}], ids=str
)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_steps_stay_on_the_gpu_where_the_optimizer_keeps_them(kind, options):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    old, model = Words(5).cuda(), Words(6, seed=1).cuda()
    old_optimizer = kind(old.parameters())
    train(old, old_optimizer, OLD, 3)  # whose steps are on the CPU
    optimizer = kind(model.parameters(), **options)
    checkpoint = saved(old, old_optimizer)
    if options.get("amsgrad"):
        for slots in checkpoint["optimizer"]["state"].values():
            slots["max_exp_avg_sq"] = slots["exp_avg_sq"].clone()
    settings = WarmStartSettings(checkpoint, ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert state_of(optimizer, model.embed.weight)["step"].device.type == "cuda"
    assert state_of(optimizer, model.embed.weight)["step"].item() == 3
    train(model, optimizer, NEW, 2)


def test_what_an_optimizer_begins_with_is_asked_without_touching_it():
    model = Words(5)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, OLD, 2)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    handle = register_optimizer_step_post_hook(lambda *_: calls.append("all"))
    before = copy.deepcopy(optimizer.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    try:
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)
    finally:
        handle.remove()
    assert calls == []
    assert str(optimizer.state_dict()) == str(before)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(map(torch.equal, model.parameters(), weights))


def test_lbfgs_is_refused():
    model = Words(5)
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(UnsupportedError, match="LBFGS does not keep its state by parameter"):
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)


def test_an_optimizer_that_could_not_step_either_is_refused():
    model = Words(5)
    optimizer = torch.optim.Adam(model.parameters(), capturable=True)  # on the CPU
    with pytest.raises(UnsupportedError, match="Adam does not keep its state .*capturable"):
        tws.plan_warm_start(model, Words(5), optimizer=optimizer)


def test_a_differentiable_optimizer_has_slots_too():
    old, model = Words(5), Words(5, seed=1)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = torch.optim.Adam(model.parameters(), differentiable=True)
    tws.warm_start(model, WarmStartSettings(saved(old, old_optimizer), ALL), optimizer=optimizer)
    assert_same_state(optimizer, old_optimizer)


# -- which tensors they are ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_slots_have_the_dtype_that_the_optimizer_gives_them(dtype):
    old, model = Words(5), Words(6, seed=1).to(dtype)
    old_optimizer = torch.optim.Adam(old.parameters())
    train(old, old_optimizer, OLD, 2)
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(saved(old, old_optimizer), ALL, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    slots = state_of(optimizer, model.embed.weight)
    assert slots["exp_avg"].dtype == dtype
    assert slots["step"].dtype == torch.float32
    exp_avg = state_of(old_optimizer, old.embed.weight)["exp_avg"]
    assert torch.equal(slots["exp_avg"], moved(exp_avg.to(dtype)))
    train(model, optimizer, NEW, 1)


def test_slots_have_the_strides_that_torch_would_give_them():
    def conv(seed):
        torch.manual_seed(seed)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    old, model, stepped = conv(0), conv(1), conv(2)
    optimizers = [torch.optim.Adam(m.parameters()) for m in (old, model, stepped)]
    for module, optimizer in ((old, optimizers[0]), (stepped, optimizers[2])):
        module(torch.rand(1, 3, 5, 5)).sum().backward()
        optimizer.step()
    tws.warm_start(
        model, WarmStartSettings(saved(old, optimizers[0]), ALL), optimizer=optimizers[1]
    )
    made, torchs = (
        o.state[m.weight] for o, m in zip(optimizers[1:], (model, stepped), strict=True)
    )
    assert [made[n].stride() for n in made] == [torchs[n].stride() for n in torchs]
    assert made["exp_avg"].stride() == model.weight.stride() != (27, 9, 3, 1)
    assert torch.equal(made["exp_avg"], optimizers[0].state[old.weight]["exp_avg"])


def test_existing_state_is_filled_in_place():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    train(model, pair[1], OLD, 1)
    before = state_of(pair[1], model.out.weight)["exp_avg"]
    tws.warm_start(model, WarmStartSettings(saved(old, pair[0]), ALL), optimizer=pair[1])
    assert state_of(pair[1], model.out.weight)["exp_avg"] is before
    assert_same_state(*pair)


def test_a_tied_parameter_has_one_set_of_slots_under_both_names():
    def tied(seed):
        model = Words(5, seed=seed)
        model.out = nn.Linear(4, 5, bias=False)
        model.out.weight = model.embed.weight
        return model

    old, model = tied(0), tied(1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    old(torch.tensor([1, 2])).square().sum().backward()
    pair[0].step()
    settings = WarmStartSettings(saved(old, pair[0]), [r"out\.weight/"])
    report = tws.warm_start(model, settings, optimizer=pair[1])
    assert report["embed.weight/exp_avg"].names == ("embed.weight/exp_avg", "out.weight/exp_avg")
    assert_same_state(pair[1], pair[0])


def test_steps_are_kept_as_numbers_or_tensors_whichever_the_optimizer_wants():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    checkpoint = saved(old, pair[0])
    for slots in checkpoint["optimizer"]["state"].values():
        slots["step"] = int(slots["step"])  # as before torch 1.12
    tws.warm_start(model, WarmStartSettings(checkpoint, ALL), optimizer=pair[1])
    step = state_of(pair[1], model.embed.weight)["step"]
    assert torch.equal(step, torch.tensor(3.0))

    sparse = Words(5, sparse=True)
    optimizer = torch.optim.SparseAdam(sparse.parameters())
    settings = WarmStartSettings(saved(old, pair[0]), ["embed"])
    with pytest.raises(PlanError, match="numbers its parameters"):  # of one more parameter
        tws.warm_start(
            sparse,
            WarmStartSettings(
                {"model": {"embed.weight": old.embed.weight}, "optimizer": pair[0].state_dict()},
                ["embed"],
            ),
            optimizer=optimizer,
        )
    tws.warm_start(sparse, settings, optimizer=optimizer)
    assert state_of(optimizer, sparse.embed.weight)["step"] == 3
    assert type(state_of(optimizer, sparse.embed.weight)["step"]) is int


def test_a_slot_that_the_state_has_as_a_number_or_none_is_made_anew():
    old, model = Words(5), Words(5, seed=1)
    pair = [torch.optim.Adam(m.parameters()) for m in (old, model)]
    train(old, pair[0], OLD, 3)
    train(model, pair[1], OLD, 1)
    slots = state_of(pair[1], model.embed.weight)
    slots["step"], slots["exp_avg"] = 1, None  # as old checkpoints leave it behind
    tws.warm_start(model, WarmStartSettings(saved(old, pair[0]), ALL), optimizer=pair[1])
    assert_same_state(*pair)


# -- all or nothing --------------------------------------------------------------------------------


def _snapshot(model, optimizer):
    weights = [p.detach().clone() for p in model.parameters()]
    return weights, copy.deepcopy(optimizer.state_dict()["state"])


def _is_unchanged(model, optimizer, snapshot):
    weights, state = snapshot
    now = optimizer.state_dict()["state"]
    return (
        all(map(torch.equal, model.parameters(), weights))
        and now.keys() == state.keys()
        and all(same(now[at][n], v) for at, slots in state.items() for n, v in slots.items())
    )


@pytest.mark.parametrize("steps_before", [0, 2], ids=["fresh", "used"])
def test_a_failing_initializer_leaves_model_and_optimizer_as_they_were(steps_before):
    def fails(tensor):
        raise RuntimeError("no")

    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(NEW), seed=1)
    train(model, optimizer, NEW, steps_before)
    snapshot = _snapshot(model, optimizer)
    for name in ("embed.weight", "embed.weight/exp_avg"):
        vocab = {"embed.weight": vocab_info(), name: vocab_info(backup_initializer=fails)}
        settings = WarmStartSettings(saved(old, old_optimizer), ALL, vocab)
        with pytest.raises(RuntimeError, match="no"):
            tws.warm_start(model, settings, optimizer=optimizer)
        assert _is_unchanged(model, optimizer, snapshot)


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")
def test_a_damaged_slot_leaves_model_and_optimizer_as_they_were(tmp_path):
    import torch.distributed.checkpoint as dcp

    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    dcp.save(
        saved(old, old_optimizer), storage_writer=dcp.FileSystemWriter(tmp_path / "a"), no_dist=True
    )
    with tws.load_checkpoint(tmp_path / "a") as checkpoint:
        key = checkpoint.optimizer_states()[0].parameters[1].slots["exp_avg_sq"]
        (file,) = checkpoint.location(key).files
        chunk = checkpoint._optimizers[1][key].chunks[0]
    data = bytearray((tmp_path / "a" / file).read_bytes())
    data[chunk.offset : chunk.offset + 64] = bytes(64)
    (tmp_path / "a" / file).write_bytes(data)

    model, optimizer = build("adam", len(OLD), seed=1)
    snapshot = _snapshot(model, optimizer)
    with pytest.raises(tws.CorruptCheckpointError):
        tws.warm_start(model, WarmStartSettings(tmp_path / "a", ALL), optimizer=optimizer)
    assert _is_unchanged(model, optimizer, snapshot)
    assert not optimizer.state


def test_an_optimizer_may_be_warm_started_from_itself():
    model, optimizer = build("adam", len(OLD))
    train(model, optimizer, OLD, 2)
    swapped = {"embed.weight/exp_avg": "optimizer/state/0/exp_avg_sq"}
    swapped["embed.weight/exp_avg_sq"] = "optimizer/state/0/exp_avg"
    before = {n: t.clone() for n, t in state_of(optimizer, model.embed.weight).items()}
    settings = WarmStartSettings(saved(model, optimizer), ALL, None, swapped)
    report = tws.warm_start(model, settings, optimizer=optimizer)
    now = state_of(optimizer, model.embed.weight)
    assert torch.equal(now["exp_avg"], before["exp_avg_sq"])
    assert torch.equal(now["exp_avg_sq"], before["exp_avg"])
    assert report["embed.weight/exp_avg"].reason == "renamed in settings"


def test_a_plan_can_be_applied_twice_and_after_a_step():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(OLD), seed=1)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    for _ in range(2):
        train(model, optimizer, OLD, 1)
        tws.apply_plan(plan)
        assert_same_state(optimizer, old_optimizer)


def test_a_plan_for_slots_of_another_shape_is_refused():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(OLD), seed=1)
    settings = WarmStartSettings(saved(old, old_optimizer), ALL)
    plan = tws.plan_warm_start(model, settings, optimizer=optimizer)
    optimizer.state[model.embed.weight] = {"exp_avg": torch.zeros(3)}
    with pytest.raises(SettingsError, match=r"changed since .* \(embed\.weight/exp_avg is another"):
        tws.apply_plan(plan)


# -- which slots are taken -------------------------------------------------------------------------


def _momentum():
    torch.manual_seed(0)
    model = nn.ParameterDict({"v1": torch.rand(2), "v2": torch.rand(3)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    (model["v1"].sum() + model["v2"].square().sum()).backward()
    return model, optimizer


def test_tensorflows_documented_example():
    old, old_optimizer = _momentum()
    old_optimizer.step()
    model, optimizer = _momentum()
    settings = WarmStartSettings(saved(old, old_optimizer), ["v1", "v2[^/]"])
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert all(map(torch.equal, model.parameters(), old.parameters()))
    taken = {account.name for account in report.variables if account.state != "kept"}
    assert taken == {"v1", "v1/momentum_buffer", "v2"}
    assert state_of(optimizer, model["v1"])["momentum_buffer"].tolist() == [1, 1]
    assert model["v2"] not in optimizer.state
    assert report["v2/momentum_buffer"].reason == "not selected"
    assert report.unexpected_keys == ("optimizer/state/1/momentum_buffer",)
    optimizer.step()


def test_a_str_selects_the_slots_of_its_parameters():
    old, old_optimizer = _momentum()
    old_optimizer.step()
    model, optimizer = _momentum()
    report = tws.warm_start(model, saved(old, old_optimizer), optimizer=optimizer)
    for name, parameter in model.items():
        slot = state_of(old_optimizer, old[name])["momentum_buffer"]
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], slot)
    assert report.notes == ()
    assert report.unexpected_keys == ()


def test_none_takes_what_has_a_vocab_info_and_none_of_its_slots():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    checkpoint = saved(old, old_optimizer)
    model, optimizer = build("adam", len(NEW), seed=1)
    settings = WarmStartSettings(checkpoint, None, {"embed.weight": vocab_info()})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert torch.equal(model.embed.weight, moved(old.embed.weight))
    assert not optimizer.state

    before = model.embed.weight.detach().clone()
    settings = WarmStartSettings(checkpoint, None, {"embed.weight/exp_avg": vocab_info()})
    report = tws.warm_start(model, settings, optimizer=optimizer)
    slots = state_of(optimizer, model.embed.weight)
    exp_avg = state_of(old_optimizer, old.embed.weight)["exp_avg"]
    assert torch.equal(slots["exp_avg"], moved(exp_avg))
    assert slots["exp_avg_sq"].count_nonzero() == slots["step"] == 0
    assert torch.equal(model.embed.weight, before)
    assert report["embed.weight/exp_avg"].state == "remapped"


def test_the_parameters_initializer_is_not_for_its_slots_but_the_slots_own_is():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    ones = vocab_info(backup_initializer=nn.init.ones_)
    old_slots = state_of(old_optimizer, old.embed.weight)
    for vocab, start in (({}, 0.0), ({"embed.weight/exp_avg": ones}, 1.0)):
        model, optimizer = build("adam", len(NEW), seed=1)
        settings = WarmStartSettings(
            saved(old, old_optimizer), ALL, {"embed.weight": ones, **vocab}
        )
        tws.warm_start(model, settings, optimizer=optimizer)
        slots = state_of(optimizer, model.embed.weight)
        assert torch.equal(model.embed.weight, moved(old.embed.weight, 1.0))
        assert torch.equal(slots["exp_avg"], moved(old_slots["exp_avg"], start))
        assert torch.equal(slots["exp_avg_sq"], moved(old_slots["exp_avg_sq"]))


def test_rows_that_the_parameter_keeps_begin_anew_in_its_slots():
    old, old_optimizer = build("adam", len(OLD))
    train(old, old_optimizer, OLD, 2)
    model, optimizer = build("adam", len(NEW), seed=1)
    train(model, optimizer, NEW, 2)
    before = model.embed.weight.detach().clone()
    vocab = {"embed.weight": vocab_info(backup_initializer="keep")}
    tws.warm_start(
        model, WarmStartSettings(saved(old, old_optimizer), ALL, vocab), optimizer=optimizer
    )
    new = [at for at, word in enumerate(NEW) if word not in OLD]
    assert torch.equal(model.embed.weight[new], before[new])
    assert state_of(optimizer, model.embed.weight)["exp_avg"][new].count_nonzero() == 0
