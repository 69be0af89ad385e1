from __future__ import annotations

from importlib import import_module

import pytest
from rich.console import Console

from benchmarks.__main__ import MODULES, commit, machine, main, table
from benchmarks.measure import Bar, Measured
from training.verdicts import Outcome


@pytest.mark.parametrize("name", MODULES)
def test_every_name_is_a_benchmark(name: str) -> None:
    assert callable(import_module(MODULES[name]).run)


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["tokenise", "--json", "x.json"])
    assert left.value.code == 2
    assert "tokenize" in capsys.readouterr().err


def test_what_is_missed_is_printed_as_missed() -> None:
    measured = Measured({"ratio": 3.25, "rows": 1_234_567}, (Bar("ratio", 3.25, 2.5, Outcome.MISSED),))
    console = Console(record=True, width=80)
    console.print(table("some", measured))
    text = console.export_text()
    assert "missed" in text
    assert "3.25" in text
    assert "1,234,567" in text


def test_figures_say_what_they_were_taken_on() -> None:
    assert commit()
    told = machine()
    assert set(told) == {"system", "processor", "cores", "device", "memory_gib", "python"}
    assert isinstance(told["cores"], int)
