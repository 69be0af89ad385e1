"""What a small model keeps of a large one, and what it gains by having been taught."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.distillation import measured, share

TEACHER = np.tile([0.2, 0.4, 0.0, 0.4], 100)


def judged(distilled: float, alone: float) -> dict[str, dict[str, np.ndarray]]:
    """Households of which each keeps so much of what the teacher has."""
    of = {"teacher": TEACHER, "distilled": distilled * TEACHER, "alone": alone * TEACHER}
    return {name: {"model": values, "embedding": values / 2} for name, values in of.items()}


def test_a_student_that_keeps_enough_and_beats_itself_alone_meets_every_bar() -> None:
    found = measured(judged(0.99, 0.95), smaller=9.5)
    assert {bar.name: str(bar.verdict) for bar in found.bars} == {"kept": "met", "smaller": "met", "gained": "met"}
    assert found.figures["kept"] == pytest.approx(0.99)
    assert found.figures["gained"] == pytest.approx(0.04 * TEACHER.mean())
    assert found.figures["embedding_gained"] == pytest.approx(0.02 * TEACHER.mean())


def test_what_falls_short_is_missed() -> None:
    found = measured(judged(0.9, 0.95), smaller=7.5)
    assert {str(bar.verdict) for bar in found.bars} == {"missed"}


def test_the_share_that_is_kept_has_an_interval_over_households() -> None:
    draw = np.random.default_rng(0)
    whole = draw.random(500)
    found = share(whole * draw.choice([0.8, 1.2], 500), whole)
    assert found.low < found.median < found.high
    assert found.median == pytest.approx(1.0, abs=0.03)
