"""What a change of vocabulary cannot follow is refused by name, and nothing has changed then."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import torch_warmstart as tws
from torch_warmstart import VocabInfo

INFO = VocabInfo(["c", "a", "x"], old_vocab=["a", "b", "c", "d"])


class Model(nn.Module):
    """An embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4)


def refused(model, *texts, error=tws.PlanError, info=INFO, name="tok.weight", **more):
    before = {k: (id(v), v.detach().clone()) for k, v in model.named_parameters()}
    with pytest.raises(error) as raised:
        tws.change_vocabulary(model, {name: info}, **more)
    for text in texts:
        assert text in str(raised.value)
    now = dict(model.named_parameters())
    assert list(now) == list(before)
    for key, (identity, values) in before.items():
        assert id(now[key]) == identity
        assert torch.equal(now[key], values)
    return raised.value


def test_a_compiled_model():
    model = Model()
    model.tok.compile(backend="eager")
    refused(model, "is compiled", "before model.compile()")
    refused(torch.compile(Model(), backend="eager"), "model._orig_mod")


def test_a_scripted_model():
    model = torch.jit.script(nn.Sequential(nn.Embedding(2, 3)))
    with pytest.raises(tws.PlanError, match="script it afterwards"):
        tws.change_vocabulary(model, {"0.weight": tws.VocabInfo(["a"], old_vocab=["a", "b"])})


def test_a_scripted_part():
    model = Model()
    model.part = torch.jit.script(nn.Linear(1, 1))
    refused(model, "script it afterwards")
    with pytest.raises(tws.PlanError, match="script it afterwards"):
        tws.change_vocabulary(
            torch.jit.script(nn.Sequential(nn.Embedding(4, 3))), {"0.weight": INFO}
        )


@pytest.mark.parametrize("kind", ["ModulesToSaveWrapper", "BaseTunerLayer"])
def test_what_peft_keeps_beside(kind):
    wrapper = type(kind, (nn.Module,), {})()
    wrapper.original_module = nn.Embedding(4, 3)
    wrapper.modules_to_save = nn.ModuleDict({"default": nn.Embedding(4, 3)})
    model = nn.Module()
    model.tok = wrapper
    refused(model, "modules_to_save", name="tok.original_module.weight")


def test_what_a_weight_is_computed_from():
    model = Model()
    torch.nn.utils.parametrizations.orthogonal(model.head)
    name = "head.parametrizations.weight.original"
    refused(model, "remove_parametrizations(model.head, 'weight')", name=name)


@pytest.mark.parametrize(
    ("put_on", "take_off"),
    [
        (nn.utils.parametrizations.weight_norm, "parametrize.remove_parametrizations"),
        (nn.utils.parametrizations.spectral_norm, "parametrize.remove_parametrizations"),
        (nn.utils.weight_norm, "remove_weight_norm"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (functools.partial(prune.identity, name="weight"), "prune.remove"),
    ],
    ids=["weight_norm", "spectral_norm", "old weight_norm", "old spectral_norm", "pruned"],
)
@pytest.mark.parametrize("name", ["head.weight", "head"])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_weight_that_is_computed_says_how_to_take_that_off(put_on, take_off, name):
    model = Model()
    put_on(model.head)
    message = f"{take_off}(model.head, 'weight'), change the vocabulary, and put it on again"
    refused(model, message, name=name)
    call = f"torch.nn.utils.{take_off}"
    function = functools.reduce(getattr, call.split(".")[1:], torch)
    function(model.head, "weight")
    tws.change_vocabulary(model, {"head.weight": INFO})  # as it says
    assert model.head.weight.shape[0] == len(model.head.bias) == len(INFO.new_vocab)


def test_a_bias_whose_weight_would_stay():
    refused(Model(), "head.bias gets other rows and head.weight does not", name="head.bias")


def test_hooks_on_the_gradient():
    model = Model()
    model.tok.weight.register_post_accumulate_grad_hook(lambda _: None)
    refused(model, "hooks on its gradient")


def test_memory_of_two_parameters():
    model = Model()
    model.head.weight.data = model.tok.weight.data
    refused(model, "shares its memory with head.weight")


def test_a_list_that_holds_it_too():
    model = Model()
    model.regularised = [model.tok.weight]
    refused(model, "is held by regularised as well")
    model.regularised = {"l2": [(0.1, model.tok.weight)]}
    refused(model, "is held by regularised as well")
    model.regularised = {"some rows": model.tok.weight.data[1:3]}
    refused(model, "is held by regularised as well")


def test_a_layer_that_has_no_shape_yet():
    with pytest.raises(tws.PlanError, match=r"0\.weight has no shape yet: run a batch"):
        tws.change_vocabulary(nn.Sequential(nn.LazyLinear(4)), {"0.weight": INFO})


def test_tensors_of_other_kinds():
    class Quantised(nn.Parameter):
        pass

    model = Model()
    model.tok.weight = Quantised(torch.zeros(4, 3))
    refused(model, "is a Quantised")
    with torch.device("meta"):
        refused_meta = Model()
    with pytest.raises(tws.PlanError, match="no tensor with values"):
        tws.change_vocabulary(refused_meta, {"tok.weight": INFO})


def test_a_convolution_and_an_rnn():
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.LSTM(4, 1))
    refused(model, "Conv1d, whose sizes are not followed", name="0.weight")
    refused(model, "LSTM, whose sizes are not followed", name="1.weight_ih_l0")


def test_a_padding_row_that_is_gone():
    model = Model()
    model.tok.padding_idx = 1
    error = refused(model, "padding_idx", "Add it to that")
    assert [problem.code for problem in error.problems] == ["padding-row-lost"]


def test_half_of_a_language_models_vocabulary():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=4, n_positions=8, n_embd=4, n_layer=1, n_head=1, tie_word_embeddings=False
    )
    model = transformers.GPT2LMHeadModel(config)
    name = "transformer.wte.weight"
    refused(model, "lm_head.weight does not", name=name)
    tws.change_vocabulary(model, {name: INFO, "lm_head.weight": INFO})
    assert model.config.vocab_size == model.lm_head.out_features == 3


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (VocabInfo(["a"]), "there is no checkpoint here"),
        (VocabInfo(["a"], old_vocab=["a"], backup_initializer="keep"), "could be kept"),
        (VocabInfo(["a"], old_vocab=["a"], min_frequency=2), "keep their ids"),
        (tws.ClipOrPad(), "needs a VocabInfo"),
    ],
)
def test_infos_that_mean_nothing_here(info, text):
    refused(Model(), text, error=tws.SettingsError, info=info)


def test_what_is_given_instead_of_infos():
    for infos in ({}, [INFO], None):
        with pytest.raises(tws.SettingsError, match="takes a mapping of variable name"):
            tws.change_vocabulary(Model(), infos)


def test_all_problems_come_at_once():
    with pytest.raises(tws.PlanError) as raised:
        tws.change_vocabulary(
            Model(),
            {
                "tok.wieght": INFO,
                "head.weight": VocabInfo(["a"], old_vocab=["a", "a"]),
                "tok.weight": VocabInfo(["a"], old_vocab=["a"], axis=2),
            },
        )
    codes = [problem.code for problem in raised.value.problems]
    assert sorted(set(codes)) == ["unknown-variable", "vocab-axis", "vocabulary"]
    assert "Did you mean 'tok.weight'" in str(raised.value)


def test_a_vocabulary_of_another_height_than_the_table():
    info = VocabInfo(["f"], old_vocab=["a", "b", "z", "q", "e", "f"])
    error = refused(Model(), info=info)
    assert {problem.code for problem in error.problems} == {"old-vocab-too-long"}


def test_too_few_entries_found():
    info = VocabInfo(["a", "x"], old_vocab=["a", "b", "c", "d"], min_found=0.9)
    refused(Model(), "0.9", info=info)


def test_an_initialiser_that_raises():
    def fail(_):
        raise ValueError("no rows today")

    info = VocabInfo(["a", "x"], old_vocab=["a", "b", "c", "d"], backup_initializer=fail)
    refused(Model(), "no rows today", error=tws.WarmStartError, info=info)


def _stepped(model, optimizer):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def test_optimizers_that_cannot_follow():
    model = Model()
    lbfgs = torch.optim.LBFGS(model.parameters())
    refused(
        model, "LBFGS keeps tok.weight in its _params", error=tws.UnsupportedError, optimizer=lbfgs
    )
    strange = _stepped(model, torch.optim.Adam(model.parameters()))
    strange.state[model.tok.weight]["history"] = [torch.zeros(1)]
    refused(model, "'history'", error=tws.UnsupportedError, optimizer=strange)
    others = torch.optim.Adam(Model().parameters())
    refused(model, "none of the model's parameters", error=tws.SettingsError, optimizer=others)
    refused(model, "must be a torch.optim", error=tws.SettingsError, optimizer=3)


def test_averages_that_are_none():
    model = Model()
    refused(model, "ema: a int", error=tws.SettingsError, ema=[3])
    refused(model, "ema: a Linear has none", error=tws.SettingsError, ema=nn.Linear(1, 1))
    refused(model, "has the shape [5, 3]", ema={"tok.weight": torch.zeros(5, 3)})
    twisted = copy.deepcopy(model)
    twisted.more = [twisted.tok.weight]
    refused(model, "ema: tok.weight is held by more", ema=twisted)


class OneWay(dict):
    """Takes so many tensors, and then no more."""

    left = 0

    def __setitem__(self, key, value):
        if not self.left:
            raise RuntimeError("no more")
        self.left -= 1
        super().__setitem__(key, value)


@pytest.mark.parametrize(
    ("left", "says"),
    [(0, "Model, optimizer and copies are as they were"), (1, "of a copy what it could take back")],
)
def test_a_copy_that_takes_nothing_leaves_the_model_as_it_was(left, says):
    model, copied = Model(), OneWay(Model().state_dict())
    copied.left = left
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    infos = {"tok.weight": INFO, "head": INFO}
    before = [(id(p), p.detach().clone()) for p in model.parameters()]
    with pytest.raises(tws.WarmStartError, match=says):
        tws.change_vocabulary(model, infos, optimizer=optimizer, ema=copied)
    for parameter, (identity, values) in zip(model.parameters(), before, strict=True):
        assert id(parameter) == identity
        assert torch.equal(parameter, values)
    assert [*map(id, optimizer.param_groups[0]["params"])] == [identity for identity, _ in before]
    assert (model.tok.num_embeddings, model.head.out_features) == (4, 4)
