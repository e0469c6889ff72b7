"""`export.verify` on good versions, and on what is none.

What it says to broken ones is in test_broken_exports.py.
"""

import json
import re
import shutil

import numpy as np
import pytest

from export.checks import comparison
from export.checks.comparison import (
    Batch,
    check_cases,
    check_states,
    compare,
    read_answers,
)
from export.checks.variations import of_shape
from export.graph.signature import ENCODE_USER, EXAMPLES, SCORE, WHOLE_PASS
from export.requests.warm_up import FILE_NAME, read_warm_up, write_warm_up
from export.verify import replay
from sparsectr.errors import InputError
from tests.commands import assert_refused, run


@pytest.fixture
def version(finished_run, tmp_path):
    """A copy of a good version, to be changed."""
    path = tmp_path / "1"
    shutil.copytree(finished_run.path / "saved_model" / "1", path)
    return path


def _verify(version):
    return run("export.verify", version, cwd=version.parent)


def test_good_version(finished_run):
    # Training ends with it.
    _, printed = finished_run.stdout.split("lint: nothing found\n")
    printed, _ = printed.split("SavedModel: ")
    lines = ["lint: nothing found", *printed.splitlines()]
    assert re.fullmatch(r"warm-up: \d\d+ records replayed in .* s", lines[1])
    cases = [line[:42].rstrip() for line in lines[5:-2]]
    variations = [
        *("as they are", "one by one", "candidates shuffled"),
        *("1000 candidates", "more left padding", "more candidate padding"),
        "ids of whole tables",
    ]
    assert cases == [
        *(f"whole pass, {variation}" for variation in variations),
        *(f"encode, then score, {variation}" for variation in variations),
        "serialized tf.Examples",
    ]
    assert "largest difference" in lines[-1]
    assert lines[-1].endswith("at most 1e-06")


def test_version_without_origin(version):
    (version / "assets.extra" / "origin.json").unlink()
    assert_refused(_verify(version), "has no assets.extra/origin.json")


def test_origin_without_a_store(version):
    file = version / "assets.extra" / "origin.json"
    file.write_text('{"workdir": "run"}')
    assert_refused(_verify(version), "origin.json has no 'data_dir'")


def test_no_version(tmp_path, finished_run):
    done = run("export.verify", tmp_path / "none", cwd=tmp_path)
    assert_refused(done, "none has no assets.extra/origin.json")
    assert_refused(run("export.verify", cwd=tmp_path), "--model")


def test_record_that_fails(version):
    # Names, dtypes and ranks are right; what the operations meet is not.
    file = version / "assets.extra" / FILE_NAME
    records = read_warm_up(file)
    place = [name for name, _ in records].index(ENCODE_USER)
    inputs = dict(records[place][1])
    inputs["behavior_cate"] = inputs["behavior_cate"][:, 1:]
    records[place] = (ENCODE_USER, inputs)
    write_warm_up(file, records, "sparsectr")
    done = _verify(version)
    assert_refused(done, f"warm-up record {place} (encode_user) fails")


class Served:
    """Stands for a loaded SavedModel: a probability is what it is sent.

    Args:
        change: What it does to its answers, by signature.
    """

    signatures = {  # noqa: RUF012
        name: type("Signature", (), {"inputs": inputs})
        for name, inputs in {
            WHOLE_PASS: ["candidate_p", "behavior_time"],
            ENCODE_USER: ["behavior_time"],
            SCORE: ["state_fingerprint", "candidate_p"],
            EXAMPLES: ["examples"],
        }.items()
    }

    def __init__(self, change=None):
        self._change = change or {}

    def run(self, name, inputs):
        if name == ENCODE_USER:
            rows = len(inputs["behavior_time"])
            answer = {"state_fingerprint": np.full(rows, 5)}
        elif name == EXAMPLES:
            answer = {"probability": BATCH.probability.copy()}
        else:
            answer = {"probability": inputs["candidate_p"].copy()}
        if name == SCORE:
            stale = inputs["state_fingerprint"] != 5
            answer["probability"][stale] = np.nan
        return self._change.get(name, lambda answer, inputs: answer)(
            answer, inputs
        )


PROBABILITY = np.array([[0.1, 0.5, 0.3], [0.2, 0.7, 0.0]], np.float32)
BATCH = Batch(
    requests={
        "behavior_time": np.array([[0, 7], [8, 9]]),
        "request_time": np.array([10, 10]),
        "candidate_p": PROBABILITY,
    },
    probability=PROBABILITY,
    mask=np.array([[True, True, True], [True, True, False]]),
    label=np.array([[0, 1, 0], [0, 1, 0]], np.float32),
)
ANSWERS = comparison.Answers([BATCH, BATCH], [BATCH], 0, frozenset(), {})


def test_cases():
    cases = {case.name: case for case in compare(Served(), ANSWERS)}
    assert len(cases) == 15
    assert all(case.difference == 0 for case in cases.values())
    assert all(case.auc == case.keras_auc == 1 for case in cases.values())
    plain = cases["whole pass, as they are"]
    assert (plain.num_requests, plain.num_candidates) == (4, 10)
    assert cases["encode, then score, one by one"].num_requests == 4
    # The second request has 2 of 3 real ones, and so in its repetitions.
    assert cases["whole pass, 1000 candidates"].num_candidates == 2 * 1667
    check_cases("1", list(cases.values()))


def _spoil_padding(answer, inputs):
    # A model that reads the padding of histories that are longer than usual.
    if inputs["behavior_time"].shape[1] > 2:
        answer["probability"][0, 0] += 2e-6
    return answer


def _spoil_order(answer, inputs):
    answer["probability"] = np.sort(answer["probability"], axis=1)
    return answer


def _spoil_neighbours(answer, inputs):
    # A request that changes the others of its batch.
    if len(answer["probability"]) > 1:
        answer["probability"] = answer["probability"] + np.float32(2e-6)
    return answer


def _not_a_number(answer, inputs):
    answer["probability"][-1, 0] = np.nan
    return answer


@pytest.mark.parametrize(
    ("signature", "change", "case"),
    [
        (WHOLE_PASS, _spoil_padding, "whole pass, more left padding"),
        (WHOLE_PASS, _spoil_order, "whole pass, as they are"),
        (WHOLE_PASS, _spoil_neighbours, "whole pass, as they are"),
        (WHOLE_PASS, _not_a_number, "whole pass, as they are"),
        (SCORE, _not_a_number, "encode, then score, as they are"),
        (EXAMPLES, _not_a_number, "serialized tf.Examples"),
    ],
)
def test_differences_are_found(signature, change, case):
    cases = compare(Served({signature: change}), ANSWERS)
    with pytest.raises(InputError, match=rf"differs .* \({case}\); at most"):
        check_cases("1", cases)


def test_other_shape():
    def cut(answer, inputs):
        return {"probability": answer["probability"][:, :-1]}

    with pytest.raises(InputError, match=r"answers with shape \(2, 2\), not"):
        compare(Served({WHOLE_PASS: cut}), ANSWERS)


def test_auc_may_differ_by_ties_alone():
    case = comparison.Case("way", 2, 10, 0.0, 0.75, 0.7500009, 0.0)
    check_cases("1", [case])
    case = case._replace(keras_auc=0.76)
    with pytest.raises(InputError, match=r"an AUC of 0.750000 \(way\)"):
        check_cases("1", [case])
    check_cases("1", [case._replace(undecided=0.01)])


def test_pairs_within_the_limit_are_undecided():
    close = BATCH.probability.copy()
    close[0, 2] = np.float32(0.5) - np.float32(1e-6)  # Beside a click.
    batch = BATCH._replace(probability=close)
    answers = comparison.Answers([batch], [batch], 0, frozenset(), {})
    (case, *_) = compare(Served(), answers)
    # One pair of the 2 x 3 of clicks and others.
    assert case.undecided == pytest.approx(1 / 6)


def test_mixed_precision_has_a_limit_of_its_own():
    def answer_roughly(answer, inputs):
        return {"probability": answer["probability"] + np.float32(0.01)}

    served = Served({WHOLE_PASS: answer_roughly})
    cases = compare(served, ANSWERS._replace(limit=comparison.MIXED_LIMIT))
    check_cases("1", cases, comparison.MIXED_LIMIT)
    with pytest.raises(InputError, match="at most 1e-06 is allowed"):
        check_cases("1", cases)


def test_shape_of_a_compiled_signature():
    found = of_shape(BATCH, 3, 4, 5)
    assert found.requests["behavior_time"].tolist() == [
        *([0, 0, 0, 7], [0, 0, 8, 9], [0, 0, 0, 7])
    ]
    np.testing.assert_array_equal(
        found.requests["candidate_p"], found.probability
    )
    assert found.label.tolist() == [
        *([0, 1, 0, 0, 1], [0, 1, 0, 0, 1], [0, 1, 0, 0, 1])
    ]
    assert found.mask[1].tolist() == [True, True, False, True, True]


def test_states_of_other_models():
    assert check_states(Served(), BATCH.requests) is None

    def answer_all(answer, inputs):
        return {"probability": inputs["candidate_p"]}

    def refuse_all(answer, inputs):
        return {"probability": np.full_like(inputs["candidate_p"], np.nan)}

    served = Served({SCORE: answer_all})
    assert "is not refused" in check_states(served, BATCH.requests)
    served = Served({SCORE: refuse_all})
    assert "spoils other requests" in check_states(served, BATCH.requests)


def test_record_without_a_probability(tmp_path, capsys):
    (tmp_path / "assets.extra").mkdir()
    file = tmp_path / "assets.extra" / FILE_NAME
    inputs = {
        "state_fingerprint": np.array([5, 5]),
        "candidate_p": BATCH.probability,
    }
    write_warm_up(file, [(SCORE, inputs)] * 2, "sparsectr")
    replay(tmp_path, Served())
    assert capsys.readouterr().out.startswith("warm-up: 2 records replayed in")
    # With the state of another model.
    stale = {**inputs, "state_fingerprint": np.array([5, 6])}
    write_warm_up(file, [(SCORE, inputs), (SCORE, stale)], "sparsectr")
    said = r"warm-up record 1 \(score\) has a probability that is no number"
    with pytest.raises(InputError, match=said):
        replay(tmp_path, Served())


def test_damaged_answers(tmp_path):
    requests = [(WHOLE_PASS, BATCH.requests)]
    write_warm_up(tmp_path / "requests.tfrecord", requests, "sparsectr")
    (tmp_path / "answers.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"answers.npz is damaged"):
        read_answers(tmp_path)
    np.savez(tmp_path / "answers.npz", weights=["a"])
    with pytest.raises(InputError, match=r"answers.npz is damaged"):
        read_answers(tmp_path)


def test_origin_names_run_and_store(finished_run, tiny_store):
    file = finished_run.path / "saved_model" / "1" / "assets.extra"
    origin = json.loads((file / "origin.json").read_text())
    assert origin["workdir"] == str(finished_run.path)
    assert origin["data_dir"] == str(tiny_store.path)
