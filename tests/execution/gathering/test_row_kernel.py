"""The Triton kernel equals the loop over rows: by Triton's interpreter here, on a GPU where one is.

The interpreter runs a kernel on numpy arrays, program by program, so these tests need no GPU.
"""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_gather import DTYPES

import torch_warmstart

triton = pytest.importorskip("triton", reason="Triton is not made for this platform")


def load(*, interpreted: bool) -> ModuleType:
    """A module of our own: whether a kernel is interpreted is decided where it is defined."""
    package = os.path.dirname(torch_warmstart.__file__)
    path = os.path.join(package, "execution", "gathering", "row_kernel.py")
    spec = importlib.util.spec_from_file_location(f"row_kernel_{interpreted}", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreted():
    return load(interpreted=True).move_rows


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)], scope="module")
def move_rows(request):
    """The kernel on each device in turn, for tensors that are on the CPU."""
    if request.param == "cpu":
        return load(interpreted=True).move_rows
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    module = load(interpreted=False)

    def move(source, rows, out, places=None):
        moved = [on_device(tensor) for tensor in (source, out)]
        done = module.move_rows(
            moved[0], rows.cuda(), moved[1], None if places is None else places.cuda()
        )
        out.copy_(moved[1].cpu())
        return done

    return move


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """The same tensor on a GPU, with the same strides and the same offset in its storage."""
    storage = tensor.untyped_storage().cuda()
    empty = torch.empty(0, dtype=tensor.dtype, device="cuda")
    return empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def random_bits(shape, dtype, seed=0):
    """Every bit pattern, NaNs too: the kernel must not look at values."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel() * dtype.itemsize
    values = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    values = values & 1 if dtype == torch.bool else values
    return values.view(dtype).reshape(shape)


def raw(tensor):
    return tensor.contiguous().view(torch.uint8).reshape(len(tensor), -1)


def same_rows(left, right):
    return torch.equal(raw(left), raw(right))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [(), (1,), (3,), (2, 5), (130,)], ids=str)
def test_rows_of_every_dtype_and_width_are_moved(dtype, width, move_rows):
    source = random_bits((7, *width), dtype)
    out = random_bits((6, *width), dtype, seed=1)
    remapping = [4, -1, 0, 6, 4, -1]
    expected = oracle.gather(raw(source), remapping, raw(out), 0)
    assert move_rows(source, torch.tensor(remapping), out)
    assert torch.equal(raw(out), expected)


@st.composite
def tables(draw, num_rows, width, dtype, seed):
    """A table of rows that lie apart, and begin anywhere in their storage."""
    gap, lead = draw(st.integers(0, 5)), draw(st.integers(0, 9))
    stride = max(1, width + gap)
    storage = random_bits((lead + num_rows * stride + gap,), dtype, seed)
    return storage.as_strided((num_rows, width), (stride, 1), lead), storage


@given(data=st.data())
def test_any_shape_stride_and_offset_equals_the_loop(data, interpreted):
    dtype = data.draw(st.sampled_from(DTYPES))
    width = data.draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 100, 128, 300])))
    old, new = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 12))
    source, _ = data.draw(tables(old, width, dtype, 1))
    out, storage = data.draw(tables(new, width, dtype, 2))
    index = st.one_of(st.just(-1), st.integers(-3, old - 1))
    remapping = data.draw(st.lists(index, min_size=new, max_size=new))
    before = storage.clone()
    assert interpreted(source, torch.tensor(remapping), out)
    expected = before.as_strided(out.shape, out.stride(), out.storage_offset())
    for at, row in enumerate(remapping):
        if row >= 0:
            raw_row = source[row].contiguous().view(torch.uint8)
            expected[at].view(torch.uint8).copy_(raw_row)
    # What lies between the rows, before and behind them is as it was.
    assert torch.equal(storage.view(torch.uint8), before.view(torch.uint8))


@given(data=st.data())
def test_rows_are_scattered_to_their_places(data, interpreted):
    width = data.draw(st.integers(1, 70))
    old, new = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    places = data.draw(st.permutations(range(new)))[: data.draw(st.integers(1, new))]
    count = len(places)
    rows = data.draw(st.lists(st.integers(-1, old - 1), min_size=count, max_size=count))
    source = random_bits((old, width), torch.float32)
    out = random_bits((new, width), torch.float32, seed=1)
    remapping = [-1] * new
    for place, row in zip(places, rows, strict=True):
        remapping[place] = row
    expected = oracle.gather(raw(source), remapping, raw(out), 0)
    assert interpreted(source, torch.tensor(rows), out, torch.tensor(places))
    assert torch.equal(raw(out), expected)


@pytest.mark.parametrize("width", [4 * 512 + 4, 4 * 1024, 3001])
def test_rows_wider_than_a_program_and_more_rows_than_one_are_moved(width, move_rows):
    source = random_bits((5, width), torch.float32)
    out = random_bits((4, width), torch.float32, seed=1)
    expected = oracle.gather(raw(source), [3, -1, 3, 0], raw(out), 0)
    assert move_rows(source, torch.tensor([3, -1, 3, 0]), out)
    assert torch.equal(raw(out), expected)
    many = random_bits((2048,), torch.int32)
    rows = torch.randperm(2048, generator=torch.Generator().manual_seed(0))
    moved = torch.zeros_like(many)
    assert move_rows(many, rows, moved)
    assert torch.equal(moved, many[rows])


def test_tables_of_more_than_two_to_the_31_elements_are_reached(interpreted):
    # Never touched but in two places, so never resident. Odd, so that words are bytes.
    storage = torch.empty((1 << 31) + 64, dtype=torch.int8)
    far = storage.as_strided((3, 16), ((1 << 30) + 1, 1), 16)
    far[0], far[2] = 1, 2
    near = torch.zeros(2, 16, dtype=torch.int8)
    assert interpreted(far, torch.tensor([2, 0]), near)
    assert near[:, 0].tolist() == [2, 1]
    assert interpreted(torch.full((1, 16), 7, dtype=torch.int8), torch.tensor([-1, -1, 0]), far)
    assert [far[0, 15], far[2, 15]] == [1, 7]


def test_words_are_as_wide_as_every_address_allows():
    # A GPU faults at a word that is not aligned; the interpreter would not notice.
    module = load(interpreted=True)
    table = torch.zeros(8, 4, dtype=torch.float32)
    odd = torch.zeros(8 * 4 + 8, dtype=torch.float32)[1:33].view(8, 4)
    assert module.bytes_of_words(table, table) == 16
    assert module.bytes_of_words(odd, table) == 4
    assert module.bytes_of_words(table, odd) == 4
    assert module.bytes_of_words(table[:, :2], table[:, 2:]) == 8
    wide = torch.zeros(8, 6)
    assert module.bytes_of_words(wide[:, :4], table) == 8
    assert module.bytes_of_words(table, wide[:, :4]) == 8
    assert module.bytes_of_words(table.half()[:, 1:], table.half()[:, :3]) == 2
    assert module.bytes_of_words(table.bool()[:, :3], table.bool()[:, :3]) == 1


def test_what_it_cannot_do_it_leaves_alone(interpreted):
    rows = torch.tensor([1, 0])
    scattered = torch.zeros(2, 8)[:, ::2]
    whole = torch.ones(2, 4)
    assert not interpreted(whole, rows, scattered)
    assert not interpreted(scattered, rows, whole)
    overlapping = torch.zeros(8).as_strided((2, 4), (2, 1))
    assert not interpreted(whole, rows, overlapping)
    assert not scattered.any()
    assert whole.all()
    assert not overlapping.any()


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize(
    ("word", "words", "wide_load"),
    [("i64", 2, "ld.global.v2.b64"), ("i64", 1, "ld.global.b64"), ("i8", 1, "ld.global.b8")],
)
def test_it_compiles_for_a_gpu_and_loads_words_whole(
    word, words, wide_load, scattered, tmp_path, monkeypatch
):
    compiler = pytest.importorskip("triton.compiler", reason="Triton is not made for NVIDIA here")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    if triton.__version__ < "3.3":
        pytest.skip("Triton before 3.3 is handed constants and types in another way")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"WORDS": words, "SCATTERED": scattered, "ROWS": 32, "COLUMNS": 16 * words}
    pointers = {"source": f"*{word}", "rows": "*i64", "out": f"*{word}", "places": "*i64"}
    numbers = ["num_rows", "units", "pieces", "source_stride", "out_stride"]
    types = pointers | dict.fromkeys(numbers, "i32") | dict.fromkeys(constants, "constexpr")
    aligned = {(at,): [["tt.divisibility", 16]] for at in range(4)}
    kernel = load(interpreted=False)._KERNEL
    options = {"num_warps": 4, "enable_fp_fusion": False}
    source = compiler.ASTSource(kernel, types, constants, aligned if words == 2 else {})
    code = compiler.compile(source, target=target, options=options).asm["ptx"]
    assert wide_load in code
    assert ".local" not in code  # nothing is spilled
