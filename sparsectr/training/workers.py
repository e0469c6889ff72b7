"""The processes that train a model together, on one host or on several."""

import contextlib
import itertools
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from sparsectr.errors import InputError
from sparsectr.process.quiet_tensorflow import reason_of
from sparsectr.training.cluster_spec import ClusterSpec
from sparsectr.training.rendezvous import wait_for_others

_GONE_SECONDS = 10.0
"""That the chief gives the others to have read its last word."""


class Workers:
    """The processes of a run, each with the same replicas of the model.

    One of them, the chief, writes. What it alone knows it shares. All do the
    same steps in the same order, and so everything that speaks with the
    others: metrics that are read, evaluations, checkpoints.

    Args:
        strategy: The devices of all of them.
        spec: Who they are; `None` for this process alone.

    Attributes:
        strategy: As given.
        is_chief: Whether this process writes.
        num_workers: How many they are.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        spec: ClusterSpec | None = None,
    ) -> None:
        self.strategy = strategy
        self._spec = spec
        self._rank = 0 if spec is None else spec.rank
        self.is_chief = spec is None or spec.is_chief
        self.num_workers = 1 if spec is None else len(spec.tasks)
        self._messages = itertools.count()

    @property
    def of_so_many(self) -> str:
        """Says behind a number of devices whose they are."""
        return f" of {self.num_workers} workers" * (self.num_workers > 1)

    def share(self, value: Any = None) -> Any:
        """Returns what the chief gives, to all.

        Args:
            value: A value for JSON; that of the others is not looked at.
        """
        if self._spec is None:
            return value
        key = f"sparsectr/shared/{next(self._messages)}"
        if self.is_chief:
            _put(key, value)
            return value
        return _get(key)

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Checks that all workers agree with the chief.

        Args:
            facts: Values for JSON, by what they are called.

        Raises:
            InputError: If one does not: in all of them, and the same.
        """
        if self._spec is None:
            return
        key = f"sparsectr/facts/{next(self._messages)}"
        _put(f"{key}/{self._rank}", facts)
        every = [_get(f"{key}/{rank}") for rank in range(self.num_workers)]
        problems = [
            f"{task} has {name} {json.dumps(theirs[name])}, not "
            f"{json.dumps(expected)}"
            for task, theirs in zip(self._spec.tasks, every, strict=True)
            for name, expected in every[0].items()
            if theirs.get(name, expected) != expected
        ]
        # Nobody goes before all have read.
        self._meet(key)
        if problems:
            raise InputError(
                f"The workers differ from {self._spec.chief}: "
                f"{'; '.join(problems)}."
            )

    def copy_from_chief(self, variables: Sequence[Any]) -> None:
        """Gives all replicas the values that the chief's first one has.

        Args:
            variables: Of the scope of the strategy, the same in all workers.
        """
        if self._spec is None:
            return
        for variable in variables:
            # A sum with zeros is exact.
            own = np.asarray(variable.numpy())
            parts = self.strategy.experimental_distribute_values_from_function(
                lambda each, own=own: tf.constant(
                    own if each.replica_id_in_sync_group == 0 else 0 * own
                )
            )
            total = self.strategy.reduce(
                tf.distribute.ReduceOp.SUM, parts, axis=None
            )
            variable.assign(total)

    def leave(self) -> None:
        """Waits until all are done, so that none is taken for lost."""
        if self._spec is not None:
            self._meet("sparsectr/done")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around the work: says who was lost.

        Raises:
            ConnectionError: If a worker is.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self._spec is None:
                raise
            missing = [task for task in self._spec.others if not task.answers()]
            who = ", ".join(map(str, missing)) or "another worker"
            raise ConnectionError(
                f"{self._spec.own} has lost {who}, whose own output may say "
                "why. Start all workers again, with --resume, to go on from "
                f"the last checkpoint. ({_cause(error)})"
            ) from error

    def _meet(self, key: str) -> None:
        """Returns when all are here.

        The texts are kept by the chief: it goes on when all have read them.
        """
        others = range(1, self.num_workers)
        if not self.is_chief:
            _put(f"{key}/here/{self._rank}", True)
            _get(f"{key}/go")
            with contextlib.suppress(tf.errors.OpError):
                _put(f"{key}/gone/{self._rank}", True)
            return
        for rank in others:
            _get(f"{key}/here/{rank}")
        _put(f"{key}/go", True)
        with contextlib.suppress(tf.errors.OpError):
            for rank in others:
                _get(f"{key}/gone/{rank}", _GONE_SECONDS)


def join_workers(
    spec: ClusterSpec, num_devices: int, wait: float, timeout: float
) -> Workers:
    """Waits for the others of a cluster and returns all of them.

    It is to be called before TensorFlow runs anything.

    Args:
        spec: Who they are.
        num_devices: GPUs of each; 0 for all of them.
        wait: Seconds to wait for the last one.
        timeout: Seconds after which one that does not answer is lost.

    Raises:
        InputError: If the port is taken, or there are no such devices.
        ConnectionError: If some are not there in time.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if num_devices > max(len(gpus), 1):
        raise InputError(
            f"--num_devices={num_devices}, but {spec.own} has "
            + (f"{len(gpus)} GPUs." if gpus else "one CPU, which is not cut.")
        )
    if gpus and num_devices:
        tf.config.set_visible_devices(gpus[:num_devices], "GPU")
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.NCCL if gpus else kinds.RING
    )
    wait_for_others(spec, wait)
    _configure_coordination(spec, wait, timeout)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=options
        )
    except (tf.errors.OpError, RuntimeError) as error:
        raise ConnectionError(
            f"{spec.own} has reached the others, but they have not begun "
            f"together: {reason_of(error)}"
        ) from error
    # TensorFlow has taken the signal to tell of preemption, and goes on.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return Workers(strategy, spec)


def _configure_coordination(
    spec: ClusterSpec, wait: float, timeout: float
) -> None:
    """Sets how long TensorFlow waits, which has no public function."""
    jobs = [
        context.coordination_config_pb2.CoordinatedJob(
            name=kind, num_tasks=len(list(tasks))
        )
        for kind, tasks in itertools.groupby(spec.tasks, lambda task: task.kind)
    ]
    context.context().configure_coordination_service(
        "standalone",
        service_leader=f"/job:{spec.chief.kind}/replica:0/task:0",
        cluster_register_timeout_in_ms=int(wait * 1000),
        heartbeat_timeout_in_ms=int(timeout * 1000),
        coordinated_jobs=jobs,
    )


def _cause(error: tf.errors.OpError) -> str:
    """Returns why collectives were aborted, else what the error begins with."""
    found = re.search(r"Collective ops is aborted by: (.*)", str(error))
    return found[1] if found else reason_of(error)


def _put(key: str, value: Any) -> None:
    # Collectives carry numbers alone; TensorFlow's own service carries texts.
    context.context().set_config_key_value(key, json.dumps(value))


def _get(key: str, seconds: float = 0.0) -> Any:
    """Waits for a value; 0 seconds are for ever, as long as all are there."""
    milliseconds = int(1000 * seconds)
    return json.loads(context.context().get_config_key_value(key, milliseconds))
