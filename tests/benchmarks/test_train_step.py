"""What is measured of a step by itself, and that nothing is left out in silence."""

from __future__ import annotations

import pytest

from benchmarks.logs import Log
from benchmarks.train_step import DATA_WAIT, is_here, measured
from tokenization.corpus.corpus import Corpus


def test_a_step_is_measured_beside_its_lesson_and_its_floor(kiosk_corpus: Corpus) -> None:
    found = measured(kiosk_corpus, lambda stage, done, total: None)
    names = {"step_seconds", "tokens_per_second", "tokens", "threads"}
    intervals = {f"{name}{end}" for name in ("data_wait", "time_over_floor") for end in ("", "_low", "_high")}
    assert set(found.figures) == names | intervals
    assert all(value > 0 for value in found.figures.values())
    assert [(bar.name, bar.bar) for bar in found.bars] == [("data_wait", DATA_WAIT)]


def test_a_log_that_is_not_here_is_left_out_loudly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("USERFM_DATA", raising=False)
    assert not is_here(Log.BEAUTY)
    said = capsys.readouterr().err
    assert said.startswith("LEFT OUT: beauty_speedup. beauty is not here: set USERFM_DATA")
