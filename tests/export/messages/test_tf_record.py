"""TFRecord files as TensorFlow reads and writes them."""

import numpy as np
import pytest
import tensorflow as tf

from export.messages.tf_record import read_records, write_records
from sparsectr.errors import InputError

SIZES = (0, 1, 100_003)


@pytest.fixture(scope="module")
def records():
    random = np.random.default_rng(0)
    return [random.bytes(size) for size in SIZES]


def test_tensorflow_reads_what_is_written(tmp_path, records):
    write_records(tmp_path / "file", records)
    found = tf.data.TFRecordDataset(str(tmp_path / "file"))
    assert list(found.as_numpy_iterator()) == records


def test_reads_what_tensorflow_writes(tmp_path, records):
    with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
        for record in records:
            writer.write(record)
    assert read_records(tmp_path / "file") == records


@pytest.mark.parametrize("place", [0, 9, 12, 20, -1])
def test_changed_byte(place, tmp_path):
    path = tmp_path / "file"
    write_records(path, [b"some content", b"more"])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="file is damaged at byte"):
        read_records(path)


@pytest.mark.parametrize("lost", [1, 5, 9, 18])
def test_lost_end(lost, tmp_path):
    path = tmp_path / "file"
    write_records(path, [b"some content", b"more"])
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(InputError, match="file is damaged at byte"):
        read_records(path)
