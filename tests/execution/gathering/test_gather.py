"""Every path of gather_rows equals the loop over rows."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart import SettingsError, gather_rows
from torch_warmstart.execution.gathering import gather

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int64,
    torch.bool,
    torch.uint16,
    torch.uint64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def _filled(shape, dtype, start=0):
    count = int(torch.tensor(shape).prod())
    values = torch.arange(start, start + count, dtype=torch.float32).reshape(shape) % 200
    return values.to(dtype)


def _same(left, right):
    return torch.equal(
        left.cpu().contiguous().view(torch.uint8), right.cpu().contiguous().view(torch.uint8)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("remapping", [[2, 0, 1, 2], [-1, 3, -1, 0], [-1, -1, -1, -1]])
def test_rows_of_every_dtype_are_gathered(dtype, remapping, device):
    source = _filled((5, 3), dtype).to(device)
    out = _filled((4, 3), dtype, start=100).to(device)
    expected = oracle.gather(source.view(torch.uint8), remapping, out.view(torch.uint8), 0)
    returned = gather_rows(source, torch.tensor(remapping, device=device), out)
    assert returned is out
    assert _same(out.view(torch.uint8), expected)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    chunk=st.sampled_from([1, 16, 64, 1 << 20]),
    cast=st.booleans(),
    strided=st.booleans(),
)
def test_any_shape_axis_chunk_and_stride_equals_the_loop(shape, data, chunk, cast, strided):
    dim = data.draw(st.integers(0, len(shape) - 1))
    new_size = data.draw(st.integers(0, 6))
    remapping = data.draw(
        st.lists(st.integers(-1, shape[dim] - 1), min_size=new_size, max_size=new_size)
    )
    source = _filled(shape, torch.float16 if cast else torch.float32)
    out_shape = [*shape[:dim], new_size, *shape[dim + 1 :]]
    out = _filled(out_shape, torch.float32, start=50)
    if strided:  # neither side contiguous
        source = torch.stack([source, source], -1)[..., 0]
        out = torch.stack([out, out], -1)[..., 1]
    expected = oracle.gather(source, remapping, out, dim)
    index = torch.tensor(remapping, dtype=torch.int64)
    across = out.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "CHUNK_BYTES", chunk)
        gather_rows(source, index, out, dim=dim)
        if new_size:
            # What another device's rows take.
            gather._gather_sorted([(0, source)], index, across, dim)
    assert torch.equal(out, expected)
    assert torch.equal(across, expected)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """CPU tensors take the way that CUDA tensors take."""
    monkeypatch.setattr(gather, "_suits_the_kernel", lambda out: True)
    monkeypatch.setattr(gather, "_without_triton", set())
    monkeypatch.setattr(gather, "_triton_would_crash", lambda: False)
    return monkeypatch


def _install_kernel(monkeypatch, move_rows):
    kernel = None if move_rows is None else SimpleNamespace(move_rows=move_rows)
    monkeypatch.setitem(sys.modules, "torch_warmstart.execution.gathering.row_kernel", kernel)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("source_dtype", [torch.float32, torch.float64], ids=str)
def test_the_kernel_and_what_it_leaves_to_torch_equal_the_loop(shape, source_dtype, on_a_gpu):
    from test_row_kernel import load

    _install_kernel(on_a_gpu, load(interpreted=True).move_rows)
    source = _filled(shape, source_dtype)
    for dim in range(len(shape)):
        size = shape[dim]
        remapping = torch.tensor([-1, *range(size), 0])
        out = _filled([*shape[:dim], size + 2, *shape[dim + 1 :]], torch.float32, start=50)
        strided = torch.stack([out, out], -1)[..., 1]
        expected = oracle.gather(source, remapping, out, dim)
        for target in (out, strided):
            gather_rows(source, remapping, target, dim=dim)
            assert torch.equal(target, expected)
    assert not gather._without_triton


@pytest.mark.parametrize("missing", [True, False])
def test_where_triton_is_missing_or_refuses_torch_does_it_and_triton_is_not_asked_again(
    missing, on_a_gpu
):
    asked = []

    def refuse(*tensors):
        asked.append(tensors)
        raise RuntimeError("no C compiler was found")

    _install_kernel(on_a_gpu, None if missing else refuse)
    for _ in range(2):
        out = torch.full((3, 2), 7.0)
        gather_rows(torch.eye(2), torch.tensor([1, -1, 0]), out)
        assert out.tolist() == [[0, 1], [7, 7], [1, 0]]
    assert len(asked) == (0 if missing else 1)
    assert gather._without_triton == {torch.device("cpu")}


def test_behind_tensorflow_triton_is_not_imported(on_a_gpu):
    on_a_gpu.undo()
    on_a_gpu.setattr(gather, "_suits_the_kernel", lambda out: True)
    _install_kernel(on_a_gpu, lambda *_: pytest.fail("it would have ended the process"))
    on_a_gpu.setitem(sys.modules, "tensorflow", SimpleNamespace())
    on_a_gpu.delitem(sys.modules, "triton", raising=False)
    out = torch.full((3, 2), 7.0)
    gather_rows(torch.eye(2), torch.tensor([1, -1, 0]), out)
    assert out.tolist() == [[0, 1], [7, 7], [1, 0]]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 3, 16, 65])
def test_on_a_gpu_the_kernel_and_torch_give_the_same_rows(dtype, width, monkeypatch):
    monkeypatch.setattr(gather, "_without_triton", set())
    generator = torch.Generator().manual_seed(0)
    remapping = torch.randint(-1, 3000, (5000,), generator=generator).cuda()
    source = _filled((3000, width), dtype).cuda()
    outs = [_filled((5000, width), dtype, start=9).cuda() for _ in range(2)]
    for kernel_bytes, out in zip((0, 1 << 60), outs, strict=True):
        monkeypatch.setattr(gather, "KERNEL_BYTES", kernel_bytes)
        gather_rows(source, remapping, out)
    assert _same(*outs)
    assert not gather._without_triton


def test_a_source_on_another_device_is_gathered(device):
    source = torch.arange(40.0).reshape(10, 4)
    out = torch.zeros(3, 4, device=device)
    gather_rows(source, torch.tensor([9, -1, 0]), out)
    assert out.tolist() == [[36, 37, 38, 39], [0, 0, 0, 0], [0, 1, 2, 3]]


def test_a_parameter_that_requires_grad_is_filled_in_place_and_stays_a_leaf(device):
    parameter = torch.nn.Parameter(torch.zeros(2, 2, device=device))
    gather_rows(torch.eye(2, device=device), torch.tensor([1, 0], device=device), parameter)
    assert parameter.tolist() == [[0, 1], [1, 0]]
    assert parameter.is_leaf
    assert parameter.requires_grad
    assert parameter.grad_fn is None


def test_a_tensor_can_be_permuted_into_itself():
    table = torch.arange(6.0).reshape(3, 2)
    gather_rows(table, torch.tensor([2, 0, 1]), table)
    assert table.tolist() == [[4, 5], [0, 1], [2, 3]]


def test_a_negative_dim_counts_from_the_end():
    out = torch.zeros(2, 2)
    gather_rows(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([1, -1]), out, dim=-1)
    assert out.tolist() == [[2, 0], [4, 0]]


def test_nothing_to_gather_is_no_error():
    out = torch.ones(0, 4)
    assert gather_rows(torch.zeros(3, 4), torch.zeros(0, dtype=torch.int64), out) is out
    kept = torch.ones(2, 4)
    gather_rows(torch.zeros(0, 4), torch.tensor([-1, -1]), kept)
    assert kept.tolist() == [[1] * 4] * 2


@pytest.mark.parametrize(
    ("source", "remapping", "out", "message"),
    [
        (
            torch.zeros(3, 2),
            torch.tensor([3, 0]),
            torch.zeros(2, 2),
            "asks for row 3 of a source that has 3",
        ),
        (
            torch.zeros(3, 2),
            torch.tensor([0]),
            torch.zeros(2, 2),
            r"must be int64 of \[2\].*of \[1\]",
        ),
        (torch.zeros(3, 2), torch.tensor([0, 1], dtype=torch.int32), torch.zeros(2, 2), "int32"),
        (
            torch.zeros(3, 4),
            torch.tensor([0, 1]),
            torch.zeros(2, 2),
            "may differ in dimension 0 only",
        ),
        (torch.zeros(3), torch.tensor([0, 1]), torch.zeros(2, 2), "need the same rank"),
        (
            torch.zeros(3, 2),
            torch.tensor([0, 1]),
            torch.zeros(2, 2, dtype=torch.int64),
            "is not cast",
        ),
        (
            torch.full((3, 2), 300),
            torch.tensor([0, 1]),
            torch.zeros(2, 2, dtype=torch.int8),
            "int64 is not cast to torch.int8",
        ),
        (
            torch.full((3, 2), 200, dtype=torch.uint8),
            torch.tensor([0, 1]),
            torch.zeros(2, 2, dtype=torch.int8),
            "uint8 is not cast to torch.int8",
        ),
        (torch.zeros(3, 2, dtype=torch.int64), torch.tensor([0, 1]), torch.zeros(2, 2), None),
    ],
)
def test_misuse_is_an_error_that_says_what_does_not_fit(source, remapping, out, message):
    if message is None:  # integers into floats: as torch casts them
        gather_rows(source, remapping, out)
        return
    before = out.clone()
    with pytest.raises(SettingsError, match=message):
        gather_rows(source, remapping, out)
    assert torch.equal(out, before)


@pytest.mark.parametrize("which", ["source", "remapping", "out"])
@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_what_has_no_values_in_memory_is_refused(which, kind):
    given = {"source": torch.ones(3, 2), "remapping": torch.tensor([2, 0]), "out": torch.ones(2, 2)}
    given[which] = given[which].to("meta") if kind == "meta" else given[which].to_sparse()
    with pytest.raises(SettingsError, match=f"{which} is a tensor that is sparse, nested"):
        gather_rows(**given)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.ones(1, 2).expand(2, 2), "is expanded"),
        (lambda: torch.ones(2, 2, dtype=torch.complex64).conj(), "conjugates or negates"),
        (lambda: torch.ones(2, 2, dtype=torch.complex64).conj().imag, "conjugates or negates"),
    ],
)
def test_what_cannot_be_written_to_row_by_row_is_refused(make, why):
    out = make()
    before = out.clone()
    with pytest.raises(SettingsError, match=f"out .*{why}"):
        gather_rows(torch.zeros(3, 2, dtype=out.dtype), torch.tensor([2, 0]), out)
    assert torch.equal(out, before)


class Refusing(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("index_select", "index_copy_", "view", "numpy"):
            raise ValueError(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("which", ["source", "remapping", "out"])
def test_a_tensor_is_its_memory_whatever_its_class_does(which):
    given = {"source": torch.eye(2), "remapping": torch.tensor([1, -1]), "out": torch.ones(2, 2)}
    given[which] = given[which].as_subclass(Refusing)
    assert gather_rows(**given) is given["out"]
    with torch._C.DisableTorchFunctionSubclass():
        assert given["out"].tolist() == [[0, 1], [1, 1]]


def test_a_source_that_is_conjugated_is_read_as_it_is():
    source = torch.tensor([[1 + 2j], [3 + 4j]])
    out = torch.zeros(2, 1, dtype=source.dtype)
    assert gather_rows(source.conj(), torch.tensor([1, 0]), out).tolist() == [[3 - 4j], [1 - 2j]]
    out = torch.zeros(2, 1)
    gather_rows(source.conj().imag, torch.tensor([1, 0]), out)
    assert out.tolist() == [[-4], [-2]]
