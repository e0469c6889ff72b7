"""What the benchmarks refuse, before any work and in one line."""

import sys

import pytest

from benchmarks.serving.open_loop import import_grpc
from sparsectr.errors import InputError
from tests.commands import ForkedCommands, assert_refused

NO_FOLDER = "no/such is not a folder"


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        *(
            (name, ["--output=no/such/a.json"], f"--output: {NO_FOLDER}")
            for name in (
                "input_pipeline",
                "length_scaling",
                "preparation",
                "serving_latency",
                "speed_memory",
                "table_size",
                "training_memory",
            )
        ),
        (
            "first_result",
            ["--dataset=alibaba", "--data_dir=a", "--output=no/such/a.json"],
            f"--output: {NO_FOLDER}",
        ),
        ("serving_load", ["--plot=no/such/a.png"], f"--plot: {NO_FOLDER}"),
        ("input_pipeline", ["--num_steps=51"], "not exceed --num_batches"),
        ("input_pipeline", ["--data_dir=no/such"], "no/such is not a store"),
        ("input_pipeline", ["--batch_sizes=0"], "--batch_sizes must be ascend"),
        ("length_scaling", ["--lengths=32,16"], "--lengths must be ascending"),
        ("length_scaling", ["--lengths=16"], "2 or more numbers"),
        ("length_scaling", ["--lengths=16,x"], "Received: 16,x"),
        ("length_scaling", ["--lengths=16,1000000000"], "GiB are available"),
        ("preparation", ["--num_behaviors=x"], "--num_behaviors must be"),
        ("preparation", ["--rounds=2"], "--rounds needs --statistics"),
        ("serving_latency", ["--candidates="], "--candidates must be ascend"),
        ("serving_latency", ["--pointwise_lengths=64"], "be among --lengths"),
        ("speed_memory", ["--modes=serving"], "--modes: 'serving' is not"),
        ("speed_memory", ["--num_behaviors=1000000"], "GiB are available"),
        ("speed_report", ["--input=a.json", "--output=no/such"], NO_FOLDER),
        ("speed_report", [f"--input={__file__}", "--output=."], "is not of"),
        ("table_size", ["--num_rows=2,50"], "at least 3"),
        ("table_size", ["--num_rows=50,2000000000"], "GiB are available"),
    ],
)
def test_refuses_in_one_line(
    command: ForkedCommands, name: str, flags: list[str], message: str
) -> None:
    result = command(f"benchmarks.{name}", *flags)
    assert_refused(result, message)
    assert result.stdout == ""


def test_needs_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(InputError, match="needs grpcio"):
        import_grpc()
