"""A file system in memory, which can fail where a test wants it to."""

import contextlib
import io

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import Status


class MemoryFiles:
    """Files by their URL.

    Attributes:
        files: What is there.
        done: What was written and removed, in order.
        failure_after: Number of changes after which every further one fails.
    """

    def __init__(self, files=()):
        self.files = dict(files)
        self.done = []
        self.failure_after = None

    def status(self, url):
        if url in self.files:
            return self._status(url)
        return Status(is_folder=True) if self.walk(url) else None

    def walk(self, url):
        return {
            name.removeprefix(f"{url}/"): self._status(name)
            for name in self.files
            if name.startswith(f"{url}/")
        }

    @contextlib.contextmanager
    def open(self, url, mode):
        if mode == "rb":
            if url not in self.files:
                raise FileNotFoundError(2, "there is nothing", url)
            yield io.BytesIO(self.files[url])
            return
        self._fail(url)
        content = io.BytesIO()
        yield content
        self.done.append(f"write {url}")
        self.files[url] = content.getvalue()

    def remove(self, url):
        self._fail(url)
        self.done.append(f"remove {url}")
        del self.files[url]

    def _status(self, url):
        return Status(is_folder=False, size=len(self.files[url]), modified=1)

    def _fail(self, url):
        if self.failure_after is not None and (
            len(self.done) >= self.failure_after
        ):
            raise InputError(f"{url}: cut off")
