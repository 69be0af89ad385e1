"""Events learned in a second by our training step, beside those of RecTools' and of RePlay's SASRec.

Equal for all three: the events (each user's last ones), width 64, 2 blocks, 2 heads, dropout .2, histories of 200
events on MovieLens 1M and of 50 on Beauty, a softmax over the whole catalogue at every position, and one thread. An
event is a position that is no padding and has a target; a pass over either log has as many of them for each system,
and the benchmark ends with an error where it has not. Ours reads as far back as the others, which is farther than the
recipe `ordered` does (64 tokens); in all else it is that recipe, with a feed-forward of four times the width where
theirs has once, and its text vectors, clipping and average of weights.

Each system has batches of the size at which it is fastest: all of `sizes` are tried first, and the best of three turns
decides. Then turns are taken one system after another; a turn is a number of events, its batches are made before the
clock starts. The peers' own modules, losses and optimisers run in their own environments (benchmarks/peers/steps.py),
without the overhead of their trainer. The bar is held against the faster of the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.logs import Log, corpus_of
from benchmarks.measure import PAIRS, Floats, Measured, at_least, estimate, readings_in_turns
from benchmarks.peers.environments import HERE, Peer, environment
from foundation.lesson import Lesson
from foundation.objectives.contests import wanted
from tokenization.corpus.corpus import Corpus
from training.averaging import Average
from training.beginning import initial_model
from training.data import Position, lessons
from training.optimisers import Optimisers
from training.parallel import Ranks, place
from training.recipes import Recipe, ordered, with_overrides
from training.step import make_step
from training.training_set import TrainingSet, kept, meetings, read_training_set

Progress = Callable[[str, int, int], None]

SCRIPT = HERE / "steps.py"
WIDTH, BLOCKS, HEADS, DROPOUT, THREADS = 64, 2, 2, 0.2, 1
TRIES = 3


@dataclass(frozen=True)
class Setting:
    """name: in the figures. length: of a history. events: of a turn, a second or two of ours. bar: how many times as
    many events a second as the faster peer."""

    name: str
    length: int
    events: int
    bar: float


SETTINGS: Mapping[Log, Setting] = {
    Log.ML_1M: Setting("ml1m", length=200, events=20_000, bar=1.2),
    Log.BEAUTY: Setting("beauty", length=50, events=3_000, bar=3.0),
}


class Steps(Protocol):
    """A system that trains. sizes: of batches that are tried."""

    sizes: Sequence[int]

    def turn(self, size: int, events: int) -> float:
        """Events learned in a second, of at least so many, in batches of that size."""


def measured(log: Log, folder: Path, peers: Path, progress: Progress, pairs: int = PAIRS) -> Measured:
    """Figures of one log, by system: NAME_SYSTEM_events_per_second and the size of its batches; NAME_speedup.

    folder: where the log's corpus and what the peers read go. peers: where their environments are kept. Raises
    RuntimeError where a peer fails, or learns other events.
    """
    setting, corpus = SETTINGS[log], corpus_of(log, folder, progress)
    recipe = equal_recipe(corpus, setting.length)
    rows = last_events(read_training_set(corpus, recipe.model), recipe, setting.length)
    path = folder / f"{setting.name}-events.parquet"
    write_events(rows, recipe, path)
    with _threads(THREADS), ExitStack() as running:
        systems: dict[str, Steps] = {"": Ours(rows, corpus, recipe)}
        for peer in Peer:
            started = running.enter_context(Theirs(peer, environment(peer, peers), path, setting.length))
            started.check(events_of(rows), int((rows.count_V > 0).sum()))
            systems[f"{peer}_"] = started
        sizes = {}
        for number, (name, system) in enumerate(systems.items()):
            progress(f"{setting.name}: sizes of batches", number, len(systems))
            sizes[name] = fastest(system, setting.events // 2)
        turns = [partial(system.turn, sizes[name], setting.events) for name, system in systems.items()]
        told = partial(progress, f"{setting.name}: three systems in turns")
        found = dict(zip(systems, readings_in_turns(turns, pairs, told), strict=True))
    return judged(setting, found, sizes)


def judged(setting: Setting, found: Mapping[str, Floats], sizes: Mapping[str, int]) -> Measured:
    """found: events a second of each turn, [pairs], by the system's name in figures; ours has none."""
    figures: dict[str, float] = {}
    for name, rate in found.items():
        figures[f"{setting.name}_{name}events_per_second"] = float(np.median(rate))
        figures[f"{setting.name}_{name}batch"] = sizes[name]
    faster = max((name for name in found if name), key=lambda name: float(np.median(found[name])))
    over, name = estimate(found[""] / found[faster]), f"{setting.name}_speedup"
    figures |= {name: over.median, f"{name}_low": over.low, f"{name}_high": over.high}
    return Measured(figures, (at_least(name, over, setting.bar),))


def fastest(system: Steps, events: int) -> int:
    """The size of batches with the best turn; the first turn of each size is for warming up and can't be it."""
    best = {size: max([system.turn(size, events) for _ in range(TRIES + 1)][1:]) for size in system.sizes}
    return max(best, key=lambda size: best[size])


def equal_recipe(corpus: Corpus, length: int) -> Recipe:
    """The recipe for logs of an order, as wide, deep and far-sighted as the peers are, with a softmax over everything.

    A row has one token more than a history: the last is a target only.
    """
    equal = {"width": WIDTH, "layers": BLOCKS, "heads": HEADS, "dropout": DROPOUT, "windows": length}
    asked = {"history": length + 1, "requests": length, "full_below": len(corpus.tokenizer.items)}
    return with_overrides(ordered(corpus), {name: str(value) for name, value in {**equal, **asked}.items()})


def last_events(training_set: TrainingSet, recipe: Recipe, length: int) -> TrainingSet:
    """Only what a peer reads of each user: the last events, so many that each of `length` positions has a target."""
    events = training_set.events
    to_end_T = events.offset_B1[1:][events.user_T] - torch.arange(events.tokens)
    events = kept(events, to_end_T <= length + 1)
    return replace(training_set, events=events, count_V=meetings(events, recipe.model))


def events_of(rows: TrainingSet) -> int:
    """Events that a pass learns: all of a user but the first."""
    return int((rows.events.offset_B1.diff() - 1).clamp(min=0).sum())


def write_events(rows: TrainingSet, recipe: Recipe, path: Path) -> None:
    """The same events as the long table that peers read."""
    events = rows.events
    position_T = torch.arange(events.tokens) - events.offset_B1[:-1][events.user_T]
    columns = {"user_id": events.user_T, "item_id": events.facet_TF[:, recipe.model.item_column]}
    columns["position"] = position_T
    pq.write_table(pa.table({name: column.numpy() for name, column in columns.items()}), path)


def learned(lesson: Lesson) -> int:
    """Events that a lesson learns."""
    return len(wanted(lesson.targets[0]).item_E)


class Ours:
    """Steps as the training loop takes them, in this process."""

    sizes: Sequence[int] = (1_024, 2_048, 4_096, 8_192, 16_384)  # tokens

    def __init__(self, rows: TrainingSet, corpus: Corpus, recipe: Recipe) -> None:
        model = initial_model(rows, corpus, recipe).train()
        self._rows, self._recipe, self._step = rows, recipe, 0
        self._placed = place(model, recipe.parallelism, recipe.objectives, Ranks.alone(), torch.device("cpu"))
        self._optimisers = Optimisers(self._placed.model, recipe.optimisation)
        self._average = Average(self._placed.model, recipe.optimisation.average)
        self._streams: dict[int, Iterator[tuple[Position, Lesson]]] = {}

    def turn(self, size: int, events: int) -> float:
        """See `Steps`. size: tokens of a batch."""
        held, found = list[Lesson](), 0
        while found < events:
            held.append(next(self._lessons(size))[1])
            found += learned(held[-1])
        return found / sum(map(self._seconds, held))

    def _seconds(self, lesson: Lesson) -> float:
        start = time.perf_counter()
        make_step(self._placed, self._optimisers, (lesson,), self._recipe, self._step, 1.0)
        self._average.follow()
        self._step += 1
        return time.perf_counter() - start

    def _lessons(self, size: int) -> Iterator[tuple[Position, Lesson]]:
        if size not in self._streams:
            recipe, sampling = self._recipe, replace(self._recipe.sampling, tokens=size)
            self._streams[size] = lessons(
                self._rows, recipe.model, sampling, recipe.seed, Position(), objectives=recipe.objectives
            )
        return self._streams[size]


class Theirs:
    """A peer's steps, in a process of its own that waits between turns."""

    sizes: Sequence[int] = (16, 32, 64, 128, 256)  # rows

    def __init__(self, peer: Peer, python: Path, events: Path, length: int) -> None:
        task = {"system": peer, "events": str(events), "width": WIDTH, "blocks": BLOCKS, "heads": HEADS}
        task |= {"dropout": DROPOUT, "length": length, "threads": THREADS}
        self._told, self._said = (events.with_name(f"{events.stem}-{peer}.{kind}") for kind in ("json", "log"))
        self._told.write_text(json.dumps(task), encoding="utf-8")
        # -P: what lies beside the script is nothing that it means to import.
        self._command = [str(python), "-P", str(SCRIPT), str(self._told)]
        self._peer = peer

    def __enter__(self) -> Self:
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
            )
        self._whole = self._answer()
        return self

    def __exit__(self, *of_error: object) -> None:
        with suppress(BrokenPipeError):
            self._pipe(self._process.stdin).close()
        self._process.wait()

    def check(self, events: int, items: int) -> None:
        """Raises RuntimeError where it learns other events than these in a pass, or of another catalogue."""
        if self._whole != {"events": events, "items": items}:
            raise RuntimeError(f"{self._peer} learns {self._whole} in a pass, ours {events} events of {items} items")

    def turn(self, size: int, events: int) -> float:
        """See `Steps`. size: rows of a batch."""
        with suppress(BrokenPipeError):  # why it ended is for `_answer` to say
            asking = self._pipe(self._process.stdin)
            asking.write(json.dumps({"rows": size, "events": events}) + "\n")
            asking.flush()
        found = self._answer()
        return found["events"] / found["seconds"]

    def _answer(self) -> dict[str, float]:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            said = self._said.read_text(encoding="utf-8")
            raise RuntimeError(f"{self._peer} failed on {self._told}: {said[-2000:]}")
        found: dict[str, float] = json.loads(line)
        return found

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
