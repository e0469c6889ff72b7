"""Which processes train together, as the environment says."""

import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from sparsectr.errors import InputError

VARIABLE = "TF_CONFIG"
"""What Kubernetes operators, Slurm wrappers and clouds set."""

_KINDS = ("chief", "worker")
"""Kinds of tasks that train, in the order of their ranks."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One process of a cluster.

    Attributes:
        kind: "chief" or "worker".
        index: Its number among those of its kind.
        address: Host and port at which the others reach it.
    """

    kind: str
    index: int
    address: str

    @property
    def host(self) -> str:
        """The host, without the brackets of an IPv6 address."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port."""
        return int(self.address.rpartition(":")[2])

    def __str__(self) -> str:
        return f"{self.kind} {self.index} ({self.address})"

    def answers(self) -> bool:
        """Whether something listens at the address."""
        try:
            socket.create_connection((self.host, self.port), 2.0).close()
        except OSError:
            return False
        return True


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """The tasks of a cluster, and which of them this process is.

    Args:
        tasks: All of them, by rank. The first is the chief, which writes.
        rank: Which one this process is.
    """

    tasks: tuple[Task, ...]
    rank: int

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ
    ) -> "ClusterSpec | None":
        """Returns what `TF_CONFIG` says; `None` where one process trains.

        Raises:
            InputError: If it does not parse, has tasks that do not train by
                this command, or names no task of its own.
        """
        text = environment.get(VARIABLE, "").strip()
        if not text:
            return None
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"{VARIABLE} is no JSON: {error}") from error
        cluster = _mapping(values, "").get("cluster", {})
        tasks = _tasks(_mapping(cluster, "cluster"))
        if not tasks:
            return None
        own = _mapping(values.get("task", {}), "task")
        found = (own.get("type"), str(own.get("index")))
        ranks = [(task.kind, str(task.index)) for task in tasks]
        if found not in ranks:
            raise InputError(
                f"{VARIABLE}: `task` must be one of the cluster's, which are "
                f"{', '.join(map(str, tasks))}. Received: {json.dumps(own)}"
            )
        return cls(tasks, ranks.index(found)) if len(tasks) > 1 else None

    @property
    def own(self) -> Task:
        """This process."""
        return self.tasks[self.rank]

    @property
    def chief(self) -> Task:
        """The process that writes."""
        return self.tasks[0]

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def others(self) -> list[Task]:
        """All but this process."""
        return [task for task in self.tasks if task != self.own]


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        where = f": `{name}`" if name else ""
        raise InputError(
            f"{VARIABLE}{where} must be an object. Received: "
            f"{json.dumps(value)}"
        )
    return value


def _tasks(cluster: Mapping[str, Any]) -> tuple[Task, ...]:
    """Returns the tasks of `cluster` by rank."""
    unknown = sorted(
        kind for kind, found in cluster.items() if found and kind not in _KINDS
    )
    if unknown:
        raise InputError(
            f"{VARIABLE} has tasks of type {', '.join(unknown)}; those that "
            f"train are of type {' and '.join(_KINDS)}. There are no parameter "
            "servers, and the workers evaluate."
        )
    tasks = []
    for kind in _KINDS:
        addresses = cluster.get(kind, [])
        if not isinstance(addresses, list):
            raise InputError(
                f"{VARIABLE}: `{kind}` must be a list of addresses. Received: "
                f"{json.dumps(addresses)}"
            )
        tasks += [
            Task(kind, index, _address(kind, address))
            for index, address in enumerate(addresses)
        ]
    if sum(task.kind == "chief" for task in tasks) > 1:
        raise InputError(f"{VARIABLE} has more than one chief.")
    taken: dict[str, Task] = {}
    for task in tasks:
        other = taken.setdefault(task.address, task)
        if other is not task:
            raise InputError(
                f"{VARIABLE}: {other.kind} {other.index} and {task.kind} "
                f"{task.index} have one address, {task.address}."
            )
    return tuple(tasks)


def _address(kind: str, address: Any) -> str:
    host, _, port = str(address).rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(
            f"{VARIABLE}: an address of `{kind}` must be host:port. Received: "
            f"{json.dumps(address)}"
        )
    return str(address)
