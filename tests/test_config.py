import dataclasses
import json
import re

import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.config import CONTRACT, Config, DataConfig, TrainConfig

CLASSES = [SparseCTRRecipe, DataConfig, TrainConfig]


@pytest.mark.parametrize("config_class", CLASSES)
def test_frozen_and_keyword_only(config_class):
    config = config_class()
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))
    with pytest.raises(TypeError, match="positional argument"):
        config_class(1)


@pytest.mark.parametrize("config_class", CLASSES)
def test_every_field_has_a_help_text(config_class):
    for field in dataclasses.fields(config_class):
        assert field.metadata["help"].endswith("."), field.name


def test_defaults_are_sparsity_2():
    assert SparseCTRRecipe().with_preset("sparsity-2") == SparseCTRRecipe()


@pytest.mark.parametrize(
    ("preset", "sparsity"),
    [
        ("sparsity-1", (8, 1, 2)),
        ("sparsity-2", (16, 2, 5)),
        ("sparsity-3", (16, 3, 10)),
        ("sparsity-4", (32, 4, 20)),
    ],
)
def test_presets_are_those_of_the_paper(preset, sparsity):
    before = SparseCTRRecipe(width=64, num_heads=4)
    model = before.with_preset(preset)
    found = (model.num_chunks, model.num_transition, model.num_local)
    assert found == sparsity
    assert (model.width, model.num_heads) == (64, 4)


def test_unknown_preset():
    message = (
        "`preset` must be one of sparsity-1, sparsity-2, sparsity-3, "
        "sparsity-4, nsa_published. Received: preset='sparsity-5'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        SparseCTRRecipe().with_preset("sparsity-5")


AT_LEAST_1 = {
    SparseCTRRecipe: (
        "width",
        "embedding_dim",
        "num_blocks",
        "num_heads",
        "num_chunks",
        "num_transition",
        "num_local",
        "max_history",
    ),
    DataConfig: ("max_history",),
    TrainConfig: (
        "batch_size",
        "eval_batch_size",
        "epochs",
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
    ),
}
NOT_NEGATIVE = ("max_steps", "num_devices", "seed", "embedding_learning_rate")
BAD = [
    *[
        (config_class, name, 0, f"`{name}` must be at least 1.")
        for config_class, names in AT_LEAST_1.items()
        for name in names
    ],
    *[
        (TrainConfig, name, -1, f"`{name}` must not be negative.")
        for name in NOT_NEGATIVE
    ],
    (TrainConfig, "learning_rate", 0.0, "`learning_rate` must be positive."),
    (TrainConfig, "learning_rate", float("nan"), "must be finite."),
    (TrainConfig, "embedding_learning_rate", float("inf"), "must be finite."),
    (SparseCTRRecipe, "num_heads", 5, "`num_heads` must divide width=32."),
    (
        SparseCTRRecipe,
        "num_registers",
        -1,
        "`num_registers` must not be negative.",
    ),
    (
        SparseCTRRecipe,
        "attention",
        "half",
        "must be one of evo, full, ",
    ),
    (
        SparseCTRRecipe,
        "encoding",
        "",
        "must be one of rel_temporal, ",
    ),
    (SparseCTRRecipe, "dropout_rate", 1.0, "must be at least 0 and below 1."),
    (SparseCTRRecipe, "dropout_rate", -0.1, "must be at least 0 and below 1."),
    (DataConfig, "length_buckets", (8, 8), "must be positive and ascending."),
    (DataConfig, "length_buckets", (0, 8), "must be positive and ascending."),
    (DataConfig, "candidate_buckets", (2, 1), "must be positive and ascend"),
]


@pytest.mark.parametrize(("config_class", "name", "value", "message"), BAD)
def test_a_value_against_a_rule(config_class, name, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        config_class(**{name: value})
    assert str(error.value).endswith(f"Received: {name}={value!r}")


def test_values_on_the_edge_are_allowed():
    SparseCTRRecipe(
        **dict.fromkeys(AT_LEAST_1[SparseCTRRecipe], 1), dropout_rate=0.0
    )
    DataConfig(max_history=1, length_buckets=(), candidate_buckets=())
    TrainConfig(
        **dict.fromkeys(AT_LEAST_1[TrainConfig], 1),
        **dict.fromkeys(NOT_NEGATIVE, 0),
    )


CONFIG = Config(
    dataset="movielens",
    model=SparseCTRRecipe(width=48, encoding="none", dropout_rate=0.25),
    data=DataConfig(length_buckets=(3, 7), candidate_buckets=(5,)),
    train=TrainConfig(learning_rate=3e-4, jit_compile=True),
)


@pytest.mark.parametrize("model", [CONFIG.model, MeanPoolingRecipe(width=3)])
def test_json_round_trip(model):
    config = dataclasses.replace(CONFIG, model=model)
    assert Config.from_dict(json.loads(config.to_json())) == config


MODEL = {"name": "sparse_ctr"}


def test_from_dict_fills_in_defaults():
    values = {"contract": CONTRACT, "dataset": "alibaba", "model": MODEL}
    expected = Config(dataset="alibaba", model=SparseCTRRecipe())
    assert Config.from_dict(values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": None}, "Not a configuration: 'dataset'"),
        ({"model": None}, "Not a configuration: 'model'"),
        ({"model": {"width": 3}}, "A model has no name"),
        ({"model": {**MODEL, "hieght": 1}}, "'hieght'"),
        ({"model": {"name": "din2"}}, "must be one of .*mean_pooling.*'din2'"),
        ({"model": {"name": "mean_pooling", "num_heads": 1}}, "'num_heads'"),
        ({"train": {"newest_share": 0}}, "`newest_share` must be above 0"),
        ({"train": {"epochs": 0}}, "`epochs` must be at least"),
        ({"contract": None}, f"of contract 1 .* reads {CONTRACT}: train anew"),
        ({"contract": CONTRACT + 1}, f"of contract {CONTRACT + 1} "),
    ],
)
def test_from_bad_dict(values, message):
    given = {"contract": CONTRACT, "dataset": "a", "model": MODEL, **values}
    given = {name: v for name, v in given.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        Config.from_dict(given)
