"""The reference itself, against cases worked out by hand."""

import math
from datetime import UTC
from fractions import Fraction

import numpy as np
import pytest

from configs.models.sparse_ctr import SparseCTRRecipe
from tests import reference

HOUR = 3600
DAY = 24 * HOUR
MONDAY = 4 * DAY
"""1970-01-05 00:00 UTC, a Monday."""
T = 1_494_604_800
"""2017-05-12 16:00 UTC: in Alibaba's time zone its last day begins."""


@pytest.mark.parametrize(
    ("times", "num_chunks", "chunks"),
    [
        # At the largest gaps; the cut behind the padding is not counted.
        ([10, 11, 50, 51, 52, 99], 3, [(0, 2), (2, 5), (5, 6)]),
        ([0, 0, 10, 11, 50, 51, 52, 99], 3, [(2, 4), (4, 7), (7, 8)]),
        # Of equal gaps the more recent, and gaps of 0 too.
        ([5, 10, 15, 20], 2, [(0, 3), (3, 4)]),
        ([0, 5, 10, 15, 20, 21], 3, [(1, 3), (3, 4), (4, 6)]),
        ([7, 7, 7], 2, [(0, 2), (2, 3)]),
        # Fewer behaviors than chunks; one chunk; nothing but padding.
        ([0, 0, 3, 9], 5, [(2, 3), (3, 4)]),
        ([0, 3, 900, 901], 1, [(1, 4)]),
        ([0, 0, 0], 2, []),
        ([], 2, []),
        # Far below the resolution of float32.
        ([T, T + 1, T + 3, T + 4], 2, [(0, 2), (2, 4)]),
    ],
)
def test_time_chunks(
    times: list[int], num_chunks: int, chunks: list[tuple[int, int]]
) -> None:
    assert reference.time_chunks(times, num_chunks) == chunks


def test_chunk_time_is_exact() -> None:
    assert reference.chunk_time([10, 11]) == Fraction(21, 2)
    assert reference.chunk_time([10, 12]) == 11
    assert reference.chunk_time([10, 10, 11]) == Fraction(31, 3)
    assert reference.chunk_time(np.array([T] * 3)) == T


def test_initial_slopes_are_geometric() -> None:
    np.testing.assert_allclose(
        reference.initial_slopes(8), [2.0**-h for h in range(8)]
    )
    np.testing.assert_allclose(reference.initial_slopes(2), [1.0, 1 / 16])


class TestTemporalBias:
    @pytest.mark.parametrize(
        ("difference", "bucket"),
        [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3)]
        + [(2**k, k) for k in (15, 24, 29, 30, 31)]
        + [(2**k - 1, k - 1) for k in (15, 24, 29, 30, 31)]
        # Of the mean of two: half a second below and above.
        + [(Fraction(15, 2), 2), (Fraction(17, 2), 3), (Fraction(1, 2), 0)],
    )
    def test_bucket_is_exact(
        self, difference: int | Fraction, bucket: int
    ) -> None:
        query, key = MONDAY + difference, MONDAY
        for pair in ((query, key), (key, query)):
            bias = reference.temporal_bias(
                *pair, [1.0, 0.5], [0, 0], [0, 0], UTC
            )
            assert bias.tolist() == [-bucket, -bucket / 2]

    @pytest.mark.parametrize(
        ("difference", "hour"),
        [
            (0, 0),
            (HOUR - 1, 0),
            (HOUR - Fraction(1, 2), 0),
            (HOUR, 1),
            (12 * HOUR, 12),
            (24 * HOUR - 1, 23),
            (24 * HOUR, 0),
            (30 * HOUR, 6),
        ],
    )
    def test_hour_is_a_half_sine_of_a_day(
        self, difference: int | Fraction, hour: int
    ) -> None:
        bias = reference.temporal_bias(
            MONDAY + difference, MONDAY, [0], [2.0], [0], UTC
        )
        assert bias[0] == pytest.approx(-2.0 * math.sin(math.pi * hour / 24))

    def test_weekend_in_its_own_time_zone(self) -> None:
        # In UTC+8 Saturday begins on Friday 16:00 UTC.
        china = reference.zone_of("UTC+8")
        saturday = MONDAY + 4 * DAY + 16 * HOUR
        assert not reference.is_weekend(saturday - 1, china)
        assert not reference.is_weekend(saturday - Fraction(1, 2), china)
        assert reference.is_weekend(saturday, china)
        assert reference.is_weekend(saturday + 2 * DAY - 1, china)
        assert not reference.is_weekend(saturday + 2 * DAY, china)
        assert not reference.is_weekend(saturday, UTC)
        # 2017-05-13 was a Saturday, and Alibaba's last day.
        assert reference.is_weekend(1_494_604_800, china)

    def test_weekend_bias(self) -> None:
        for day, expected in ((0, 0), (4, 0), (5, -3), (6, -3), (7, 0)):
            bias = reference.temporal_bias(
                MONDAY + day * DAY, MONDAY, [0], [0], [3.0], UTC
            )
            assert bias[0] == expected

    def test_parts_add_up(self) -> None:
        bias = reference.temporal_bias(
            MONDAY + 6 * DAY + 6 * HOUR, MONDAY, [1.0], [10.0], [100.0], UTC
        )
        # log2(540000) is 19.04, and sin(pi / 4) is that of 6 hours.
        assert bias[0] == pytest.approx(-19 - 10 * math.sqrt(0.5) - 100)


def _identity_mlp(width: int) -> dict[str, np.ndarray]:
    return {
        "kernel_1": np.eye(width),
        "bias_1": np.zeros(width),
        "kernel_2": np.eye(width),
        "bias_2": np.zeros(width),
    }


def _plain_block(num_heads: int = 1, slope: float = 0.0) -> dict:
    """A block whose projections and MLPs change nothing; an even gate."""
    identity = {name: np.eye(2) for name in ("query", "key", "value", "output")}
    slopes = {
        f"slopes_{kind}": np.full(num_heads, slope * (kind == "time"))
        for kind in ("time", "hour", "weekend")
    }
    return {
        **identity,
        **slopes,
        "key_aggregate": _identity_mlp(2),
        "value_aggregate": _identity_mlp(2),
        "gate": np.zeros((num_heads, 6 // num_heads, 3)),
    }


TWO_BEHAVIORS = np.array([[1.0, 0.0], [0.0, 1.0]])
CANDIDATE = np.array([[math.sqrt(2.0) * math.log(3.0), 0.0]])
"""Its scaled logits are ln 3 with the first behavior and 0 with the second,
so that softmax gives 3/4 and 1/4."""


def _config(**values: object) -> SparseCTRRecipe:
    defaults = {
        "width": 2,
        "num_heads": 1,
        "num_chunks": 1,
        "num_transition": 2,
        "num_local": 1,
    }
    return SparseCTRRecipe(**{**defaults, **values})


class TestTwoBehaviors:
    def test_candidate_mixes_three_branches(self) -> None:
        output = reference.evo_attention(
            _plain_block(),
            np.concatenate([TWO_BEHAVIORS, CANDIDATE]),
            None,
            [MONDAY, MONDAY + 1],
            MONDAY + 2,
            _config(),
            UTC,
        )
        # The first behavior sees itself, in two branches of three.
        np.testing.assert_allclose(output[0], [2 / 3, 0])
        # The second ends the one chunk; its transition keys are both.
        other = 1 / (1 + math.exp(1 / math.sqrt(2)))
        np.testing.assert_allclose(
            output[1], np.array([0.5 + other, 0.5 + 1 - other + 1]) / 3
        )
        # The candidate: the mean; 3/4 and 1/4; the newest.
        np.testing.assert_allclose(
            output[2], np.array([0.5 + 0.75, 0.5 + 0.25 + 1]) / 3
        )

    def test_user_is_one_more_local_key(self) -> None:
        user = np.array([1.0, 0.0])
        output = reference.local_attention(
            _plain_block(slope=1.0),
            CANDIDATE,
            np.zeros((0, 2)),
            np.zeros((0, 2)),
            user,
            user,
            [],
            MONDAY,
            _config(),
            UTC,
        )
        np.testing.assert_allclose(output, [user])
        output = reference.local_attention(
            _plain_block(slope=1.0),
            np.concatenate([TWO_BEHAVIORS, CANDIDATE]),
            TWO_BEHAVIORS,
            TWO_BEHAVIORS,
            user,
            np.array([0.0, 5.0]),
            [MONDAY, MONDAY + 3],
            MONDAY + 5,
            _config(),
            UTC,
        )
        # User: ln 3, bias 0. Newest behavior: 0, bias -floor(log2(2)) = -1.
        share = 3 / (3 + math.exp(-1))
        np.testing.assert_allclose(output[2], [0, 5 * share + (1 - share)])

    def test_bias_is_added_to_the_logits(self) -> None:
        block = _plain_block(slope=math.log(2.0))
        arguments = (
            np.concatenate([TWO_BEHAVIORS, CANDIDATE]),
            [MONDAY, MONDAY + 3],
            MONDAY + 4,
        )
        # Buckets 2 and 0: the first behavior's odds fall from 3 to 3/4.
        output = reference.full_attention(block, *arguments, _config(), UTC)
        np.testing.assert_allclose(output[2], [3 / 7, 4 / 7])
        np.testing.assert_allclose(output[0], [1, 0])
        without = _config(encoding="none")
        output = reference.full_attention(block, *arguments, without, UTC)
        np.testing.assert_allclose(output[2], [3 / 4, 1 / 4])
        block["output"] = np.array([[0.0, 4.0], [8.0, 0.0]])
        output = reference.full_attention(block, *arguments, without, UTC)
        np.testing.assert_allclose(output[2], [2, 3])

    def test_heads_are_columns(self) -> None:
        output = reference.full_attention(
            _plain_block(num_heads=2),
            np.array([[1.0, 3.0], [2.0, 5.0], [math.log(3.0), 0.0]]),
            [MONDAY, MONDAY + 1],
            MONDAY + 2,
            _config(num_heads=2),
            UTC,
        )
        # Head 1: logits ln 3 and 2 ln 3 over values 1, 2. Head 2: even.
        np.testing.assert_allclose(output[2], [1.75, 4.0])

    def test_gate_reads_its_own_head(self) -> None:
        # d_h = 1: logits (g, t, l) @ gate; only head 1 prefers, by ln 2
        # times its global output, the transition branch.
        weights = np.zeros((2, 3, 3))
        weights[0, 0, 1] = math.log(2.0)
        branches = [np.array([[v, 10 * v]]) for v in (1.0, 4.0, 5.0)]
        output = reference.gate(branches, weights, 2)
        np.testing.assert_allclose(
            output, [[(1 + 2 * 4 + 5) / 4, 10 * (1 + 4 + 5) / 3]]
        )


def test_aggregate_is_masked_mean_then_mlp() -> None:
    block = _plain_block()
    block["value_aggregate"] = {
        "kernel_1": np.eye(2),
        "bias_1": np.array([-1.0, 1.0]),
        "kernel_2": np.array([[2.0, 0.0], [0.0, 3.0]]),
        "bias_2": np.array([0.5, 0.0]),
    }
    output = reference.global_attention(
        block,
        np.ones((5, 2)),
        np.full((4, 2), 7.0),
        np.array([[99.0, 99.0], [99.0, 99.0], [0.0, 1.0], [1.0, 2.0]]),
        [0, 0, MONDAY, MONDAY + 1],
        MONDAY + 2,
        _config(),
        UTC,
    )
    # The mean is (0.5, 1.5); ReLU cuts 0.5 - 1 to 0.
    np.testing.assert_allclose(output[4], [0.5, 7.5])
    # Padding and the first behavior, which does not end the chunk, see none.
    np.testing.assert_array_equal(output[:3], np.zeros((3, 2)))
    np.testing.assert_allclose(output[3], output[4])


def test_transition_takes_the_last_of_each_chunk() -> None:
    values = np.array([[1.0, 0], [2.0, 0], [4.0, 0], [8.0, 0]])
    output = reference.transition_attention(
        _plain_block(),
        np.zeros((5, 2)),
        np.zeros((4, 2)),
        values,
        [MONDAY, MONDAY + 1, MONDAY + 2, MONDAY + 99],
        MONDAY + 100,
        _config(num_chunks=2, num_transition=2),
        UTC,
    )
    # Positions 1 and 2 end the first chunk; 3 is the whole second one.
    np.testing.assert_allclose(output[:, 0], [0, 2, 3, 14 / 3, 14 / 3])


def test_local_window_of_behaviors_and_candidates() -> None:
    values = np.array([[9.0, 0], [1.0, 0], [2.0, 0], [4.0, 0]])
    output = reference.local_attention(
        _plain_block(),
        np.zeros((6, 2)),
        np.zeros((4, 2)),
        values,
        None,
        None,
        [0, MONDAY, MONDAY + 1, MONDAY + 2],
        MONDAY + 3,
        _config(num_local=2),
        UTC,
    )
    np.testing.assert_allclose(output[:, 0], [0, 1, 1.5, 3, 3, 3])


@pytest.mark.parametrize("times", [[], [0, 0]])
def test_empty_branches_are_exactly_zero(times: list[int]) -> None:
    length = len(times)
    arguments = (
        np.ones((length + 1, 2)),
        np.ones((length, 2)),
        np.ones((length, 2)),
    )
    rest = (times, MONDAY, _config(), UTC)
    block = _plain_block()
    for output in (
        reference.global_attention(block, *arguments, *rest),
        reference.transition_attention(block, *arguments, *rest),
        reference.local_attention(block, *arguments, None, None, *rest),
        reference.full_attention(block, arguments[0], *rest),
    ):
        np.testing.assert_array_equal(output, np.zeros((length + 1, 2)))


def test_rms_norm() -> None:
    output = reference.rms_norm(np.array([[3.0, 4.0]]), np.array([1.0, 2.0]))
    root = math.sqrt(12.5 + 1e-6)
    np.testing.assert_allclose(output, [[3 / root, 8 / root]], rtol=1e-12)
    # Epsilon is under the root: sqrt(3e-6 + 1e-6).
    output = reference.rms_norm(np.array([math.sqrt(3e-6)]), np.ones(1))
    np.testing.assert_allclose(output, [math.sqrt(3) / 2])


def test_block_normalizes_the_user_like_the_sequence() -> None:
    block = {
        **_plain_block(),
        "attention_norm": np.ones(2),
        "feed_forward_norm": np.ones(2),
        "swiglu_gate": np.ones((2, 1)),
        "swiglu_up": np.ones((2, 1)),
        "swiglu_down": np.ones((1, 2)),
    }
    arguments = ([MONDAY, MONDAY + 9], MONDAY + 10, _config(), UTC)
    sequence = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 1.5]])
    user = np.array([1.0, -2.0])
    output, scaled, turned = (
        reference.sparse_block(block, sequence, u, *arguments)
        for u in (user, 100 * user, user[::-1])
    )
    np.testing.assert_allclose(scaled, output, rtol=1e-4)
    assert np.all(np.max(np.abs(turned - output), axis=1) > 1e-3)


def test_swiglu() -> None:
    block = {
        "swiglu_gate": np.array([[1.0, -1.0]]),
        "swiglu_up": np.array([[1.0, 2.0]]),
        "swiglu_down": np.array([[1.0], [10.0]]),
    }
    # x = ln 3: sigmoid(x) = 3/4 and sigmoid(-x) = 1/4.
    x = math.log(3.0)
    output = reference.swiglu(block, np.array([[x]]))
    np.testing.assert_allclose(output, [[0.75 * x * x - 10 * 0.5 * x * x]])


def test_prediction_layer() -> None:
    head = {
        "candidate": np.eye(2),
        "user": np.array([[1.0, 0.0]]),
        **_identity_mlp(2),
        "kernel_2": np.array([[1.0], [1.0]]),
        "bias_2": np.array([0.25]),
    }
    candidates = np.array([[4.0, 2.0], [-4.0, 2.0]])
    output = reference.prediction_layer(
        head, candidates, np.array([math.log(3.0)])
    )
    np.testing.assert_allclose(output, [3 + 1 + 0.25, 1 + 0.25])
    # Without user fields the factor is 1.
    output = reference.prediction_layer(head, candidates, np.zeros(0))
    np.testing.assert_allclose(output, [4 + 2 + 0.25, 2 + 0.25])


def test_loss_is_the_mean_over_real_candidates() -> None:
    logits = np.array([[0.0, math.log(3.0)], [math.log(3.0), 800.0]])
    labels = np.array([[1.0, 1.0], [0.0, 0.0]])
    mask = np.array([[True, True], [True, False]])
    loss = reference.binary_cross_entropy(logits, labels, mask)
    assert loss == pytest.approx(
        (math.log(2) + math.log(4 / 3) + math.log(4)) / 3
    )
