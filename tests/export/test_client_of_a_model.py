"""The client's answer for an exported model is that of the Keras model."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.requests.buckets import Buckets
from export.client import Client
from export.client_parts.user_state import StaleStateError
from export.stand_in_server.serving import serving
from tests.export.exported_model import exported, only, requests

__all__ = ["exported"]

BUCKETS = Buckets(
    history_lengths=(16, 32), num_candidates=(4, 8), batch_sizes=(1, 2, 4)
)
NUM_VALID = [0, 1, 15, 16, 17, 23, 29]


@pytest.fixture(scope="module")
def double(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "1"
    path.symlink_to(exported.path)
    with serving(path) as double:
        yield double


@pytest.fixture(params=["grpc_server", "rest_server"])
def client(request, double):
    server = getattr(double, request.param)
    with Client(server, buckets=BUCKETS, timeout_seconds=60.0) as client:
        yield client


@pytest.fixture(scope="module")
def given(exported):
    """Requests as a client has them, and the model's answers."""
    ids, raw = requests(5, NUM_VALID)
    expected = exported.expected(ids)
    single, answers = [], []
    for row, mask in enumerate(ids["candidate_mask"]):
        kept = {
            "behavior_": raw["behavior_time"][row] > 0,
            "candidate_": mask,
        }
        request = {}
        for name, values in raw.items():
            prefix = name[: name.index("_") + 1]
            request[name] = (
                values[row][kept[prefix]] if prefix in kept else values[row]
            )
        single.append(request)
        answers.append(expected[row][mask])
    return single, answers


def test_whole_pass(client, given):
    single, answers = given
    assert [len(r["behavior_time"]) for r in single] == NUM_VALID
    for score, answer in zip(
        client.score_requests(single), answers, strict=True
    ):
        np.testing.assert_allclose(score, answer, rtol=0, atol=1e-6)


def test_encode_and_score(client, given):
    for request, answer in zip(*given, strict=True):
        state = client.encode_user(only(request, "user_", "behavior_"))
        candidates = only(request, "request_time", "candidate_")
        score = client.score(state, candidates)
        np.testing.assert_allclose(score, answer, rtol=0, atol=1e-6)


def test_a_state_of_another_model(client, given):
    request = given[0][-1]
    state = client.encode_user(only(request, "user_", "behavior_"))
    fingerprint = state.tensors["state_fingerprint"]
    other = dataclasses.replace(
        state, tensors={**state.tensors, "state_fingerprint": fingerprint ^ 1}
    )
    candidates = only(request, "request_time", "candidate_")
    with pytest.raises(StaleStateError):
        client.score(other, candidates)
    assert np.isfinite(client.score(state, candidates)).all()
