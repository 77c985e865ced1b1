"""Models whose classes have other `parameters()` and `modules()` than torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(3, 2)
        self.out = nn.Linear(2, 2)


class HeadOnly(Net):
    """As who trains nothing but a head writes it, to pass it to an optimizer."""

    def parameters(self):
        return self.out.parameters()

    def buffers(self):
        return iter(())


class Alone(Net):
    def modules(self):
        yield self

    def named_modules(self):
        yield "", self

    def children(self):
        return iter(())


class Silent(Net):
    def parameters(self, recurse=True):
        raise RuntimeError("ask me later")

    named_parameters = buffers = named_buffers = modules = named_modules = parameters


KINDS = (HeadOnly, Alone, Silent)
STATE = {"words.weight": torch.arange(6.0).view(3, 2), "out.weight": torch.eye(2)}
STATE["out.bias"] = torch.ones(2)
INFO = tws.VocabInfo(["c", "new", "a", "b"], old_vocab=["a", "b", "c"])
MOVED = torch.tensor([[4.0, 5], [0, 0], [0, 1], [2, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_hook_wrote_before_it_raised_is_undone(kind):
    model = kind()
    before = model.words.weight.detach().clone()

    def fail(*_):
        with torch.no_grad():
            model.words.weight.fill_(7)
        model.words.train(False)
        raise RuntimeError("no")

    model.out.register_load_state_dict_pre_hook(fail)
    with pytest.raises(tws.WarmStartError, match="load_state_dict hook of 'out'"):
        tws.warm_start(model, STATE)
    assert torch.equal(model.words.weight, before)
    assert model.words.training


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_an_initialiser_changes_is_seen(kind):
    model = kind()
    before = model.words.weight.detach().clone()

    def write_elsewhere(rows):
        with torch.no_grad():
            model.words.weight.fill_(7)
        return rows.zero_()

    info = tws.VocabInfo(
        ["c", "new", "a"], old_vocab=list("abc"), backup_initializer=write_elsewhere
    )
    settings = tws.WarmStartSettings(STATE, ".*", {"words.weight": info})
    with pytest.raises(tws.WarmStartError, match="has changed a tensor of the model"):
        tws.warm_start(model, settings)
    assert torch.equal(model.words.weight, before)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_within_it_are_run(kind):
    model, seen = kind(), []
    model.out.register_load_state_dict_post_hook(lambda *_: seen.append("out"))
    tws.warm_start(model, STATE)
    assert seen == ["out"]
    assert torch.equal(model.out.weight, STATE["out.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_its_vocabulary_is_changed_with_what_an_optimizer_keeps(kind):
    model = kind()
    optimizer = torch.optim.SGD([model.words.weight], momentum=0.9, lr=0.1)
    with torch.no_grad():
        model.words.weight.copy_(STATE["words.weight"])
    optimizer.state[model.words.weight]["momentum_buffer"] = STATE["words.weight"].clone()
    tws.change_vocabulary(model, {"words": INFO}, optimizer=optimizer)
    assert model.words.num_embeddings == 4
    assert torch.equal(model.words.weight, MOVED)
    assert torch.equal(optimizer.state[model.words.weight]["momentum_buffer"], MOVED)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_made_from_meta(kind):
    with torch.device("meta"):
        model = kind()
    tws.warm_start(model, STATE)
    assert torch.equal(model.words.weight, STATE["words.weight"])


class Hidden(Net):
    def get_submodule(self, target):
        raise RuntimeError(target)


def test_one_that_hides_its_modules_gets_another_vocabulary():
    model = Hidden()
    tws.change_vocabulary(model, {"words.weight": INFO})
    assert model.words.weight.shape == (4, 2)
