import dataclasses
import importlib
import subprocess
import sys

import pytest
from absl import flags

from configs.models.mean_pooling import MeanPoolingRecipe
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr import config_flags
from sparsectr.config import Config, DataConfig, TrainConfig
from sparsectr.errors import InputError

# Every field, and a value that is neither the default nor against a rule.
GIVEN = {
    "model": {
        "width": ("64", 64),
        "embedding_dim": ("48", 48),
        "num_blocks": ("3", 3),
        "num_heads": ("4", 4),
        "num_chunks": ("9", 9),
        "num_transition": ("7", 7),
        "num_local": ("11", 11),
        "num_candidate_local": ("13", 13),
        "attention": ("full", "full"),
        "longest_history": ("2048", 2048),
        "num_keys": ("31", 31),
        "num_local_heads": ("4", 4),
        "num_first": ("3", 3),
        "num_recent": ("9", 9),
        "semi_local_candidates": ("all", "all"),
        "nsa_block": ("32", 32),
        "nsa_stride": ("32", 32),
        "nsa_selected_block": ("32", 32),
        "nsa_num_selected": ("3", 3),
        "nsa_num_forced": ("2", 2),
        "chunking": ("fixed", "fixed"),
        "max_history": ("97", 97),
        "encoding": ("none", "none"),
        "branches": ("global,local", ("global", "local")),
        "temporal_biases": ("time,hour", ("time", "hour")),
        "boundary_sinks": ("true", True),
        "num_registers": ("3", 3),
        "output_gate": ("head", "head"),
        "sink": ("learned", "learned"),
        "head_units": ("16,8", (16, 8)),
        "head_activation": ("dice", "dice"),
        "dropout_rate": ("0.25", 0.25),
        "hidden_training_fields": ("0.5", 0.5),
    },
    "data": {
        "max_history": ("77", 77),
        "history_delay": ("60", 60),
        "length_buckets": ("10,20", (10, 20)),
        "candidate_buckets": ("5", (5,)),
        "leave_out": ("statistics,user_age", ("statistics", "user_age")),
        "shuffle_shards": ("3", 3),
    },
    "train": {
        "batch_size": ("8", 8),
        "eval_batch_size": ("9", 9),
        "epochs": ("2", 2),
        "newest_share": ("0.3", 0.3),
        "max_steps": ("10", 10),
        "learning_rate": ("1e-4", 1e-4),
        "embedding_learning_rate": ("2e-3", 2e-3),
        "learning_rate_schedule": ("cosine", "cosine"),
        "warmup_steps": ("12", 12),
        "weight_decay": ("0.02", 0.02),
        "embedding_weight_decay": ("0.03", 0.03),
        "clip_norm": ("1.5", 1.5),
        "ema_decay": ("0.99", 0.99),
        "seed": ("3", 3),
        "mixed_precision": ("true", True),
        "jit_compile": ("false", False),
        "num_devices": ("2", 2),
        "compile_least_rows": ("7", 7),
        "validation": ("true", True),
        "validate_every": ("5", 5),
        "patience": ("2", 2),
        "checkpoint_every": ("11", 11),
        "keep_checkpoints": ("4", 4),
        "log_every": ("6", 6),
    },
}
CLASSES = {"model": SparseCTRRecipe, "data": DataConfig, "train": TrainConfig}
PREFIXES = {"model": "model.", "data": "data.", "train": ""}
FIELDS = [
    (part, field.name)
    for part, config_class in CLASSES.items()
    for field in dataclasses.fields(config_class)
    # Has one value for this model; see below.
    if field.name != "gap_to_request"
]


def config_of(*arguments: str) -> Config:
    values = flags.FlagValues()
    config_flags.define_config_flags(values, arguments)
    values(["program", *arguments])
    return config_flags.config_from_flags(values)


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_each_flag_sets_its_field_and_no_other(part, name):
    text, value = GIVEN[part][name]
    recipe = config_of("--dataset=alibaba")
    assert getattr(getattr(recipe, part), name) != value

    changed = config_of("--dataset=alibaba", f"--{PREFIXES[part]}{name}={text}")

    values = dataclasses.replace(getattr(recipe, part), **{name: value})
    assert changed == dataclasses.replace(recipe, **{part: values})
    assert type(getattr(getattr(changed, part), name)) is type(value)


def test_gaps_are_read_in_score_where_a_model_can() -> None:
    flag = "--model.gap_to_request=score"
    config = config_of("--dataset=alibaba", "--model.name=din", flag)
    assert config.model.gap_to_request == "score"
    message = r"^--model.gap_to_request must be encode_user for sparse_ctr, "
    with pytest.raises(InputError, match=message):
        config_of("--dataset=alibaba", flag)


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_help_shows_text_and_default(part, name):
    values = flags.FlagValues()
    config_flags.define_config_flags(values, [])
    field = next(f for f in dataclasses.fields(CLASSES[part]) if f.name == name)
    flag = values[PREFIXES[part] + name]
    assert flag.default is None
    assert field.metadata["help"] in flag.help
    default = flag.help.rpartition("(default: ")[2].removesuffix(")")
    assert flag.parser.parse(default) == field.default


@pytest.mark.parametrize("dataset", config_flags.DATASETS)
def test_without_flags_it_is_the_recipe(dataset):
    module = importlib.import_module(f"configs.datasets.{dataset}")
    assert config_of(f"--dataset={dataset}") == module.CONFIG
    assert module.CONFIG.dataset == dataset


@pytest.mark.parametrize("preset", SparseCTRRecipe.presets)
def test_preset(preset):
    model = config_of("--dataset=alibaba", f"--model.preset={preset}").model
    assert model == SparseCTRRecipe(**SparseCTRRecipe.presets[preset])


@pytest.mark.parametrize(
    "order",
    [
        ["--model.preset=sparsity-4", "--model.num_local=3"],
        ["--model.num_local=3", "--model.preset=sparsity-4"],
    ],
)
def test_an_explicit_flag_wins_over_the_preset(order):
    model = config_of("--dataset=alibaba", *order).model
    assert (model.num_chunks, model.num_local) == (32, 3)


def test_boolean_by_its_negation():
    config = config_of("--dataset=alibaba", "--nojit_compile")
    assert config.train.jit_compile is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.name=mean_pooling", "--model.width=48"],
        ["--model.width", "48", "--model.name", "mean_pooling"],
        ["-model.width=48", "-model.name=mean_pooling"],
    ],
)
def test_another_model(arguments):
    config = config_of("--dataset=kuairand", *arguments)
    expected = config_of("--dataset=kuairand")
    assert config.model == MeanPoolingRecipe(width=48)
    assert (config.data, config.train) == (expected.data, expected.train)


def test_the_name_of_the_data_sets_own_model_changes_nothing():
    config = config_of("--dataset=kuairand", "--model.name=sparse_ctr")
    assert config == config_of("--dataset=kuairand")


def test_no_length_buckets():
    # Whatever a recipe has: those that fit the store.
    config = config_of("--dataset=alibaba", "--data.length_buckets=")
    assert config.data.length_buckets == ()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.num_heads=7", r"--model.num_heads must divide width=32\."),
        ("--data.length_buckets=9,8", r"--data.length_buckets must be pos"),
        ("--batch_size=0", r"--batch_size must be at least 1\."),
        ("--learning_rate=nan", r"--learning_rate must be finite\."),
        ("--ema_decay=1", r"--ema_decay must be below 1\."),
        ("--weight_decay=-1", r"--weight_decay must not be negative\."),
    ],
)
def test_a_value_against_a_rule(argument, message):
    with pytest.raises(InputError, match=rf"^{message}"):
        config_of("--dataset=alibaba", argument)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batch_size=many", "flag --batch_size=many: invalid literal"),
        ("--data.length_buckets=8,x", "flag --data.length_buckets=8,x: inv"),
        ("--dataset=taobao", "value should be one of <alibaba|eleme|"),
        ("--model.preset=sparse", "should be one of <sparsity-1|sparsity-2"),
        ("--model.num_head=4", "Did you mean: model.num_heads ?"),
        ("--batchsize=4", "Did you mean: batch_size ?"),
        ("--model.attention=half", "should be one of <evo|full|"),
        ("--model.name=sparse", "should be one of <"),
        ("--model.name", "Missing value for flag --model.name"),
    ],
)
def test_a_flag_that_does_not_parse(argument, message):
    with pytest.raises(flags.Error) as error:
        config_of("--dataset=alibaba", argument)
    assert message in str(error.value)


def test_flags_are_those_of_the_model():
    given = ["--dataset=alibaba", "--model.name=mean_pooling"]
    with pytest.raises(flags.UnrecognizedFlagError) as error:
        config_of(*given, "--model.num_chunks=3")
    assert error.value.flagname == "model.num_chunks"
    assert config_flags.whose_flag("model.num_chunks") == (
        "It is one of sparse_ctr; --model.name chooses the model"
    )
    with pytest.raises(flags.Error, match=r"Did you mean: model.width \?"):
        config_of(*given, "--model.widht=3")
    for name in ("model.nothing", "num_chunks", "data.num_chunks"):
        assert config_flags.whose_flag(name) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], []),
        (["--dataset=alibaba", "--batch_size=7", "--model.num_local=3"], []),
        (["--model.preset=sparsity-2"], ["--model.num_local=3, not 5"]),
        (["--model.preset=sparsity-2", "--model.num_local=3"], []),
        (["--dataset=eleme"], ["--dataset=alibaba, not eleme"]),
        (["--num_devices=2"], []),
        (
            ["--nojit_compile", "--data.length_buckets=8,9", "--batch_size=8"],
            [
                "--data.length_buckets=, not 8,9",
                "--batch_size=7, not 8",
                "--jit_compile=true, not false",
            ],
        ),
        (
            ["--model.name=mean_pooling", "--model.width=3"],
            ["--model.name=sparse_ctr, not mean_pooling"],
        ),
    ],
)
def test_contradictions(arguments, expected):
    run = config_of(
        "--dataset=alibaba", "--batch_size=7", "--model.num_local=3"
    )
    values = flags.FlagValues()
    config_flags.define_config_flags(values, arguments)
    values(["program", *arguments])
    assert config_flags.contradictions(run, values) == expected
    where = config_flags.with_topology(run, values)
    assert where.train.num_devices == (
        2 if "--num_devices=2" in arguments else 0
    )
    assert config_flags.all_values(where) == config_flags.all_values(run)


def test_flags_of_a_given_model():
    for arguments in ([], ["--dataset=alibaba"]):
        values = flags.FlagValues()
        config_flags.define_config_flags(values, arguments, "mean_pooling")
        assert "model.num_chunks" not in values
    values = flags.FlagValues()
    named = ["--model.name=sparse_ctr"]
    config_flags.define_config_flags(values, named, "mean_pooling")
    assert "model.num_chunks" in values


def test_dataset_is_missing():
    with pytest.raises(InputError, match=r"^--dataset is missing\. One"):
        config_of()


def test_dataset_without_a_recipe(monkeypatch):
    datasets = (*config_flags.DATASETS, "tomorrow")
    monkeypatch.setattr(config_flags, "DATASETS", datasets)
    with pytest.raises(InputError, match=r"^--dataset=tomorrow is not"):
        config_of("--dataset=tomorrow")


def test_help_of_a_command_shows_the_flags(tmp_path, repository):
    program = tmp_path / "program.py"
    program.write_text(
        '"""Trains."""\n'
        "from sparsectr import config_flags\n"
        "from sparsectr.process import command\n"
        "config_flags.define_config_flags()\n"
        "command.run(print)\n"
    )
    result = subprocess.run(
        [sys.executable, program, "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(repository)},
    )
    for part, name in FIELDS:
        kind = "[no]" if isinstance(GIVEN[part][name][1], bool) else ""
        assert f"--{kind}{PREFIXES[part]}{name}:" in result.stdout
