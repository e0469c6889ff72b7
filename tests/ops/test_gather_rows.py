import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.gather_rows import gather_rows


@pytest.mark.parametrize("trailing", [(), (5,)])
@pytest.mark.parametrize("dynamic", [True, False])
def test_picks_rows_of_each_sequence(
    trailing: tuple[int, ...], dynamic: bool
) -> None:
    batch, length, count = 2, 3, 7
    sequence = np.arange(batch * length * (5 if trailing else 1))
    sequence = sequence.reshape(batch, length, *trailing)
    random = np.random.default_rng(0)
    index = random.integers(0, length, (batch, count)).astype("int32")
    function = gather_rows
    if dynamic:
        function = tf.function(
            gather_rows,
            input_signature=[
                tf.TensorSpec((None, None, *trailing), tf.int64),
                tf.TensorSpec((None, None), tf.int32),
            ],
        )
    rows = function(sequence, index).numpy()
    assert rows.shape == (batch, count, *trailing)
    for b in range(batch):
        np.testing.assert_array_equal(rows[b], sequence[b][index[b]])
