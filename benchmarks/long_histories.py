"""A training step over rows of 1,024 to 8,192 tokens, with as many tokens a batch: what a long history costs.

Sixteen generated users of more than 8,192 events each, the default recipe. Requests are drawn per row, so a batch of
one long row asks less than one of many short ones; the same is therefore measured with as many requests a batch as
well. Each length has a process of its own for its memory; the longest and the shortest rows are timed in turns.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.generated import write_long_log
from benchmarks.measure import Measured, at_most, estimate, in_turns
from benchmarks.train_step import step_on
from foundation.lesson import Lesson
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.beginning import initial_model
from training.data import Position, lessons
from training.recipes import Recipe, default
from training.training_set import TrainingSet, read_training_set

USERS, EVENTS = 16, 10_240
BUDGET, HISTORIES = 8_192, (1_024, 2_048, 4_096, 8_192)
STEPS = 7
OVER_SHORT = 1.2
"""A step over one row of 8,192 tokens may cost so many times one over eight rows of 1,024."""

Progress = Callable[[str, int, int], None]


def run(progress: Progress) -> Measured:
    """Figures by length: seconds of a step and rss_gib; and how many times as long the longest rows take."""
    with tempfile.TemporaryDirectory() as folder:
        schema, events = write_long_log(Path(folder) / "log", USERS, EVENTS)
        corpus = tokenize(schema, events, None, Path(folder) / "corpus")
        figures: dict[str, float] = {}
        for place, history in enumerate(HISTORIES):
            progress("a process for each length", place, len(HISTORIES))
            figures |= {f"{name}_{history}": value for name, value in _apart(corpus.folder, history).items()}
        shortest, longest = HISTORIES[0], HISTORIES[-1]
        over = {}
        for name, requests in (("over_short", 1), ("over_short_as_many_requests", longest // shortest)):
            found = in_turns(
                _stepping(corpus, longest, requests),
                _stepping(corpus, shortest, 1),
                progress=lambda done, total, name=name: progress(name, done, total),  # type: ignore[misc]
            )
            over[name] = estimate(found[0] / found[1])
            figures |= {name: over[name].median, f"{name}_low": over[name].low, f"{name}_high": over[name].high}
        figures["threads"] = torch.get_num_threads()
        return Measured(figures, (at_most("over_short", over["over_short"], OVER_SHORT),))


def full_lesson(training_set: TrainingSet, recipe: Recipe) -> Lesson:
    """The first lesson that fills its batch with rows of full length."""
    sampling = recipe.sampling
    for _, lesson in lessons(training_set, recipe.model, sampling, recipe.seed, Position()):
        longest = int(lesson.batch.offset_B1.diff().max())
        if lesson.batch.tokens > 0.95 * sampling.tokens and longest > 0.95 * sampling.history:
            return lesson
    raise AssertionError("lessons never end")


def _stepping(corpus: Corpus, history: int, times: int) -> Callable[[], None]:
    """Steps on one lesson of rows of that length, with so many times the requests of the default recipe for each."""
    recipe = default(corpus)
    sampling = replace(recipe.sampling, tokens=BUDGET, history=history, requests=times * recipe.sampling.requests)
    recipe = replace(recipe, sampling=sampling)
    training_set = read_training_set(corpus, recipe.model)
    return step_on(initial_model(training_set, corpus, recipe), recipe, [full_lesson(training_set, recipe)])


def _apart(corpus: Path, history: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.long_histories", str(corpus), str(history)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(corpus: str, history: str) -> None:
    """Train a few steps and say what they took: seconds of one, and the most memory that the process held."""
    step = _stepping(Corpus.open(Path(corpus)), int(history), 1)
    step()  # allocates what the optimisers remember
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    # Not `ru_maxrss`, which begins with that of the process that started this one.
    held = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert held is not None
    print(json.dumps({"seconds": float(np.median(seconds)), "rss_gib": int(held[1]) / 2**20}))


if __name__ == "__main__":
    main(*sys.argv[1:])
