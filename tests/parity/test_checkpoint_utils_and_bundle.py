"""The cases of TensorFlow's own tests of what a warm start stands on.

First its functions on checkpoints (list, load, init_from_checkpoint), with both engines where it
matters; then the format of the files, from bytes that `bundle_writer` wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import (
    FULL,
    BundleEntry,
    BundleSlice,
    DType,
    encode_strings,
    write_bundle,
)
from engines import assert_equal, float_entry, model_of, write_checkpoint

import torch_warmstart as tws

GOLDEN = Path(__file__).parents[1] / "fixtures"

# -- functions on checkpoints ----------------------------------------------------------------------


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


VALUES = {
    "var1": random(1, 1, 10),
    "var2": random(2, 10, 10),
    "var3": random(3, 100, 100),
    "useful_scope/var4": random(4, 9, 9),
}


@pytest.fixture
def folder(engine, tmp_path):
    engine.save(tmp_path, VALUES)
    return str(tmp_path)


@pytest.mark.parametrize("function", [tws.load_checkpoint, tws.list_variables])
def test_without_a_checkpoint(tmp_path, function):
    with pytest.raises(tws.CheckpointNotFoundError):
        function(tmp_path)
    with pytest.raises(tws.CheckpointNotFoundError):
        function(tmp_path / "no_such_prefix")


def test_a_variable_without_a_checkpoint(tmp_path):
    with pytest.raises(tws.CheckpointNotFoundError):
        tws.load_variable(tmp_path, "var1")


def test_a_tensor_that_is_not_there(folder):
    with pytest.raises(tws.MissingTensorError):
        tws.load_variable(folder, "var5")


def test_tensors_are_read(folder):
    for name, value in VALUES.items():
        assert_equal(tws.load_variable(folder, name), value)
        with tws.load_checkpoint(folder) as checkpoint:
            assert_equal(checkpoint.get_tensor(name), value)


@pytest.mark.parametrize("as_path", [False, True])
def test_variables_are_listed_by_name(folder, as_path):
    assert tws.list_variables(Path(folder) if as_path else folder) == [
        ("useful_scope/var4", (9, 9)),
        ("var1", (1, 10)),
        ("var2", (10, 10)),
        ("var3", (100, 100)),
    ]


# -- init_from_checkpoint --------------------------------------------------------------------------


def test_by_name_and_by_scope(engine, folder):
    warmed = engine.init_from_checkpoint(
        {
            "some_scope/my1": (1, 10),
            "some_scope/my2": (10, 10),
            "some_scope/some_other_scope/my3": (100, 100),
            "useful_scope/var4": (9, 9),
        },
        folder,
        {
            "var1": "some_scope/my1",
            "var2": "some_scope/my2",
            "var3": "some_scope/some_other_scope/my3",
            "useful_scope/": "useful_scope/",
        },
    )
    assert_equal(warmed["some_scope/my1"], VALUES["var1"])
    assert_equal(warmed["some_scope/my2"], VALUES["var2"])
    assert_equal(warmed["some_scope/some_other_scope/my3"], VALUES["var3"])
    assert_equal(warmed["useful_scope/var4"], VALUES["useful_scope/var4"])


def test_a_variable_that_is_given_itself(tmp_path, folder):
    model = model_of({"new_scope/my1": torch.zeros(1, 10), "other": torch.zeros(1)})
    before = model.new_scope.my1
    report = tws.init_from_checkpoint(model, folder, {"var1": model.new_scope.my1})
    assert model.new_scope.my1 is before
    assert_equal(before.detach(), VALUES["var1"])
    assert report["other"].state == "kept"


def test_a_scope_does_not_take_names_that_begin_like_it(engine, folder):
    shapes = {"useful_scope/var4": (9, 9), "useful_scope_1/var4": (9, 9)}
    warmed = engine.init_from_checkpoint(shapes, folder, {"useful_scope/": "useful_scope/"})
    assert_equal(warmed["useful_scope/var4"], VALUES["useful_scope/var4"])
    other = warmed["useful_scope_1/var4"]  # as it was initialised: in TensorFlow at random
    assert (other.numpy() != VALUES["useful_scope/var4"]).any()


def test_from_the_root_to_a_scope(engine, folder):
    shapes = {
        "some_scope/var1": (1, 10),
        "some_scope/var2": (10, 10),
        "some_scope/var3": (100, 100),
        "some_scope/useful_scope/var4": (9, 9),
    }
    warmed = engine.init_from_checkpoint(shapes, folder, {"/": "some_scope/"})
    for name, value in VALUES.items():
        assert_equal(warmed[f"some_scope/{name}"], value)


def test_from_the_root_to_the_root(engine, folder):
    shapes = {name: value.shape for name, value in VALUES.items()}
    warmed = engine.init_from_checkpoint(shapes, folder, {"/": "/"})
    for name, value in VALUES.items():
        assert_equal(warmed[name], value)


def test_pairs_take_one_tensor_to_two_variables(engine, folder):
    warmed = engine.init_from_checkpoint(
        {"first": (1, 10), "second": (1, 10)}, folder, [("var1", "first"), ("var1", "second")]
    )
    assert_equal(warmed["first"], VALUES["var1"])
    assert_equal(warmed["second"], VALUES["var1"])


def test_a_partitioned_tensor(engine, tmp_path):
    """TensorFlow's new variable is cut into other parts; ours is whole."""
    value = random(5, 100, 100)
    engine.save(tmp_path, {"scope/var1": value}, partitions=5)
    warmed = engine.init_from_checkpoint(
        {"some_scope/my1": (100, 100)}, str(tmp_path), {"scope/var1": "some_scope/my1"}
    )
    assert_equal(warmed["some_scope/my1"], value)
    shapes = {"some_scope/var1": (100, 100)}
    warmed = engine.init_from_checkpoint(shapes, str(tmp_path), {"scope/": "some_scope/"})
    assert_equal(warmed["some_scope/var1"], value)


@pytest.mark.parametrize(
    ("assignment_map", "problem"),  # our text or TensorFlow's
    [
        pytest.param(
            {"no_var": "some_scope/my1"},
            "asks for 'no_var', which .* does not have|Tensor no_var is not found",
            id="no_such_tensor",
        ),
        pytest.param(
            {"var3": "some_scope/my1"},
            r"\[10, 10\], but 'var3' .* \[100, 100\]|doesn't match with shape of tensor var3",
            id="another_shape",
        ),
        pytest.param(
            {"var1": "some_scope/no_var"},
            "the model has no variable 'some_scope/no_var'|should map to scope only var1",
            id="no_such_variable",
        ),
        pytest.param(
            {"no_scope/": "some_scope/"},
            "such as 'no_scope/my1' for 'some_scope.my1'|Tensor no_scope/my1 .* is not found",
            id="no_such_scope_of_the_checkpoint",
        ),
        pytest.param(
            {"useful_scope/": "some_scope/"},
            "Did you mean 'useful_scope/var4'|Tensor useful_scope/my1 .* is not found",
            id="a_variable_of_a_scope_is_not_there",
        ),
        pytest.param(
            {"useful_scope": "some_scope/"},
            "the second is a scope and the first is not|should map to scope only useful_scope",
            id="a_tensor_to_a_scope",
        ),
    ],
)
def test_maps_that_do_not_fit_are_errors(engine, folder, assignment_map, problem):
    with pytest.raises(ValueError, match=problem):
        engine.init_from_checkpoint({"some_scope/my1": (10, 10)}, folder, assignment_map)


def test_the_device_and_dtype_of_a_variable_stay(tmp_path, device):
    model = model_of({"my1": torch.zeros(1, 10)}).to(device, torch.float64)
    tws.init_from_checkpoint(model, write_checkpoint(tmp_path, VALUES), {"var1": "my1"})
    assert model.my1.device.type == device.type
    assert_equal(model.my1.detach().cpu(), VALUES["var1"].astype(np.float64))


# -- the files: types and byte orders --------------------------------------------------------------

TYPES = {
    DType.FLOAT: torch.float32,
    DType.DOUBLE: torch.float64,
    DType.INT32: torch.int32,
    DType.UINT8: torch.uint8,
    DType.UINT16: torch.uint16,
    DType.UINT32: torch.uint32,
    DType.UINT64: torch.uint64,
    DType.INT16: torch.int16,
    DType.INT8: torch.int8,
    DType.COMPLEX64: torch.complex64,
    DType.COMPLEX128: torch.complex128,
    DType.INT64: torch.int64,
    DType.BOOL: torch.bool,
    DType.BFLOAT16: torch.bfloat16,
}
by_type = pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name.lower())


def constant(value, dtype):
    """[2, 3] of a number, and its bytes."""
    tensor = torch.full((2, 3), value, dtype=torch.float64).to(TYPES[dtype])
    return tensor, tensor.flatten().view(torch.uint8).numpy().tobytes()


def constants(dtype, **values):
    return [BundleEntry(key, dtype, (2, 3), constant(v, dtype)[1]) for key, v in values.items()]


def check_constants(prefix, dtype, **values):
    with tws.load_checkpoint(prefix) as checkpoint:
        assert sorted(checkpoint) == sorted(values)
        for key, value in values.items():
            assert torch.equal(checkpoint.get_tensor(key), constant(value, dtype)[0])


@by_type
def test_tensors_of_every_type(tmp_path, dtype):
    values = {"foo_000": 0, "foo_001": 1, "foo_002": 2, "foo_003": 3}
    write_bundle(tmp_path / "foo", reversed(constants(dtype, **values)))
    check_constants(tmp_path / "foo", dtype, **values)


@by_type
def test_two_bundles_that_were_merged(tmp_path, dtype):
    """A merged bundle keeps both data files and has one index."""
    foo = {"foo_000": 0, "foo_001": 1, "foo_002": 2, "foo_003": 3}
    bar = {"bar_000": 4, "bar_001": 5, "bar_002": 6, "bar_003": 7}
    entries = constants(dtype, **foo)
    entries += [
        BundleEntry(e.key, e.dtype, e.shape, e.data, shard=1) for e in constants(dtype, **bar)
    ]
    write_bundle(tmp_path / "merged", entries, num_shards=2)
    check_constants(tmp_path / "merged", dtype, **foo, **bar)


def test_bundles_that_tensorflow_merged():
    with tws.load_checkpoint(GOLDEN / "merged") as checkpoint:
        files = {name for key in checkpoint for name in checkpoint.location(key).files}
        assert len(files) == 3


@by_type
def test_a_bundle_of_a_machine_of_the_other_byte_order(tmp_path, dtype):
    values = {"foo_000": 0, "foo_001": 1, "foo_002": 2, "foo_003": 3}
    write_bundle(tmp_path / "foo", constants(dtype, **values), endianness="big")
    check_constants(tmp_path / "foo", dtype, **values)


# -- the files: slices and shapes ------------------------------------------------------------------


def test_a_partitioned_tensor_whole_and_in_part(tmp_path):
    zeros, ones = np.zeros((5, 1), "<f4").tobytes(), np.ones((5, 9), "<f4").tobytes()
    slices = [BundleSlice([FULL, (0, 1)], zeros), BundleSlice([FULL, (1, 9)], ones)]
    write_bundle(tmp_path / "foo", [BundleEntry("foo", DType.FLOAT, (5, 10), slices=slices)])
    with tws.load_checkpoint(tmp_path / "foo") as checkpoint:
        assert list(checkpoint) == ["foo"]
        whole = checkpoint.get_tensor("foo")
        assert_equal(whole, [[0.0] + [1.0] * 9] * 5)
        assert_equal(whole[:, :2], [[0.0, 1.0]] * 5)
        assert_equal(whole[:, 2:4], [[1.0, 1.0]] * 5)
        assert_equal(checkpoint.get_tensor("foo", rows=torch.tensor([3])), [[0.0] + [1.0] * 9])


@pytest.mark.parametrize("extents", [[FULL, FULL], [(0, 5), (0, 10)]])
def test_a_slice_that_is_the_whole_tensor(tmp_path, extents):
    ones = np.ones((5, 10), "<f4").tobytes()
    entry = BundleEntry("no_extents", DType.FLOAT, (5, 10), slices=[BundleSlice(extents, ones)])
    write_bundle(tmp_path / "foo", [entry])
    assert_equal(tws.load_variable(tmp_path / "foo", "no_extents"), [[1.0] * 10] * 5)


@pytest.mark.parametrize("shape", [(), (0, 1618), (16, 0, 18)])
def test_scalars_and_tensors_without_elements(tmp_path, shape):
    write_bundle(tmp_path / "foo", [float_entry("foo", np.full(shape, 7))])
    assert tws.list_variables(tmp_path / "foo") == [("foo", shape)]
    assert torch.equal(tws.load_variable(tmp_path / "foo", "foo"), torch.full(shape, 7.0))


# -- the files: strings and variants ---------------------------------------------------------------

STRINGS = [b"hello", b"", b"x01", b"c" * 2**25]


def test_strings_and_numbers_side_by_side(tmp_path):
    """TensorFlow's test has one of more than four gigabytes too, which is left out here."""
    entries = [
        BundleEntry("string_tensor", DType.STRING, (1, 4), STRINGS),
        BundleEntry("scalar", DType.STRING, (), [b"hello"]),
        BundleEntry("strs", DType.STRING, (3,), [b"world", b"hello", b"c" * 300]),
        float_entry("floats", [16.18, 16.18]),
    ]
    write_bundle(tmp_path / "foo", entries)
    with tws.load_checkpoint(tmp_path / "foo") as checkpoint:
        assert checkpoint.spec("string_tensor").shape == (1, 4)
        assert checkpoint.get_tensor("string_tensor") == STRINGS
        assert checkpoint.get_tensor("scalar") == [b"hello"]
        assert checkpoint.get_tensor("strs") == [b"world", b"hello", b"c" * 300]
        assert_equal(checkpoint.get_tensor("floats"), [16.18, 16.18])


def test_strings_of_a_writer_from_before_versions(tmp_path):
    """The older format has lengths of 32 bits: up to there its bytes are the same."""
    entry = BundleEntry("old", DType.STRING, (3,), [b"hello", b"", b"x01"])
    write_bundle(tmp_path / "foo", [entry], producer=0)
    assert tws.load_variable(tmp_path / "foo", "old") == [b"hello", b"", b"x01"]


def test_a_variant_is_listed_and_refused():
    """torch has nothing like it; TensorFlow reads them."""
    with tws.load_checkpoint(GOLDEN / "dtypes") as checkpoint:
        variants = [key for key in checkpoint if checkpoint.spec(key).stored_dtype == "variant"]
        assert variants
        with pytest.raises(tws.UnsupportedError):
            checkpoint.get_tensor(variants[0])


# -- the files: damage and versions ----------------------------------------------------------------


def flip(prefix, at):
    path = Path(f"{prefix}.data-00000-of-00001")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 3, 4, 7])
def test_a_damaged_number(tmp_path, at):
    write_bundle(tmp_path / "foo", [float_entry("foo", [[1.0, 2.0]])])
    flip(tmp_path / "foo", at)
    with pytest.raises(tws.CorruptCheckpointError, match="checksum"):
        tws.load_variable(tmp_path / "foo", "foo")


LENGTHS = 2  # of the two strings below: a byte each, and then a checksum of four


@pytest.mark.parametrize("at", [*range(LENGTHS), LENGTHS + 4, -1])
def test_damaged_strings(tmp_path, at):
    """Their lengths have a checksum of their own, the strings the tensor's."""
    strings = [b"hello", b"world"]
    write_bundle(tmp_path / "foo", [BundleEntry("foo", DType.STRING, (2,), strings)])
    assert len(encode_strings(strings)[0]) == LENGTHS + 4 + 10
    flip(tmp_path / "foo", at)
    with pytest.raises(tws.CorruptCheckpointError):
        tws.load_variable(tmp_path / "foo", "foo")


@pytest.mark.parametrize("left", [0, 1, 7])
def test_a_data_file_that_was_cut_off(tmp_path, left):
    write_bundle(tmp_path / "foo", [float_entry("foo", [[1.0, 2.0]])])
    path = tmp_path / "foo.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(tws.CorruptCheckpointError):
        tws.load_variable(tmp_path / "foo", "foo")


@pytest.mark.parametrize(
    "version",
    [{"min_consumer": 2}, {"producer": -1}, {"bad_consumers": [1]}, {"bad_consumers": [0, 1, 2]}],
)
def test_a_version_that_this_reader_must_not_read(tmp_path, version):
    write_bundle(tmp_path / "foo", [float_entry("foo", [1.0])], **version)
    with pytest.raises(tws.WarmStartError):
        tws.load_checkpoint(tmp_path / "foo")


@pytest.mark.parametrize("version", [{}, {"producer": 5}, {"bad_consumers": [2]}])
def test_a_version_that_this_reader_may_read(tmp_path, version):
    write_bundle(tmp_path / "foo", [float_entry("foo", [1.0])], **version)
    assert_equal(tws.load_variable(tmp_path / "foo", "foo"), [1.0])


def test_tensors_at_aligned_offsets(tmp_path):
    entries = [float_entry("foo", [1.0]), float_entry("bar", [2.0, 3.0]), float_entry("baz", 4.0)]
    write_bundle(tmp_path / "aligned", entries, alignment=42)
    assert (tmp_path / "aligned.data-00000-of-00001").stat().st_size == 84 + 4
    assert_equal(tws.load_variable(tmp_path / "aligned", "foo"), [1.0])
    assert_equal(tws.load_variable(tmp_path / "aligned", "bar"), [2.0, 3.0])
    assert_equal(tws.load_variable(tmp_path / "aligned", "baz"), 4.0)
