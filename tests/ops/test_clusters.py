import numpy as np
import pytest
import tensorflow as tf

from sparsectr.ops.clusters import Clusters, cluster_means, make_clusters

B, L, W, MOST = 5, 23, 3, 3


def _inputs() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(0)
    group = random.integers(0, 4, size=(B, L))
    group[1] = 2**62 - 1
    is_single = random.random((B, L)) < 0.3
    is_single[1] = False
    valid = np.arange(L) >= np.array([[0], [0], [L], [7], [L - 1]])
    return group, is_single, valid


def _members(group, is_single, valid) -> list[list[int]]:
    """Returns the columns of each cluster of one history."""
    found: dict[object, list[list[int]]] = {}
    for column in np.flatnonzero(valid):
        key = ("single", column) if is_single[column] else group[column]
        runs = found.setdefault(key, [[]])
        if len(runs[-1]) == MOST:
            runs.append([])
        runs[-1].append(int(column))
    return sorted(run for runs in found.values() for run in runs)


def _call(group, is_single, valid, rows, time) -> tuple:
    clusters = make_clusters(group, is_single, valid, MOST)
    return (
        clusters,
        cluster_means(rows, clusters),
        cluster_means(time[..., None], clusters)[..., 0],
    )


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_equals_a_loop(mode: str) -> None:
    inputs = _inputs()
    random = np.random.default_rng(1)
    rows = random.normal(size=(B, L, W)).astype("float32")
    time = np.sort(random.integers(1, 2**40, size=(B, L)), axis=1)
    call = _call
    if mode != "eager":
        call = tf.function(_call, jit_compile=mode == "xla", autograph=False)
    clusters, means, mean_time = call(
        *(tf.constant(x) for x in (*inputs, rows, time))
    )
    assert isinstance(clusters, Clusters)
    for b in range(B):
        expected = _members(*(x[b] for x in inputs))
        size = clusters.size.numpy()[b]
        assert sorted(size[size > 0]) == sorted(map(len, expected))
        found = []
        for slot in np.flatnonzero(size):
            own = (clusters.slot.numpy()[b] == slot) & inputs[2][b]
            columns = np.flatnonzero(own)
            found.append(list(columns))
            np.testing.assert_allclose(
                means[b, slot],
                rows[b, columns].mean(axis=0),
                rtol=1e-5,
                atol=1e-6,
            )
            assert mean_time[b, slot] == time[b, columns].sum() // len(columns)
        assert sorted(found) == expected
        assert np.all(means.numpy()[b][size == 0] == 0.0)
        assert np.all(mean_time.numpy()[b][size == 0] == 0)


def test_histories_without_columns() -> None:
    empty = tf.zeros((2, 0), "int64")
    flags = tf.zeros((2, 0), "bool")
    clusters = make_clusters(empty, flags, flags, MOST)
    assert clusters.size.shape == (2, 0)
    assert cluster_means(tf.zeros((2, 0, W)), clusters).shape == (2, 0, W)
