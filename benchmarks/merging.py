"""What merging saves on Complete Journey, and what it does to a model.

The log is tokenized by rules that merge ever more. By the first and the last of them a model learns, two epochs over
the same households, and is judged on the validation week: the difference is paired over households and the mean of
several seeds, since two trainings differ by as much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measure import Measured
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training import metrics
from training.evaluate import evaluate_run
from training.holdout import Part
from training.metrics import Floats
from training.pretrain import pretrain_bare
from training.ranking import Slice
from training.recipes import default
from training.run import start
from userfm import complete_journey

Progress = Callable[[str, int, int], None]
Judged = Mapping[Any, float]
"""A figure by user."""

_LINES: Mapping[str, Any] = {"same_item_in_group": True}
_REPEATS: Mapping[str, Any] = {**_LINES, "same_item_within": "1d"}
RULES: Mapping[str, Mapping[str, Any]] = {
    "none": {"same_item_in_group": False},
    "lines": _LINES,
    "repeats": _REPEATS,
    "pairs": {**_REPEATS, "pairs": {"number": 64, "within": "1w", "by": "department"}},
}
EPOCHS, SEEDS = 2, (0, 1)


def run(progress: Progress) -> Measured:
    """Figures by rule: tokens, merged, seconds to tokenize; by the first and the last: ndcg@10, steps, seconds to
    train; and their difference with its interval."""
    with tempfile.TemporaryDirectory() as folder:
        events, items = complete_journey.prepare(Path(folder), progress)
        corpora: dict[str, Corpus] = {}
        for place, (name, rules) in enumerate(RULES.items()):
            progress("tokenize", place, len(RULES))
            schema = declared(rules, Path(folder) / f"{name}.yaml")
            corpora[name] = tokenize(schema, events, items, Path(folder) / name)
        figures: dict[str, float] = {}
        for name, corpus in corpora.items():
            told = corpus.summary
            figures |= {f"{name}.{figure}": told[figure] for figure in ("tokens", "merged", "seconds")}
        first, *_, last = RULES
        values: dict[str, list[Judged]] = {first: [], last: []}
        for seed in SEEDS:
            for name in values:
                judged, cost = _trained(corpora[name], Path(folder) / f"{name}-{seed}", seed, progress)
                values[name].append(judged)
                figures |= {f"{name}.{figure}": value for figure, value in cost.items()}
        return Measured({**figures, **_difference(first, last, values)}, ())


def declared(rules: Mapping[str, Any], path: Path) -> Path:
    """The example's declaration with other rules of merging, as a file."""
    schema = yaml.safe_load(complete_journey.schema_path().read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**schema, "merge": dict(rules)}, sort_keys=False), encoding="utf-8")
    return path


def _trained(corpus: Corpus, folder: Path, seed: int, progress: Progress) -> tuple[Judged, dict[str, float]]:
    """NDCG@10 of each household in the validation week, and what the training cost."""
    recipe = replace(default(corpus), epochs=EPOCHS, seed=seed)
    done = {"steps": 0.0, "train_seconds": 0.0}

    def told(record: Any) -> None:
        done.update(steps=record.step, train_seconds=record.seconds)
        progress(folder.name, record.step, record.steps)

    pretrain_bare(start(corpus, folder, recipe), told)
    found = evaluate_run(folder, corpus, Part.VALIDATION)
    values = found.judged["model"].values[Slice.ALL]["ndcg@10"]
    return dict(zip(found.user_ids.to_pylist(), values.tolist(), strict=True)), done


def _difference(first: str, last: str, values: Mapping[str, Sequence[Judged]]) -> dict[str, float]:
    """Over the households that all runs judge: what merges may change who is left with a basket to predict."""
    users = sorted(set.intersection(*(set(run) for runs in values.values() for run in runs)), key=str)
    mean: dict[str, Floats] = {
        name: np.mean([[run[user] for user in users] for run in runs], axis=0) for name, runs in values.items()
    }
    gap = metrics.paired_bootstrap(mean[last], mean[first])
    apart = [float(np.mean([run[user] for user in users])) for run in values[first]]
    return {
        "households": len(users),
        **{f"{name}.ndcg@10": float(of.mean()) for name, of in mean.items()},
        f"{last}_minus_{first}": gap.mean,
        f"{last}_minus_{first}_low": gap.low,
        f"{last}_minus_{first}_high": gap.high,
        "seeds_apart": max(apart) - min(apart),
    }
