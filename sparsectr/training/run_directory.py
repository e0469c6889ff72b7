"""The folder of a run: what was asked for, and what came out."""

import contextlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.mirror import Mirror
from sparsectr.file_systems.paths import (
    Location,
    file_system,
    is_remote,
    join,
)
from sparsectr.file_systems.process_lock import ProcessLock
from sparsectr.schema import DatasetSchema

# Each names what is sent before it. A run exists from config.json on, goes on
# from what `checkpoint` names, and is done when there is a result.
_SENT_LAST = ("config.json", "checkpoints/checkpoint", "result.json")

_PACKAGES = ("sparsectr", "tensorflow", "keras", "numpy", "pandas", "pyarrow")


class RunDirectory:
    """Writes and reads the files of one run.

    `config.json` and `environment.json` are there from the start,
    `metrics.jsonl` grows, `result.json` is there when the run is done.

    Args:
        path: The folder.
        mirror: Where `publish` sends it, for a run at a remote place.

    Attributes:
        path: The folder.
        location: What its user calls it: a remote path, or the folder.
    """

    def __init__(self, path: Path | str, mirror: Mirror | None = None) -> None:
        self.path = Path(path)
        self.location = mirror.url if mirror else str(self.path)
        self._mirror = mirror
        self._lock: ProcessLock | None = None

    @classmethod
    def of(cls, workdir: Location) -> "RunDirectory":
        """Returns a run to read, from a copy if `workdir` is remote.

        Raises:
            InputError: If `workdir` is remote and cannot be read.
        """
        if not is_remote(workdir):
            return cls(workdir)
        path = local_copy(workdir)
        return cls(path, Mirror(path, str(workdir), _SENT_LAST))

    @classmethod
    def to_train(cls, workdir: Location, *, resume: bool) -> "RunDirectory":
        """Returns a run to write.

        A remote one lives in a working folder on this machine and is sent by
        `publish`. No other process of this machine can write it until this
        one ends; one that begins is locked by `create`.

        Args:
            workdir: Folder of the run.
            resume: Whether to begin with what is there.

        Raises:
            InputError: If `workdir` is remote and cannot be read, if there is
                a run that is not to be resumed, or if another process is at
                work on it.
        """
        if not is_remote(workdir):
            run = cls(workdir)
            if resume and run.exists:
                run._lock_local()
            return run
        url = str(workdir)
        config = join(url, "config.json")
        if not resume and file_system(url).status(config) is not None:
            raise _holds_a_run(url)
        mirror = Mirror.work_on(url, _SENT_LAST, fetch=resume)
        return cls(mirror.folder, mirror)

    def publish(self) -> None:
        """Brings a remote run up to date; a local one always is.

        Raises:
            InputError: If the remote place cannot be written.
        """
        if self._mirror is not None:
            self._mirror.send()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "config.json").exists()

    def create(
        self,
        config: Config,
        store: StoreIdentity,
        data_dir: Location,
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Begins a run.

        Args:
            config: What is asked for.
            store: What it is trained on, which gives the schema.
            data_dir: Where that is.
            more: Further files that are there from the start, by name.

        Raises:
            InputError: If the folder holds a run already, or another process
                begins one there.
            OSError: If it cannot be written.
        """
        if not self.exists:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._mirror is None:
                self._lock_local()
        # Asked again: it may have begun meanwhile.
        if self.exists:
            raise _holds_a_run(self.location)
        self.write_json("environment.json", environment())
        self.write_json("schema.json", json.loads(store.schema.to_json()))
        self.write_json("store.json", store.to_dict())
        for name, values in (more or {}).items():
            self.write_json(name, values)
        # The last of them: a run exists from here on.
        if not is_remote(data_dir):
            data_dir = Path(data_dir).absolute()
        self.write_json(
            "config.json",
            {"data_dir": str(data_dir), **config.to_dict()},
        )
        self.publish()

    def _lock_local(self) -> None:
        self._lock = ProcessLock(self.path / "lock", self.location)

    def read_config(self) -> tuple[Config, str]:
        """Returns the configuration and the store of the run.

        Raises:
            InputError: If there is no run here.
        """
        values = self.read_json("config.json")
        try:
            data_dir = str(values.pop("data_dir"))
            return Config.from_dict(values), data_dir
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{self.path / 'config.json'} cannot be used: {error}"
            ) from error

    def read_schema(self) -> DatasetSchema:
        """Returns the schema that the model was built from.

        Raises:
            InputError: If there is no run here.
        """
        try:
            return DatasetSchema.from_dict(self.read_json("schema.json"))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path / 'schema.json'} is damaged: {error}"
            ) from error

    def read_environment(self) -> dict[str, Any]:
        """Returns versions, devices and commit that the run began with.

        Raises:
            InputError: If there is no run here.
        """
        return self.read_json("environment.json")

    def read_store(self) -> StoreIdentity:
        """Returns what the store was that the run was trained on.

        Raises:
            InputError: If there is no run here.
        """
        try:
            return StoreIdentity(
                schema=self.read_schema(), **self.read_json("store.json")
            )
        except TypeError as error:
            raise InputError(
                f"{self.path / 'store.json'} is damaged: {error}"
            ) from error

    def read_result(self) -> dict[str, Any]:
        """Returns `result.json`, or an empty dict if the run is not done."""
        if not (self.path / "result.json").exists():
            return {}
        return self.read_json("result.json")

    def add_to_result(self, name: str, value: Any) -> None:
        """Adds an entry to `result.json`, if the run is done."""
        result = self.read_result()
        if result:
            self.write_json("result.json", {**result, name: value})
            self.publish()

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a JSON file, whole or not at all."""
        target = self.path / name
        partial = target.with_name(f".{name}.{os.getpid()}.partial")
        try:
            text = json.dumps(values, indent=2, allow_nan=False)
            partial.write_text(text + "\n", "utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def log(self, **values: Any) -> None:
        """Appends one line to `metrics.jsonl`.

        A number that is not finite, which JSON does not have, is `None`.
        """
        values = {
            name: None
            if isinstance(value, float) and not math.isfinite(value)
            else value
            for name, value in values.items()
        }
        line = json.dumps(
            {"time": round(time.time(), 3), **values}, allow_nan=False
        )
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Returns the lines of `metrics.jsonl`."""
        path = self.path / "metrics.jsonl"
        lines = []
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                # A kill may have cut one off.
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return lines

    def drop_log_after(self, step: int) -> list[dict[str, Any]]:
        """Drops the lines of `metrics.jsonl` that a resumed run will repeat.

        Returns:
            The lines that are kept.
        """
        kept = [
            line
            for line in self.read_log()
            if line["step"] <= step and "seconds" in line
        ]
        path = self.path / "metrics.jsonl"
        if path.exists():
            partial = path.with_name(f".{path.name}.partial")
            text = "".join(json.dumps(line) + "\n" for line in kept)
            partial.write_text(text, "utf-8")
            partial.replace(path)
        return kept

    def read_json(self, name: str) -> dict[str, Any]:
        """Returns what `write_json` wrote.

        Raises:
            InputError: If it is not there, or is damaged.
        """
        path = self.path / name
        try:
            values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"{self.location} is not a run: no {name}."
            ) from error
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}") from error
        return values


def _holds_a_run(location: str) -> InputError:
    return InputError(
        f"{location} holds a run already. Go on with it by --resume, or name "
        "another --workdir."
    )


def environment() -> dict[str, Any]:
    """Returns versions, devices and commit of this process."""
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    names = [
        tf.config.experimental.get_device_details(device).get(
            "device_name", device.name
        )
        for device in devices
    ]
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_cores": os.cpu_count(),
        "gpus": names,
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the name of the processor, as exact as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _commit() -> str | None:
    """Returns the commit of the code, marked where it was changed since."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return None
    return done.stdout.strip() or None
