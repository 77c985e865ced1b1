"""Tensors of torch that hold no plain values: errors of ours, wherever they are met."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import torch_warmstart as tws

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of what is made here

W = torch.arange(12.0).reshape(4, 3)


class Wrapped(torch.Tensor):
    """As torchao's are: it decides what every operation does."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("only its own code knows")


def _fake():
    with FakeTensorMode():
        return torch.empty(4, 3)


UNREADABLE = {
    "quantised": (lambda: torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), "dequantize"),
    "by channel": (
        lambda: torch.quantize_per_channel(
            W, torch.ones(4), torch.zeros(4, dtype=torch.int64), 0, torch.quint8
        ),
        "dequantize",
    ),
    "sparse": (W.to_sparse, "to_dense"),
    "csr": (W.to_sparse_csr, "to_dense"),
    "meta": (lambda: W.to("meta"), "meta device"),
    "nested": (lambda: torch.nested.nested_tensor([W, W]), "nested"),
    "lazy": (lambda: nn.LazyLinear(3).weight, "lazy"),
    "a subclass": (lambda: W.as_subclass(Wrapped), "Wrapped"),
    "fake": (_fake, "FakeTensor"),
}
IN_FILES = ("quantised", "by channel", "sparse", "csr", "meta")


def _sources(name, tmp_path):
    make, _ = UNREADABLE[name]
    yield {"weight": make(), "other": torch.ones(2)}
    if name in IN_FILES:
        torch.save({"weight": make(), "other": torch.ones(2)}, tmp_path / "m.pt")
        yield tmp_path / "m.pt"


@pytest.mark.parametrize("name", UNREADABLE)
def test_reading_is_refused(name, tmp_path):
    _, told = UNREADABLE[name]
    rows = torch.tensor([1, 0])
    for source in _sources(name, tmp_path):
        with tws.load_checkpoint(source) as checkpoint:
            assert checkpoint.spec("weight").dtype is None
            with pytest.raises(tws.UnsupportedError, match=told):
                checkpoint.get_tensor("weight")
            with pytest.raises(tws.UnsupportedError, match=told):
                checkpoint.row_blocks("weight", rows)
            with pytest.raises(tws.WarmStartError):
                checkpoint.get_tensor("weight", rows)
            assert checkpoint.get_tensor("other").tolist() == [1, 1]


@pytest.mark.parametrize("name", [name for name in UNREADABLE if name not in ("nested", "lazy")])
@pytest.mark.parametrize("remapped", [False, True])
def test_planning_is_refused(name, remapped, tmp_path):
    vocab = {"weight": tws.VocabInfo(["b", "x", "a", "c"], 4, 0, ["a", "b", "c", "d"])}
    for source in _sources(name, tmp_path):
        model = nn.Embedding(4, 3)
        before = model.weight.detach().clone()
        settings = tws.WarmStartSettings(source, ".*", vocab if remapped else None)
        with pytest.raises(tws.PlanError, match=UNREADABLE[name][1]) as error:
            tws.warm_start(model, settings)
        assert error.value.problems[0].code == "tensor-unreadable"
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", ["nested", "lazy"])
def test_what_has_no_shape_fits_nothing(name):
    with pytest.raises(tws.PlanError):
        tws.warm_start(nn.Embedding(4, 3), {"weight": UNREADABLE[name][0]()})


def test_so_is_a_nested_one_in_a_file(tmp_path):
    """torch from 2.15 on refuses the file; before, what is read of it."""
    torch.save({"weight": UNREADABLE["nested"][0]()}, tmp_path / "m.pt")
    with pytest.raises(tws.UnsupportedError, match="nested"):
        _read(tmp_path / "m.pt", "weight")


def _read(path, name):
    with tws.load_checkpoint(path) as checkpoint:
        return checkpoint.get_tensor(name)


def test_a_distributed_checkpoint_of_a_quantised_tensor_is_refused(tmp_path):
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    dcp.save({"weight": UNREADABLE["quantised"][0]()}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    with tws.load_checkpoint(tmp_path / "dcp") as checkpoint:
        for rows in (None, torch.tensor([1, 0])):
            with pytest.raises(tws.UnsupportedError, match="dequantize"):
                checkpoint.get_tensor("weight", rows)


@pytest.mark.parametrize("in_file", [False, True])
def test_conjugated_and_negated_views_are_their_values(in_file, tmp_path):
    number = torch.complex(W, W + 1)
    source = {"conj": number.conj(), "neg": number.clone().conj().imag, "plain": number}
    if in_file:
        torch.save(source, tmp_path / "m.pt")
    rows = torch.tensor([2, 0])
    with tws.load_checkpoint(tmp_path / "m.pt" if in_file else source) as checkpoint:
        assert torch.equal(checkpoint.get_tensor("conj", rows), number.conj().resolve_conj()[rows])
        assert torch.equal(checkpoint.get_tensor("neg", rows), -(W + 1)[rows])
        assert not checkpoint.get_tensor("neg").is_neg()
        assert checkpoint.spec("conj").storage != checkpoint.spec("plain").storage


class Watched(torch.Tensor):
    """As classes of data sets are: it decides what torch's functions do with it, for models."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("not meant for this")


def test_a_class_that_only_sees_to_functions_has_the_values_of_its_memory():
    model, momentum = nn.Linear(3, 4, bias=False), W.flip(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {"state": {0: {"momentum_buffer": momentum.as_subclass(Watched)}}}
    state["param_groups"] = [{"params": [0], "dampening": 0}]
    saved = {"model": {"weight": W.as_subclass(Watched)}, "optimizer": state}
    tws.warm_start(model, saved, optimizer=optimizer)
    assert torch.equal(model.weight, W)
    assert torch.equal(optimizer.state[model.weight]["momentum_buffer"], momentum)
