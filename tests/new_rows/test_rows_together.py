"""Tables that belong together: one mixture, one answer to what is trained."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from rows_helpers import info_of, start, table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

OLD, NEW = ["a", "b", "c", "d"], ["a", "b", "c", "d", "n"]
VECTORS = (NEW, table(5, 3, seed=4).abs())
NAMES = ("emb.weight", "out.weight", "out.bias")


class _Model(nn.Module):
    """Its bias comes first, as in some models."""

    def __init__(self, bias_first: bool) -> None:
        super().__init__()
        self.emb, self.out = nn.Embedding(5, 4), nn.Linear(4, 5)
        if bias_first:
            weight = self.out.weight
            del self.out.weight
            self.out.weight = weight


def _weights(
    made: tws.RowInitializer,
    untrained: str,
    *,
    bias_first: bool = False,
    infos: Mapping[str, tws.VocabInfo] | None = None,
):
    """Of each old row in the new one, by table: the old tables are invertible."""
    eye = torch.eye(4) + 0.1
    emb, out = eye.clone(), eye.clone() * 3
    {"emb": emb, "out": out}[untrained][1] = 0
    bias = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    model = _Model(bias_first)
    infos = infos or dict.fromkeys(NAMES, info_of(NEW, OLD, made))
    old = dict(zip(NAMES, (emb, out, bias), strict=True))
    report = tws.warm_start(model, tws.WarmStartSettings(old, ".*", infos))
    solved = [
        torch.linalg.lstsq(was.T, now[4], driver="gelsd").solution
        for was, now in ((emb, model.emb.weight.detach()), (out, model.out.weight.detach()))
    ]
    return *solved, model.out.bias[4].item(), bias, report


@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("k", [4, None])
def test_all_anchors_in_proportion_are_one_mixture_too(k: int | None, bias_first: bool) -> None:
    made = init.similar(VECTORS, k, weights="proportional")
    emb, out, of_bias, bias, _ = _weights(made, "emb", bias_first=bias_first)
    assert emb[1].abs() < 1e-5
    torch.testing.assert_close(emb, out)
    assert of_bias == pytest.approx(float(bias @ out), rel=1e-5)


@pytest.mark.parametrize("bias_first", [False, True])
def test_a_bias_is_the_mean_of_the_rows_that_its_head_is_the_mean_of(bias_first: bool) -> None:
    emb, out, of_bias, bias, _ = _weights(init.mean(), "out", bias_first=bias_first)
    torch.testing.assert_close(emb, torch.full((4,), 0.25))  # a table of its own
    torch.testing.assert_close(out, torch.tensor([1, 0, 1, 1]) / 3)
    assert of_bias == pytest.approx(1101 / 3)
    _, out, of_bias, bias, _ = _weights(init.mean(), "emb", bias_first=bias_first)
    assert of_bias == pytest.approx(float(bias.mean()))


def test_what_was_told_the_same_for_each_table_is_one_mixture() -> None:
    """As in a settings file, where each variable has an initialiser of its own."""

    def info() -> tws.VocabInfo:
        made = init.similar(VECTORS, 4, weights="proportional")
        return info_of([*NEW], dict(zip(OLD, range(4), strict=True)), made)

    infos = {name: info() for name in NAMES}
    emb, out, of_bias, bias, _ = _weights(init.mean(), "emb", infos=infos)
    torch.testing.assert_close(emb, out)
    assert of_bias == pytest.approx(float(bias @ out), rel=1e-5)


def test_a_bias_goes_by_its_head_whoever_holds_their_vocabularies() -> None:
    infos = {name: info_of([*NEW], [*OLD], init.mean()) for name in NAMES}
    _, out, of_bias, _, _ = _weights(init.mean(), "out", infos=infos)
    torch.testing.assert_close(out, torch.tensor([1, 0, 1, 1]) / 3)
    assert of_bias == pytest.approx(1101 / 3)


NOTHING_TO_SAY = {
    "not finite": [float("nan"), 1.0],
    "zeros": [0.0, 0.0],
    "unlike all": [-1.0, -1.0],
}


@pytest.mark.parametrize("k", [10, None])
@pytest.mark.parametrize("vector", NOTHING_TO_SAY)
def test_who_is_like_nothing_is_left_to_the_next(vector: str, k: int | None) -> None:
    given = torch.tensor([[1.0, 0.0], [0.0, 1.0], NOTHING_TO_SAY[vector], [1.0, 1.0]])
    made = init.similar((["a", "b", "n", "m"], given), k, weights="proportional") | init.mean()
    old = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weight, account = start(old, ["a", "b"], ["a", "b", "n", "m"], made)
    torch.testing.assert_close(weight[2:], torch.tensor([[2.0, 3.0], [2.0, 3.0]]))
    assert account.new_rows.answered == (("similar", 1), ("mean", 1))
