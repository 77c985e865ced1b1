"""What an initialiser of the user's returns in another dtype: cast without loss, or refused."""

import pytest
import torch

import torch_warmstart as tws
from torch_warmstart import init


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
        (torch.ones(2, 2, dtype=torch.int8), torch.full((3, 2), 300)),
        (torch.ones(2, 2, dtype=torch.uint8), torch.full((3, 2), -1)),
        (torch.ones(2, 2, dtype=torch.int64), torch.full((3, 2), 1 << 63, dtype=torch.uint64)),
        (torch.ones(2, 2, dtype=torch.uint16), torch.full((3, 2), 1 << 16)),
        (torch.ones(2, 2, dtype=torch.float16), torch.full((3, 2), 1e9)),
        (torch.ones(2, 2, dtype=torch.float16), torch.full((3, 2), 1 << 20)),
        (torch.ones(2, 2), torch.full((3, 2), 1e300, dtype=torch.float64)),
        (torch.ones(2, 2), torch.full((3, 2), 1e300, dtype=torch.complex128)),
        (torch.ones(2, 2).to(torch.float8_e4m3fn), torch.full((3, 2), 1e3)),  # cut to 448
        (torch.ones(2, 2).to(torch.float8_e5m2), torch.full((3, 2), -1e6)),
    ],
    ids=[
        *("complex", "fractions", "bool", "int8", "unsigned", "uint64", "uint16"),
        *("float16", "integers of float16", "float32", "real ones of complex"),
        *("float8", "float8 with an exponent more"),
    ],
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
        (torch.ones(2, 2, dtype=torch.int8), torch.full((3, 2), -128), -128),
        (torch.ones(2, 2, dtype=torch.uint16), torch.full((3, 2), 65535), 65535),
        (torch.ones(2, 2, dtype=torch.float16), torch.full((3, 2), torch.inf), torch.inf),
        (torch.ones(2, 2, dtype=torch.float16), torch.full((3, 2), 0.1), 0.0999755859375),
    ],
    ids=["integers", "whole", "real", "wider", "int8", "uint16", "infinite", "rounded"],
)
def test_what_it_can_hold_is_cast(table, made, expected):
    assert _start(table, lambda _: made)[2].tolist() == [expected, expected]


_NEW = ["a", "b", "c", "d", "x"]
_VECTORS = (_NEW, torch.arange(15.0).reshape(5, 3).square() + 1)
OF_SUM_1 = {
    "subword": init.subword({"x": ["a", "b", "c"]}),
    "exp": init.subword({"x": ["a", "b", "c"]}, "exp"),
    "group_mean": init.group_mean({"a": 1, "b": 1, "c": 1, "x": 1}),
    "softmax": init.similar(_VECTORS, 3),
    "sparsemax": init.similar(_VECTORS, None, weights="sparsemax", temperature=1),
    "proportional": init.similar(_VECTORS, 3, weights="proportional"),
    "of all": init.similar(_VECTORS, None, weights="proportional"),
    "mean": init.mean(),
    "normal": init.normal("diagonal"),
    "ridge": init.vectors(_VECTORS),
}


@pytest.mark.parametrize("old_dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OF_SUM_1)
def test_rows_of_float64_are_summed_in_float64(name, old_dtype):
    for number in (1.0, 2.0**-200) if old_dtype == torch.float64 else (1.0,):
        old = torch.full((4, 2), number, dtype=old_dtype)
        weight = _five(old, OF_SUM_1[name])
        torch.testing.assert_close(weight[4], weight[0], rtol=1e-15, atol=0)


def test_vectors_of_float64_are_taken_as_they_are():
    given = torch.tensor([[1 / 3, 2 / 3]] * 5, dtype=torch.float64)
    weight = _five(torch.ones(4, 2, dtype=torch.float64), init.vectors((_NEW, given), None))
    assert torch.equal(weight[4], given[4])


def _five(old, made):
    model = torch.nn.Embedding(5, 2, dtype=torch.float64)
    info = tws.VocabInfo(_NEW, 5, 0, _NEW[:4], backup_initializer=made)
    tws.warm_start(model, tws.WarmStartSettings({"weight": old}, ".*", {"weight": info}))
    return model.weight.detach()


@pytest.mark.parametrize("name", ["mean", "normal", "similar", "alias", "noise"])
@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz], ids=str
)
def test_tables_and_vectors_of_one_byte_are_summed_in_float32(dtype, name):
    made = {
        "mean": init.mean(),
        "normal": init.normal(),
        "similar": init.similar((_NEW, _VECTORS[1].clamp(max=100).to(dtype)), k=1),
        "alias": init.alias({"x": "a"}),
        "noise": init.mean() + init.noise(0.1),
    }[name]
    table = torch.full((2, 2), 1.5).to(dtype)
    assert _start(table, made)[2].float().tolist() == [1.5, 1.5]
    assert _start(table.float(), made)[2].tolist() == [1.5, 1.5]


def test_new_rows_of_one_byte_that_are_not_finite_are_told():
    table = torch.tensor([[1.5, float("nan")], [1.5, 1.5]]).to(torch.float8_e4m3fn)
    with pytest.warns(tws.WarmStartWarning, match="1 new row with NaN or infinity"):
        _start(table, init.alias({"x": "a"}))


@pytest.mark.parametrize(
    "made", [torch.Tensor.to_sparse, lambda rows: rows.to("meta")], ids=["sparse", "meta"]
)
def test_what_is_no_plain_tensor_is_refused(made):
    def of_old(new: tws.NewRows) -> torch.Tensor:
        return made(torch.ones(len(new), 2))

    whole = init.similar((_NEW, made(_VECTORS[1])))
    for initializer in (of_old, made, whole):
        with pytest.raises(
            tws.WarmStartError, match="sparse, nested, freed, or on the meta device"
        ):
            _start(torch.ones(2, 2), initializer)


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e30])
def test_a_donor_of_any_scale_tells_the_same(scale):
    donor = (_NEW, scale * torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, 1], [3, 0]]))
    assert _start(torch.tensor([[1.0, 2], [3, 4]]), init.omp(donor, k=1))[2].isfinite().all()
