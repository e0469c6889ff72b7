"""The toy model behind the double, and a client of it, as fixtures."""

import numpy as np
import pytest

from data_pipelines.requests.buckets import Buckets
from export.client import Client
from export.stand_in_server.serving import serving
from export.stand_in_server.stand_in import do_nothing
from tests.export.toy_model import save_toy_model

BUCKETS = Buckets(
    history_lengths=(4, 8), num_candidates=(3, 6), batch_sizes=(1, 4)
)


TRANSPORTS = ["grpc_server", "rest_server"]


def make_request(seed, length=5, candidates=2):
    random = np.random.default_rng(seed)
    price = random.normal(size=candidates).astype(np.float32)
    price[:1] = np.nan
    return {
        "user_city": f"city {seed} é",
        "behavior_brand": random.integers(-(2**63), 2**63 - 1, length),
        "behavior_time": np.sort(random.integers(1, 10**9, length)),
        "request_time": 10**9 + seed,
        "candidate_brand": random.integers(-(2**63), 2**63 - 1, candidates),
        "candidate_price": price,
    }


def part(request, names):
    return {name: request[name] for name in names}


def newest(request, count):
    """The request with its newest behaviors alone."""
    return {
        name: value[-count:] if name.startswith("behavior_") else value
        for name, value in request.items()
    }


def in_process(double, request):
    """The model's answer to one request, not padded."""
    inputs = {name: np.asarray(value)[None] for name, value in request.items()}
    inputs["user_city"] = np.array([request["user_city"].encode()], object)
    return double.run("serving_default", inputs)["probability"][0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_toy_model(folder / "1", fingerprint=2**53 - 1)
    save_toy_model(folder / "2", fingerprint=5)
    save_toy_model(folder / "3", fingerprint=6, width=3)
    return folder


@pytest.fixture(scope="module")
def running(models):
    with serving(models / "1") as double:
        yield double


@pytest.fixture
def double(running, models):
    yield running
    running.faults.clear()
    running.before_call = do_nothing
    running.calls.clear()
    running.labels.clear()
    if running.version != 1:
        running.load(models / "1")


@pytest.fixture(params=TRANSPORTS)
def server(request, double):
    return getattr(double, request.param)


@pytest.fixture
def client(server):
    with Client(server, buckets=BUCKETS, timeout_seconds=20.0) as client:
        yield client
