"""An S3 server on this machine, and requests to it that are not our own."""

import pathlib
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple

import pytest

BUCKET = "bucket"

# The server wants to see one, and believes it.
_AUTHORIZATION = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/"
    "aws4_request, SignedHeaders=host, Signature=none"
}


class ObjectStore(NamedTuple):
    """The server, with one bucket, and the cache of those who read it."""

    endpoint: str
    cache: pathlib.Path

    def url(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def put(self, name: str, content: bytes) -> str:
        """Stores an object and returns its URL."""
        self._ask("PUT", f"/{BUCKET}/{name}", content)
        return self.url(name)

    def get(self, name: str) -> bytes:
        return self._ask("GET", f"/{BUCKET}/{name}")

    def delete(self, name: str) -> None:
        self._ask("DELETE", f"/{BUCKET}/{name}")

    def exists(self, name: str) -> bool:
        try:
            self._ask("HEAD", f"/{BUCKET}/{name}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False
        return True

    def contents(self, folder: str) -> dict[str, bytes]:
        """Returns the objects below a folder, by their relative names."""
        start = f"{folder}/"
        query = urllib.parse.urlencode({"list-type": 2, "prefix": start})
        answer = ET.fromstring(self._ask("GET", f"/{BUCKET}?{query}"))
        keys = [e.text or "" for e in answer.iterfind(".//{*}Contents/{*}Key")]
        # Arrow puts an object with a slash where a folder has become empty.
        return {
            key.removeprefix(start): self.get(key)
            for key in keys
            if not key.endswith("/")
        }

    def forget(self) -> None:
        """Empties the cache: what comes now is on another machine."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def _ask(
        self, method: str, path: str, content: bytes | None = None
    ) -> bytes:
        request = urllib.request.Request(
            self.endpoint + path,
            content,
            {"Content-Type": "application/octet-stream", **_AUTHORIZATION},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())


# Session-wide: Arrow and TensorFlow keep their connections.
@pytest.fixture(scope="session")
def object_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("object_store")
    log = folder / "log.txt"
    with (
        log.open("w") as output,
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            # Port 0: the system chooses one that is free.
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=output,
            stderr=output,
        ) as server,
    ):
        try:
            store = ObjectStore(_endpoint(server, log), folder / "cache")
            store._ask("PUT", f"/{BUCKET}", b"")
            for name, value in {
                "AWS_ENDPOINT_URL": store.endpoint,
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
                "SPARSECTR_CACHE": str(store.cache),
            }.items():
                patch.setenv(name, value)
            for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "S3_ENDPOINT"):
                patch.delenv(name, raising=False)
            yield store
        finally:
            server.kill()


def _endpoint(server: "subprocess.Popen[bytes]", log: pathlib.Path) -> str:
    """Waits for the line in which the server says where it listens."""
    for _ in range(600):
        found = re.search(r"Running on (http://\S+)", log.read_text())
        if found:
            return found[1]
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.fail(f"The object store did not start: {log.read_text()}")
