"""One training and how it was judged on validation, kept on disk under a name made of everything that decides it.

A series of trials that was cut off goes on where it stopped. The name covers the code too, so no figure outlives the
code that it is of.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from training import metrics
from training.holdout import Columns, Part, hold_out
from training.metrics import Floats, Interval
from training.pretrain import pretrain_bare
from training.ranking import Slice, evaluate
from training.recipes import Recipe
from training.run import start
from training.scorers import model_scorers
from training.training_set import Until

Progress = Callable[[str, int, int], None]

ROOT = Path(__file__).parent.parent
CODE = ("tokenization", "foundation", "training")
FIGURES = {
    "model": ("model", Slice.ALL, "ndcg@10"),
    "embedding": ("embedding", Slice.ALL, "ndcg@10"),
    "new": ("model", Slice.NEW, "recall@50"),
    "target_aware": ("target_aware", Slice.ALL, "ndcg@10"),
    "interests": ("interests", Slice.ALL, "ndcg@10"),
}
"""What is kept of a trial: a figure a user. `target_aware` and `interests` only where the model has such scores."""


@dataclass(frozen=True)
class Trial:
    """A recipe with its seed, trained on a corpus to the end of the recipe.

    told: whether it is judged with the time and the context of the group to predict. until: how far into the log it
    learns; what is judged on validation must not have learned it.
    """

    corpus: Path
    recipe: Recipe
    told: bool = True
    until: Until = Until.VALIDATION

    @property
    def key(self) -> str:
        """sha256 hex over the recipe, the corpus's tokenizer and split, and the code."""
        corpus = Corpus.open(self.corpus)
        split = json.dumps({**asdict(corpus.split), "told": self.told, "until": self.until})
        decides = [self.recipe.to_json(), corpus.tokenizer.fingerprint, split, code_hash()]
        return hashlib.sha256("\n".join(decides).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: of each user (as text, in the order of the corpus) each figure, NaN where it has none.

    seconds: of processor time that the training took, whatever else the machine did.
    """

    users: list[str]
    values: dict[str, list[float]]
    steps: int
    seconds: float
    parameters: int

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`."""
        return cls(**json.loads(text))


@cache
def code_hash() -> str:
    """sha256 hex over the sources that decide a figure."""
    digest = hashlib.sha256()
    for path in sorted(path for package in CODE for path in (ROOT / package).rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def run_trials(
    trials: Mapping[str, Trial], cache: Path, workers: int, progress: Progress
) -> Iterator[tuple[str, Outcome]]:
    """Every trial's outcome by its name, those that are in the cache first. workers: processes of one thread each, so
    that a trial takes the same steps whatever runs beside it."""
    cache.mkdir(parents=True, exist_ok=True)
    left: dict[str, list[str]] = {}
    done = 0
    for name, trial in trials.items():
        path = cache / f"{trial.key}.json"
        if path.exists():
            done += 1
            yield name, Outcome.from_json(path.read_text())
        else:
            left.setdefault(trial.key, []).append(name)
    progress("trials", done, len(trials))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_run, trials[names[0]], cache / f"{key}.json"): names for key, names in left.items()}
        for finished in as_completed(waiting):
            for name in waiting[finished]:
                done += 1
                progress("trials", done, len(trials))
                yield name, finished.result()


def _run(trial: Trial, path: Path) -> Outcome:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run, steps = start(Corpus.open(trial.corpus), Path(folder) / "run", trial.recipe), [0]
        began = time.process_time()
        pretrain_bare(run, lambda record: steps.append(record.step))
        outcome = judged(run.folder, trial, steps[-1], time.process_time() - began)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(outcome.to_json())
    fresh.rename(path)
    return outcome


def judged(run: Path, trial: Trial, steps: int, seconds: float) -> Outcome:
    """How a finished run does on the validation part."""
    corpus, subgraph = Corpus.open(trial.corpus), Subgraph.from_pretrained(run / "model")
    tokenizer = corpus.tokenizer
    holdout = hold_out(corpus.tokens(), Columns.of(tokenizer), corpus.split, Part.VALIDATION, trial.told)
    found = evaluate(holdout, model_scorers(subgraph), len(tokenizer.items))
    values = {
        name: found.judged[scorer].values[slice_][metric].tolist()
        for name, (scorer, slice_, metric) in FIGURES.items()
        if scorer in found.judged
    }
    parameters = sum(weight.numel() for weight in subgraph.model.parameters())
    return Outcome([str(user) for user in found.user_ids.to_pylist()], values, steps, seconds, parameters)


def mean_by_user(outcomes: Sequence[Outcome], figure: str, users: Sequence[str]) -> Floats:
    """[U] of these users, the mean over several seeds."""
    rows = []
    for outcome in outcomes:
        at = dict(zip(outcome.users, outcome.values[figure], strict=True))
        rows.append([at[user] for user in users])
    return np.asarray(np.mean(rows, axis=0))


def difference(on: Sequence[Outcome], figure: str, off: Sequence[Outcome], beside: str) -> Interval:
    """Mean of on − off over the users that all have, seeds averaged, with the 95 % interval over users.

    figure, beside: what is compared of the one, and of the other."""
    users = sorted(set.intersection(*(set(outcome.users) for outcome in (*on, *off))))
    return metrics.paired_bootstrap(mean_by_user(on, figure, users), mean_by_user(off, beside, users))


def spread(outcomes: Sequence[Outcome], figure: str) -> tuple[float, float]:
    """Mean over the seeds, and half of what lies between the best and the worst of them."""
    means = [metrics.mean(np.array(outcome.values[figure])) for outcome in outcomes]
    return float(np.mean(means)), (max(means) - min(means)) / 2


def settings_hash(recipe: Recipe) -> str:
    """Eight hex digits over a recipe without its seed."""
    told: dict[str, Any] = json.loads(recipe.to_json())
    return hashlib.sha256(json.dumps({**told, "seed": 0}, sort_keys=True).encode()).hexdigest()[:8]
