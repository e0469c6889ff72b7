"""What TF_CONFIG may say, and what it may not."""

import json

import pytest

from sparsectr.errors import InputError
from sparsectr.training.cluster_spec import ClusterSpec

WORKERS = ["a:1", "b:2", "c:3"]


def _spec(cluster, kind="worker", index=0):
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    return ClusterSpec.from_environment({"TF_CONFIG": json.dumps(config)})


def test_ranks():
    spec = _spec({"worker": WORKERS}, index=1)
    assert [task.address for task in spec.tasks] == WORKERS
    assert (spec.rank, spec.own.address, spec.is_chief) == (1, "b:2", False)
    assert spec.chief == spec.tasks[0]
    assert spec.others == [spec.tasks[0], spec.tasks[2]]


def test_the_chief_comes_first():
    # As operators write it: texts for numbers, kinds of task without any.
    cluster = {"worker": WORKERS, "chief": ["d:4"], "ps": []}
    spec = _spec(cluster, index="0")
    assert [task.address for task in spec.tasks] == ["d:4", *WORKERS]
    assert (spec.rank, spec.is_chief) == (1, False)
    assert _spec(cluster, "chief").is_chief


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, '
        '"task": {"type": "worker", "index": 0}}',
    ],
)
def test_one_process(text):
    environment = {} if text is None else {"TF_CONFIG": text}
    assert ClusterSpec.from_environment(environment) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG is no JSON"),
        ("[]", r"TF_CONFIG must be an object. Received: \[\]"),
        ('{"cluster": 3}', "`cluster` must be an object. Received: 3"),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}}',
            r"`task` must be one of the cluster's, .*worker 1 \(b:2\)",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]},'
            ' "task": {"type": "worker", "index": 2}}',
            '`task` must be one of .* Received: {"type": "worker", "index": 2}',
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}}',
            "tasks of type ps; those that train are of type chief and worker",
        ),
        ('{"cluster": {"worker": "a:1"}}', "`worker` must be a list"),
        ('{"cluster": {"worker": ["a"]}}', 'must be host:port. Received: "a"'),
        ('{"cluster": {"worker": ["a:0"]}}', "must be host:port"),
        ('{"cluster": {"chief": ["a:1", "b:2"]}}', "more than one chief"),
        (
            '{"cluster": {"worker": ["a:1", "a:1"]}}',
            "worker 0 and worker 1 have one address, a:1",
        ),
    ],
)
def test_bad_input(text, message):
    with pytest.raises(InputError, match=message):
        ClusterSpec.from_environment({"TF_CONFIG": text})
