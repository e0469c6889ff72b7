"""An exported model with all time fields, in a zone that changes its clocks."""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest

from data_pipelines.requests.buckets import Buckets
from export.client import Client
from export.client_parts.user_state import UserState
from export.stand_in_server.serving import serving
from sparsectr.errors import InputError
from sparsectr.time_fields import TIME_FIELDS
from sparsectr.time_zone import TimeZone
from tests.export.exported_model import SCHEMA, ExportedModel, only, requests
from tests.make_requests import SMALL_CONFIG, sized_recipe

TIMED_SCHEMA = dataclasses.replace(
    SCHEMA,
    time_fields=tuple(TIME_FIELDS),
    time_zone=TimeZone.named("Europe/Copenhagen"),
)
BUCKETS = Buckets(history_lengths=(32,), num_candidates=(5,), batch_sizes=(1,))
NUM_VALID = [29, 0, 1, 12]
RECIPES = {
    # With one block the graph is half as large.
    "sparse_ctr": dataclasses.replace(SMALL_CONFIG, num_blocks=1),
    # With running statistics, too.
    "din_in_score": sized_recipe(
        "din",
        SMALL_CONFIG,
        gap_to_request="score",
        attention_activation="dice",
        head_activation="dice",
    ),
}


@functools.cache
def _exported(folder: pathlib.Path, name: str) -> ExportedModel:
    return ExportedModel(
        folder / name, RECIPES[name], TIMED_SCHEMA, xla_buckets=()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("timed")


@pytest.mark.parametrize("name", RECIPES)
def test_graph_and_keras_agree(name: str, folder: pathlib.Path) -> None:
    exported = _exported(folder, name)
    ids, raw = requests(3, NUM_VALID)
    expected = exported.expected(ids)
    assert np.std(expected) > 0.05
    found = exported.probability(raw)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    state = exported.encode(raw)
    found = exported.score(state, raw)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    # What is sent is what is sent without time fields.
    _, inputs = exported.loaded.signatures[
        "serving_default"
    ].structured_input_signature
    assert inputs.keys() == raw.keys()
    # Where gaps are read in `score`, a state is good for a later request.
    time = {"request_time": raw["request_time"] + 7 * 86_400 + 5}
    found = exported.score(state, {**raw, **time})
    rebuilt = exported.expected({**ids, **time})
    is_equal = np.allclose(found, rebuilt, rtol=0, atol=1e-6)
    assert is_equal == (name == "din_in_score")


def test_a_client_keeps_a_state_to_its_request(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    exported = _exported(folder, "sparse_ctr")
    ids, raw = requests(3, [29])
    request = {name: values[0] for name, values in raw.items()}
    candidates = only(request, "request_time", "candidate_")
    user = only(request, "user_", "behavior_")
    (tmp_path / "1").symlink_to(exported.path)
    with (
        serving(tmp_path / "1") as double,
        Client(double.rest_server, buckets=BUCKETS) as client,
    ):
        with pytest.raises(InputError, match="the user has no `request_time`"):
            client.encode_user(user)
        state = client.encode_user(
            {**user, "request_time": request["request_time"]}
        )
        state = UserState.from_bytes(state.to_bytes())
        np.testing.assert_allclose(
            client.score(state, candidates),
            exported.expected(ids)[0],
            rtol=0,
            atol=1e-6,
        )
        later = {**candidates, "request_time": request["request_time"] + 1}
        with pytest.raises(InputError, match="the model binds it to that"):
            client.score(state, later)
