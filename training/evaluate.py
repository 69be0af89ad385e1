"""Judge a trained run, beside the baselines, on what its corpus holds out.

The model is compared with what it has to beat on the same requests, so every comparison is paired over users.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from foundation.card import judged_card
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.tokenizer.split import Split
from training import baselines, metrics
from training.errors import EvaluationError, RunError
from training.holdout import Columns, Part, Scorer, hold_out
from training.ranking import Evaluation, Progress, Slice, evaluate
from training.reading import tokens_for
from training.scorers import model_scorers
from training.surface import surface_of
from training.training_set import Until


def evaluate_run(
    run: str | Path,
    corpus: Corpus,
    part: Part = Part.TEST,
    told: bool = True,
    progress: Progress | None = None,
    surface: str | None = None,
) -> Evaluation:
    """Judge a trained run on the corpus it was trained on, beside the baselines: the rows `embedding`, `model`,
    `popularity`, `personal_count` and `personal_decayed`.

    Args:
        run: the folder that training wrote.
        corpus: its corpus, or one of a later revision of its schema, of which it reads what it knows.
        part: the test part, or the validation part to choose settings on.
        told: whether the model knows time and context of the group that it has to predict.
        progress: told "evaluate", users done, users in all.
        surface: what alone is asked for, written `store=367`.

    Raises:
        EvaluationError: if the run has learned the part, or was trained with another split than the corpus has.
        RunError: if the folder is no run, or its model can't read the corpus's tokens.
    """
    refuse_other_split(Path(run), corpus.split, part)
    subgraph = Subgraph.from_pretrained(Path(run) / "model")
    tokenizer = subgraph.tokenizer
    tokens, items = tokens_for(tokenizer, corpus), len(tokenizer.items)
    columns = Columns.of(tokenizer, None if surface is None else surface_of(surface, tokenizer))
    holdout = hold_out(tokens, columns, corpus.split, part, told)
    scorers = {
        **model_scorers(subgraph),
        **standard_baselines(tokens, columns, corpus.split, part, items, tokenizer.schema.time is not None),
    }
    found = evaluate(holdout, scorers, items, progress)
    found.protocol.update(split=asdict(corpus.split), part=part, told=list(columns.context) if told else [])
    return found if surface is None else replace(found, protocol={**found.protocol, "surface": surface})


def note_on_card(run: Path, figures: Mapping[str, Any]) -> None:
    """Put the figures of the test part on the model card of a run, in place of earlier ones; `Evaluation.figures`."""
    card = run / "model" / "README.md"
    if not card.exists():
        return
    protocol = figures["protocol"]
    rows = [f"split: {_words(Split(**protocol['split']))}; told {', '.join(protocol['told']) or 'nothing'}"]
    names = ("model", "embedding", "popularity", "personal_decayed")
    for name, metric in itertools.product(names, ("recall@10", "ndcg@10")):
        ends = figures["intervals"][name]["all"][metric]
        rows.append(f"{name}, {metric}: {figures[name]['all'][metric]:.4f} ({ends['low']:.4f} to {ends['high']:.4f})")
    fresh = run / "card.tmp"
    fresh.write_text(judged_card(card.read_text(encoding="utf-8"), rows), encoding="utf-8")
    fresh.rename(card)


def refuse_other_split(run: Path, split: Split, part: Part = Part.TEST) -> None:
    """Make sure that nothing a run was fitted on is what it will be judged on.

    Raises:
        RunError: if `run/run.json` can't be read.
        EvaluationError: if the run has learned the part or recorded another split.
    """
    try:
        told = json.loads((run / "run.json").read_text(encoding="utf-8"))
        recorded, until = Split(**told["split"]), Until(told["until"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run} is no training run (run.json: {error}); make one with `userfm train`") from error
    if until is Until.END:
        raise EvaluationError(f"{run} was trained on all data, so nothing is left to judge it on; train it without")
    if part is Part.VALIDATION and until is not Until.VALIDATION:
        raise EvaluationError(f"{run} has learned the validation part (--refit): judge it on the test part")
    if recorded != split:
        raise EvaluationError(
            f"{run} was trained with the split {_words(recorded)} and the corpus has {_words(split)}; "
            "evaluate it on its own corpus, or train on this one"
        )


def _words(split: Split) -> str:
    return ", ".join(f"{name}={value}" for name, value in asdict(split).items() if value is not None)


def standard_baselines(
    tokens: pa.Table, columns: Columns, split: Split, part: Part, items: int, clock: bool
) -> dict[str, Scorer]:
    """`popularity`, `personal_count`, `personal_decayed` as every report names them.

    With times and one cut for everybody, popularity is that of the 28 days before it and the half-life 112 days.
    Otherwise popularity is that of the whole log before the split, and a log without times has its half-life, in
    positions, tuned on validation.
    """
    holdout = hold_out(tokens, columns, split, part)
    cut = split.time if part is Part.TEST else split.validation
    if cut is not None and clock:
        popular_V = baselines.item_popularity(holdout.before, items, cut)
    else:
        popular_V = baselines.item_popularity(holdout.before, items, math.inf, math.inf)
    half_life = baselines.HALF_LIFE_DAYS * baselines.DAY
    if not clock:
        half_life = _tuned_half_life(tokens, columns, split, items)
    return {
        "popularity": baselines.popularity(popular_V),
        "personal_count": baselines.personal_count(popular_V, columns),
        "personal_decayed": baselines.personal_decayed(popular_V, columns, half_life),
    }


def _tuned_half_life(tokens: pa.Table, columns: Columns, split: Split, items: int) -> float:
    validation = hold_out(tokens, replace(columns, surface=None), split, Part.VALIDATION)
    popular_V = baselines.item_popularity(validation.before, items, math.inf, math.inf)

    def judge(half_life: float) -> float:
        scorer = baselines.personal_decayed(popular_V, columns, half_life)
        found = evaluate(validation, {"it": scorer}, items).judged["it"]
        return metrics.mean(found.values[Slice.ALL]["ndcg@10"])

    return baselines.best_half_life(judge, 2.0 ** np.arange(1, 10))
