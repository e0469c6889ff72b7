"""What all tests share."""

import gc
import os
import pathlib
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.object_store import object_store

__all__ = ["object_store"]

# Servers of tests are on this machine; gRPC and urllib would ask a proxy.
for _name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

# No deadline: a busy machine is not a defect. Derandomized: the suite gives
# the same answer on every machine.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True
)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    # What is imported by now stays, and tracing makes many objects that do:
    # looking for garbage among them took a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(repository: pathlib.Path) -> pathlib.Path:
    """The folder of real data beside the checkout."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: there is no shared/data beside the checkout")
    return folder


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Lets the processes of a test be interrupted.

    A shell has what it starts in the background ignore SIGINT, and so do the
    processes that this starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
