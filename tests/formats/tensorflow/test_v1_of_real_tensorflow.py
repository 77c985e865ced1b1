"""TensorFlow V1 checkpoints that real TensorFlow wrote."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import DType
from formats_helpers import raw
from v1_helpers import VALUES, in_rows
from v1_writer import build_v1, whole, write_v1

import torch_warmstart as tw

# ---- Real TensorFlow -------------------------------------------------------------------------

NUMPY_TYPES = [
    *(np.float16, np.float32, np.float64, np.complex64, np.complex128, np.bool_),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16),
]


def assorted_values() -> dict[str, np.ndarray]:
    """Arrays of every type that a V1 Saver takes, of several ranks."""
    generator = np.random.default_rng(1)
    values = {}
    for dtype in NUMPY_TYPES:
        name = np.dtype(dtype).name
        bits = generator.integers(0, 256, 6 * np.dtype(dtype).itemsize, dtype=np.uint8)
        array = bits % 2 == 0 if dtype is np.bool_ else bits.view(dtype)
        if dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
            array = generator.normal(size=6).astype(dtype)
        values[f"{name}/matrix"] = array.reshape(2, 3)
        values[f"{name}/scalar"] = array[0].reshape(())
        values[f"{name}/empty"] = array[:0].reshape(0, 3)
    return values


def save_with_tensorflow(prefix: Path, values: dict[str, Any], **options: Any) -> str:
    from tf_oracle import tf1

    with tf1.Graph().as_default(), tf1.Session() as session:
        for name, value in values.items():
            tf1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, **options)
        path = saver.save(session, str(prefix), write_meta_graph=False)
    return str(path)


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_every_type_that_tensorflow_writes_is_read(tmp_path: Path, sharded: bool) -> None:
    from tf_oracle import tf

    values = assorted_values()
    path = save_with_tensorflow(tmp_path / "model", values, sharded=sharded)
    assert tf.train.latest_checkpoint(str(tmp_path)) == path
    assert tw.latest_checkpoint(tmp_path) == path

    for source in (path, tmp_path, tmp_path / "model"):
        checkpoint = tw.load_checkpoint(source)
        assert sorted(checkpoint) == sorted(values)
        for name, value in values.items():
            read = checkpoint.get_tensor(name)
            assert tuple(read.shape) == value.shape
            assert raw(read) == value.tobytes(), name


@pytest.mark.tensorflow
def test_strings_that_tensorflow_writes_are_read(tmp_path: Path) -> None:
    strings = np.array([[b"a", b""], [b"\x00\xff", b"long" * 100]], dtype=object)
    path = save_with_tensorflow(tmp_path / "model", {"s": strings})

    assert tw.load_checkpoint(path).get_tensor("s") == strings.reshape(-1).tolist()


@pytest.mark.tensorflow
def test_quantized_types_that_tensorflow_writes_are_read(tmp_path: Path) -> None:
    from tf_oracle import tf, tf1

    arrays = {
        "qint8": np.array([-128, 127], np.int8),
        "quint8": np.array([0, 255], np.uint8),
        "qint32": np.array([-(2**31), 2**31 - 1], np.int32),
    }
    with tf1.Graph().as_default(), tf1.Session() as session:
        data = [tf.bitcast(tf.constant(a), getattr(tf, name)) for name, a in arrays.items()]
        session.run(
            tf.raw_ops.SaveSlices(
                filename=str(tmp_path / "model"),
                tensor_names=list(arrays),
                shapes_and_slices=[""] * len(arrays),
                data=data,
            )
        )

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    for name, array in arrays.items():
        assert checkpoint.spec(name).stored_dtype == name
        assert raw(checkpoint.get_tensor(name)) == array.tobytes()


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "complex64"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (1, 2), (2, 3)])
def test_partitioned_tensors_that_tensorflow_writes_are_read(
    tmp_path: Path, dtype: str, rows: int, columns: int
) -> None:
    from tf_oracle import tf1

    expected = np.arange(7 * 6).reshape(7, 6).astype(dtype)
    row_sizes = [len(part) for part in np.array_split(np.arange(7), rows)]
    column_sizes = [len(part) for part in np.array_split(np.arange(6), columns)]
    specs, data = [], []
    row = 0
    for height in row_sizes:
        column = 0
        for width in column_sizes:
            specs.append(f"7 6 {row},{height}:{column},{width}")
            data.append(expected[row : row + height, column : column + width])
            column += width
        row += height
    with tf1.Graph().as_default(), tf1.Session() as session:
        save = tf1.raw_ops.SaveSlices(
            filename=str(tmp_path / "model"),
            tensor_names=["x"] * len(data),
            shapes_and_slices=specs,
            data=[tf1.constant(part) for part in data],
        )
        session.run(save)

    checkpoint = tw.load_checkpoint(tmp_path / "model")

    assert checkpoint.location("x").num_slices == rows * columns
    assert raw(checkpoint.get_tensor("x")) == expected.tobytes()
    chosen = torch.tensor([6, 0, 3, 3])
    assert raw(checkpoint.get_tensor("x", chosen)) == expected[[6, 0, 3, 3]].tobytes()


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_a_partitioned_variable_of_a_saver_is_read(tmp_path: Path, sharded: bool) -> None:
    from tf_oracle import tf1

    expected = np.arange(20, dtype=np.float32).reshape(10, 2)
    with tf1.Graph().as_default(), tf1.Session() as session:
        parts = [tf1.constant(expected[:5]), tf1.constant(expected[5:])]
        variable = tf1.get_variable(
            "w", [10, 2], partitioner=tf1.fixed_size_partitioner(2), use_resource=False
        )
        session.run([tf1.assign(v, p) for v, p in zip(variable, parts, strict=True)])
        saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, sharded=sharded)
        path = saver.save(session, str(tmp_path / "model"))

    for source in (path, tmp_path):
        assert raw(tw.load_checkpoint(source).get_tensor("w")) == expected.tobytes()


@pytest.mark.tensorflow
def test_the_devices_of_a_sharded_saver_make_several_files(tmp_path: Path) -> None:
    from tf_oracle import tf1

    config = tf1.ConfigProto(device_count={"CPU": 3})
    with tf1.Graph().as_default():
        for number in range(3):
            with tf1.device(f"/cpu:{number}"):
                tf1.get_variable(f"v{number}", initializer=np.float32(number), use_resource=False)
        with tf1.Session(config=config) as session:
            session.run(tf1.global_variables_initializer())
            saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1, sharded=True)
            path = saver.save(session, str(tmp_path / "model"))
    assert path.endswith("model-?????-of-00003")

    for source in (path, tmp_path, tmp_path / "model", tmp_path / "model-00001-of-00003"):
        checkpoint = tw.load_checkpoint(source)
        assert {key: float(checkpoint.get_tensor(key)) for key in checkpoint} == {
            "v0": 0,
            "v1": 1,
            "v2": 2,
        }


@pytest.mark.tensorflow
def test_tensorflow_reads_what_the_writer_of_these_tests_writes(tmp_path: Path) -> None:
    from tf_oracle import tf1

    tensors = [whole(f"t{n}", d, [len(v)], s) for n, (d, s, v) in enumerate(VALUES[:2])]
    write_v1(tmp_path / "model", [*tensors, whole("i", DType.INT8, [2], [-1, 3])])

    reader = tf1.train.NewCheckpointReader(str(tmp_path / "model"))

    assert reader.get_tensor("t0").tolist() == [1.5, -2, math.inf]
    assert reader.get_tensor("t1").tolist() == [1e300, -0.1]
    assert reader.get_tensor("i").tolist() == [-1, 3]


def test_the_writer_keeps_slices_of_other_files_out() -> None:
    assert len(build_v1([in_rows("x", 1, 1, files=(0, 1))], file=1)) == 2
