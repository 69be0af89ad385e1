"""One graph for batches of every size, the same vectors as the module gives, and no userfm where it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch.export import ExportedProgram

from foundation.config import Backend
from foundation.errors import ModelError
from foundation.export import exported, exported_inputs
from foundation.jagged import EventBatch, last_times
from foundation.subgraph import Subgraph

MONTH = 30 * 86_400.0


@pytest.fixture(scope="module")
def subgraph(folder: Path) -> Subgraph:
    return Subgraph.from_pretrained(folder)


def batch_of(subgraph: Subgraph, events: pa.Table, *customers: str) -> EventBatch:
    return subgraph.tokenize(events.filter(pc.is_in(events["customer"], pa.array(customers, pa.string()))))[1]


@pytest.fixture(scope="module", params=[Backend.BLOCKED, pytest.param(Backend.REFERENCE, marks=pytest.mark.slow)])
def program(request: pytest.FixtureRequest, subgraph: Subgraph, kiosk) -> ExportedProgram:
    return exported(subgraph, batch_of(subgraph, kiosk.events, "c01", "c02", "c03"), request.param)


def test_batches_of_other_sizes_give_the_modules_vectors(program: ExportedProgram, subgraph: Subgraph, kiosk) -> None:
    encode = program.module()
    everybody = subgraph.tokenize(kiosk.events)[1]
    alone = batch_of(subgraph, kiosk.events, "c07")
    one_event = subgraph.tokenize(kiosk.events.filter(pc.equal(kiosk.events["customer"], "c05")).slice(0, 1))[1]
    assert (one_event.users, one_event.tokens) == (1, 1)
    nobody = subgraph.tokenize(kiosk.events.slice(0, 0))[1]
    for batch in (everybody, alone, one_event, nobody):
        at_B = batch.start_B + last_times(batch) + MONTH
        torch.testing.assert_close(encode(exported_inputs(batch, at_B)), subgraph(batch, at_B), rtol=1e-5, atol=1e-5)


def test_a_moment_before_the_last_event_stops_the_graph(program: ExportedProgram, subgraph: Subgraph, kiosk) -> None:
    batch = batch_of(subgraph, kiosk.events, "c07", "c09")
    with pytest.raises(RuntimeError, match="a row asks for a moment before the user's last event"):
        program.module()(exported_inputs(batch, batch.start_B))


def test_an_example_of_one_user_is_refused(subgraph: Subgraph, kiosk) -> None:
    with pytest.raises(ModelError, match="two users and two events or more: give a larger batch"):
        exported(subgraph, batch_of(subgraph, kiosk.events, "c07"))


def test_a_process_without_userfm_loads_the_file_and_encodes(
    program: ExportedProgram, subgraph: Subgraph, kiosk, tmp_path: Path
) -> None:
    batch = batch_of(subgraph, kiosk.events, "c07", "c09", "c11")
    told = exported_inputs(batch)
    (example,), _ = program.example_inputs
    assert not any(value.any() for value in example.values())  # nobody's events leave with the graph
    torch.export.save(program, tmp_path / "encoder.pt2")
    torch.save(told, tmp_path / "told.pt")
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"foundation", "tokenization", "serving", "training", "userfm", "pyarrow"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
encode = torch.export.load("encoder.pt2").module()
torch.save(encode(torch.load("told.pt")), "vectors.pt")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "vectors.pt"), subgraph(batch), rtol=1e-5, atol=1e-5)
