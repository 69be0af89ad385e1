"""One graph for batches of every size, the same vectors as the module gives, and no userfm where it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch.export import ExportedProgram

from foundation.config import AttentionConfig, Backend, CandidateConfig, Groups, ItemGate, ModelConfig, Rotary, Switch
from foundation.embedding import item_content
from foundation.errors import ModelError
from foundation.export import exported, exported_inputs
from foundation.jagged import EventBatch, last_times
from foundation.model import FoundationModel
from foundation.pretrained import save
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus

MONTH = 30 * 86_400.0
MEMORY: dict[str, Any] = {"memory": 2, "memory_block": 4, "memory_reach": 3}
FAR = AttentionConfig((6,), sinks=5, **MEMORY, rotary=Rotary.TIME)
AWARE = CandidateConfig(1, 2, 12)
BARE: dict[str, Any] = {"repeat_path": Switch.OFF, "category_affinity": Switch.OFF}
SMALL: dict[str, Any] = {"layers": 1, "attention": FAR, "candidates": AWARE, **BARE}  # traced in seconds
VARIANTS: dict[str, dict[str, Any]] = {
    "memory": {"attention": AttentionConfig((6,), **MEMORY)},
    "memory that nobody needs yet": {"attention": AttentionConfig((4_096,), memory=1)},
    "sinks": {"attention": AttentionConfig((6,), sinks=5)},
    "full": {"attention": AttentionConfig((0,))},
    "mixed layers": {"attention": AttentionConfig((3, 0), sinks=4, **MEMORY)},
    "time": {"attention": AttentionConfig((12,), rotary=Rotary.TIME)},
    "place and time": {"attention": AttentionConfig((12,), rotary=Rotary.BOTH)},
    "sequence": {"groups": Groups.SEQUENCE},
    "attributes": {},
    "no repeat path": {"repeat_path": Switch.OFF},
    "no affinity": {"category_affinity": Switch.OFF},
    "intents": {"intents": ("action", "kind")},
    "target-aware": {"candidates": AWARE},
    "item gate": {"item_gate": ItemGate.AGE},
    "all": {"attention": FAR, "candidates": AWARE, "groups": Groups.SEQUENCE, "intents": ("action",)},
    "all but own items": {"attention": FAR, "intents": ("kind",), **BARE},
}
Make = Callable[[dict[str, Any]], Subgraph]


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


@pytest.fixture
def made(config: ModelConfig, club_corpus: Corpus, shake, tmp_path: Path) -> Make:
    """A model of the club with these settings, which knows what is known of its members."""
    tokenizer = club_corpus.tokenizer
    attributes = tuple(tokenizer.users.sizes.items())

    def one(settings: dict[str, Any]) -> Subgraph:
        torch.manual_seed(0)
        content = item_content(tokenizer.items, torch.from_numpy(tokenizer.items.count).float())
        model = shake(FoundationModel(replace(config, attributes=attributes, **settings), content))
        save(model, tokenizer, tmp_path / "model", "club", 1, 5.0, "# Card\n")
        return Subgraph.from_pretrained(tmp_path / "model")

    return one


def equal_for_every_size(subgraph: Subgraph, club, backend: Backend) -> ExportedProgram:
    """From the smallest example there is: nothing of it, nor of its size, may be left in the graph."""
    events = club.events
    first = [events.filter(pc.equal(events["customer"], name)).slice(0, 1) for name in ("c05", "c06")]
    program = exported(subgraph, subgraph.tokenize(pa.concat_tables(first))[1], backend)
    encode, column = program.module(), events.column_names.index("customer")
    long_life = events.set_column(column, "customer", pa.array(["c07"] * len(events)))
    nothing = events.slice(0, 0)
    sizes = {
        (35, 777): subgraph.tokenize(events, club.users),
        (1, 774): subgraph.tokenize(long_life),
        (2, 2): subgraph.tokenize(pa.concat_tables(first)),
        (1, 1): subgraph.tokenize(first[0]),
        (33, 0): subgraph.tokenize(nothing, club.users),
        (0, 0): subgraph.tokenize(nothing),
    }
    for size, (_, batch) in sizes.items():
        assert (batch.users, batch.tokens) == size
        at_B = batch.start_B + last_times(batch) + MONTH
        torch.testing.assert_close(encode(exported_inputs(batch, at_B)), subgraph(batch, at_B), rtol=1e-5, atol=1e-5)
    return program


def test_memory_sinks_time_and_attributes_are_exported_without_what_candidates_read(made: Make, club) -> None:
    subgraph = made(SMALL)
    program = equal_for_every_size(subgraph, club, Backend.BLOCKED)
    assert subgraph.model.target_attention is not None
    assert not any("target_attention" in name for name in program.state_dict)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, Backend.BLOCKED) for name in VARIANTS), ("mixed layers", Backend.REFERENCE), ("all", Backend.REFERENCE)],
)
def test_every_shape_of_the_model_is_exported(made: Make, club, name: str, backend: Backend) -> None:
    equal_for_every_size(made(VARIANTS[name]), club, backend)


@pytest.mark.parametrize("backend", [Backend.FLEX, Backend.XFORMERS])
def test_a_backend_that_is_more_than_torchs_operators_is_refused(subgraph: Subgraph, kiosk, backend: Backend) -> None:
    batch = batch_of(subgraph, kiosk.events, "c07", "c09")
    with pytest.raises(ModelError, match=f"the {backend} backend can't be part of a graph .* 'blocked' or 'reference'"):
        exported(subgraph, batch, backend)


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
