import pytest

from data_pipelines.progress import Progress


def test_long_step_prints_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("reading a.csv")
    for now in (104.0, 105.0, 109.0, 111.0):
        progress.report(f"at {now:.0f}")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "reading a.csv: at 105 (5 s)\nreading a.csv: at 111 (11 s)\n"
    )
