"""What a command shows while it works, in a terminal and without one."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from training.progress import StepRecord
from userfm.cli.console import describe, figures, place, results, seconds_left, share_done, stages, training


def step(number: int, seconds: float = 10.0) -> StepRecord:
    return StepRecord(number, 100, seconds, 3.25, {}, 50_000, 5_000.0, 0.01, 1.0)


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=terminal, width=100), screen


def test_without_a_terminal_each_stage_is_one_line_when_it_is_done() -> None:
    plain, screen = console(terminal=False)
    with stages(plain) as progress:
        progress("read", 0, 1)
        progress("read", 1, 1)
        for done in range(0, 3001, 1000):
            progress("tokenize", done, 3000)
    lines = screen.getvalue().splitlines()
    assert [line.split(" (")[0] for line in lines] == ["read", "tokenize: 3,000"]


def test_in_a_terminal_each_stage_has_a_bar() -> None:
    terminal, screen = console(terminal=True)
    with stages(terminal) as progress:
        progress("read", 1, 1)
        progress("tokenize", 500, 3000)
    assert "tokenize" in screen.getvalue()
    assert "500 of 3,000" in screen.getvalue()


def test_results_are_text_and_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    results().print("run[bold]/model")
    assert capsys.readouterr().out == "run[bold]/model\n"


def test_a_training_step_says_time_left_loss_and_speed() -> None:
    assert describe(step(25), math.inf) == "step 25 of 100, 0:30 left, loss 3.250, 5,000 tokens/s"


def test_what_is_used_of_the_device_and_waited_for_is_said_where_it_is_known() -> None:
    told = replace(step(25), mfu=0.314, data_wait=0.02)
    assert figures(told) == "loss 3.250, 5,000 tokens/s, MFU 31.4 %, waiting for data 2 %"


def test_hours_are_said_as_hours() -> None:
    assert place(step(1, seconds=60.0), math.inf) == "step 1 of 100, 1:39:00 left"


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_cuts_no_figure_whatever_its_width(width: int) -> None:
    screen = io.StringIO()
    with training(Console(file=screen, force_terminal=True, width=width)) as on_step:
        on_step(replace(step(25), mfu=0.314, data_wait=0.02))
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\s+", " ", screen.getvalue())
    for told in ("25 of 100", "0:30 left", "loss 3.250", "5,000 tokens/s", "MFU 31.4 %", "2 %"):
        assert told in re.sub(" +", " ", said)


def test_time_left_is_the_nearer_of_the_last_step_and_the_last_minute() -> None:
    assert seconds_left(step(25), math.inf) == pytest.approx(30.0)
    assert seconds_left(step(25), 0.5) == pytest.approx(20.0)
    assert seconds_left(step(25, seconds=40.0), 0.5) == 0.0


def test_what_is_done_is_the_further_of_steps_and_minutes() -> None:
    assert share_done(step(25), math.inf) == 0.25
    assert share_done(step(25), 0.25) == pytest.approx(2 / 3)
    assert share_done(step(25, seconds=40.0), 0.5) == 1.0


@pytest.mark.parametrize("terminal", [True, False])
def test_training_shows_the_first_and_the_last_step(terminal: bool) -> None:
    shown, screen = console(terminal)
    with training(shown) as on_step:
        for number in (1, 2, 100):
            on_step(step(number))
    assert "step 100 of 100" in screen.getvalue()
