import uuid

import pytest

from sparsectr.file_systems import tensorflow_files


@pytest.fixture(params=["arrow", "tensorflow"])
def backend(request, monkeypatch, object_store):
    """Each test that asks for it runs on what there is of both."""
    served = tensorflow_files.registered_schemes()
    if request.param == "arrow":
        monkeypatch.setattr(
            tensorflow_files, "registered_schemes", lambda: frozenset()
        )
    elif "s3" not in served:
        pytest.skip("tensorflow-io does not serve s3:// here")
    return request.param


@pytest.fixture
def folder(backend):
    """Name of a new folder in the bucket."""
    return f"{backend}-{uuid.uuid4().hex}"
