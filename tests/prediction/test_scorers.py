"""A run and its SavedModel give the scores of the model, texts and all."""

import json
import shutil
import types

import numpy as np
import pytest

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.padding import check_request
from sparsectr.config import Config, DataConfig
from sparsectr.prediction.run_scorer import RunScorer
from sparsectr.prediction.saved_model_scorer import SavedModelScorer
from sparsectr.prediction.scorer import score_requests
from sparsectr.training.load_model import TrainedModel
from tests.export import exported_model
from tests.export.exported_model import (
    MAX_HISTORY,
    SCHEMA,
    VOCABULARIES,
    exported,
)

__all__ = ["exported"]


@pytest.fixture
def version(exported, tmp_path):
    """The export, and what it is read by."""
    path = shutil.copytree(exported.path, tmp_path / "1")
    (path / "assets.extra").mkdir()
    buckets = Buckets(history_lengths=(8, MAX_HISTORY))
    (path / "assets.extra" / "signature.json").write_text(
        json.dumps({"buckets": buckets.to_dict()})
    )
    return path


def _run_scorer(exported):
    config = Config(
        dataset="made",
        model=exported_model.CONFIG,
        data=DataConfig(max_history=MAX_HISTORY),
    )
    trained = TrainedModel(
        exported.model, config, SCHEMA, step=1, checkpoint="last"
    )
    return RunScorer(
        trained, types.SimpleNamespace(vocabularies=lambda: VOCABULARIES)
    )


@pytest.mark.parametrize("kind", ["run", "version"])
def test_scores_are_those_of_the_model(exported, version, kind):
    scorer = (
        _run_scorer(exported) if kind == "run" else SavedModelScorer(version)
    )
    ids, raw = exported_model.requests(3, [0, 1, 7, 23])
    is_behavior, is_candidate = ids["behavior_time"] > 0, ids["candidate_mask"]
    requests = []
    for row in range(4):
        request = {name: value[row] for name, value in raw.items()}
        for name in request:
            if name.startswith("behavior_"):
                request[name] = request[name][is_behavior[row]]
            elif name.startswith("candidate_"):
                request[name] = request[name][is_candidate[row]]
        requests.append(check_request(request, scorer.inputs, f"row {row}"))
    found = score_requests(scorer, requests, batch_size=3)
    expected = exported.expected(ids)
    for row, scores in enumerate(found):
        assert scores.dtype == np.float32
        np.testing.assert_allclose(
            scores, expected[row][is_candidate[row]], rtol=0, atol=1e-6
        )
