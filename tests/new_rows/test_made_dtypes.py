"""What an initialiser of the user's returns in another dtype: cast without loss, or refused."""

import pytest
import torch

import torch_warmstart as tws


def _start(table, initializer):
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.zeros(3, 2, dtype=table.dtype), requires_grad=False)
    info = tws.VocabInfo(["a", "b", "x"], 3, 0, ["a", "b"], backup_initializer=initializer)
    tws.warm_start(model, tws.WarmStartSettings({"w": table}, [".*"], {"w": info}))
    return model.w


def _of_old(new: tws.NewRows) -> torch.Tensor:
    return torch.full((len(new), 2), 1 + 2j)


@pytest.mark.parametrize(
    ("table", "made"),
    [
        (torch.ones(2, 2), torch.full((3, 2), 1 + 2j)),
        (torch.ones(2, 2, dtype=torch.int64), torch.full((3, 2), 0.5)),
        (torch.ones(2, 2, dtype=torch.bool), torch.full((3, 2), 2)),
    ],
    ids=["complex", "fractions", "bool"],
)
def test_what_the_table_cannot_hold_is_refused(table, made):
    with pytest.raises(tws.WarmStartError, match="cannot hold: return"):
        _start(table, lambda _: made)


def test_complex_rows_of_old_ones_are_refused():
    with pytest.raises(tws.WarmStartError, match="rows are floating numbers"):
        _start(torch.ones(2, 2), _of_old)


@pytest.mark.parametrize(
    ("table", "made", "expected"),
    [
        (torch.ones(2, 2), torch.full((3, 2), 4), 4.0),
        (torch.ones(2, 2, dtype=torch.int64), torch.full((3, 2), 3.0), 3),
        (torch.ones(2, 2, dtype=torch.complex64), torch.full((3, 2), 1.5), 1.5 + 0j),
        (torch.ones(2, 2, dtype=torch.bfloat16), torch.full((3, 2), 0.5, dtype=torch.float64), 0.5),
    ],
    ids=["integers", "whole", "real", "wider"],
)
def test_what_it_can_hold_is_cast(table, made, expected):
    assert _start(table, lambda _: made)[2].tolist() == [expected, expected]
