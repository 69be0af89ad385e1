"""What is new: products first met after the cut, users with one event or none, and how soon a new product is no longer
new.

Every second household of Complete Journey, with what is known of 801 of all households; one pass, as in the ablations,
one seed. Settings were chosen on the validation part; the figures are of the test part, taken once. Beside the model
stand content-kNN and the popularity of a product's category, both tuned on validation too (benchmarks/cold_items.py),
and popularity. Draws docs/figures/velocity.svg.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

from benchmarks import velocity
from benchmarks.ablations import recipe_of
from benchmarks.cold_items import (
    ColdItems,
    category_popularity,
    cold_items,
    content_neighbours,
    grid,
    recall,
    scores,
)
from benchmarks.cold_users import described, knowing_last
from benchmarks.measure import Bar, Estimate, Measured, at_least
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress, Trial
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training import baselines, metrics, ranking
from training.holdout import Columns, Holdout, Part, hold_out
from training.metrics import Floats, Interval
from training.pretrain import pretrain_bare
from training.recipes import Recipe
from training.run import start
from training.scorers import model_scorers
from training.training_set import Until
from userfm import complete_journey

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "gated": {"item_gate": "age", "id_dropout.share": "-1"},
    "without content": {},
}
JOBS = (("default", 0), ("gated", 0), ("without content", 0))
"""Settings and seed of each model."""
FUTURE = {"future": "0.3"}  # the default of a log with times, which the ablations leave out
CACHE = Path("out/cold_start")
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "velocity.svg"
ATTRIBUTES = ("age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count")


@dataclass(frozen=True)
class Found:
    """What one trained model does. cold: recall@50 of each scorer, [U]. users: NDCG@10 by how many events are known.
    gaps: [P] of each pair of `velocity.debuts`, log2 of its place."""

    cold: Mapping[str, Floats]
    users: Mapping[str, Floats]
    places: Floats


def run(progress: Progress) -> Measured:
    """Cold products, new users and velocity, each with the interval over users."""
    corpus_folder = corpus_of(CACHE, progress)
    found: dict[str, list[Found]] = {name: [] for name in SETTINGS}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        waiting = [pool.submit(_trained_and_judged, corpus_folder, name, seed) for name, seed in JOBS]
        for done, ((name, _), job) in enumerate(zip(JOBS, waiting, strict=True), start=1):
            found[name].append(job.result())
            progress("models", done, len(JOBS))
    corpus = Corpus.open(corpus_folder)
    figures, bars = _cold_figures(corpus, found)
    return Measured(figures | _user_figures(corpus, found) | _velocity_figures(corpus, found), bars)


def _trained_and_judged(corpus_folder: Path, name: str, seed: int) -> Found:
    """What the model of that name does; kept beside it, so that a benchmark that was cut off goes on."""
    model = trained(corpus_folder, name, seed)
    kept = model.parent / "found.npz"
    if not kept.exists():
        found = judged(model, corpus_folder)
        told: dict[str, Any] = {f"cold/{one}": value for one, value in found.cold.items()}
        told |= {f"users/{one}": value for one, value in found.users.items()}
        np.savez(kept, places=found.places, **told)
    with np.load(kept) as read:
        parts = {
            part: {n.removeprefix(part): read[n] for n in read if n.startswith(part)} for part in ("cold/", "users/")
        }
        return Found(parts["cold/"], parts["users/"], read["places"])


def corpus_of(folder: Path, progress: Progress) -> Path:
    """Every second household, with its attributes where these are known; one that is there stays."""
    if (folder / "corpus" / "corpus.json").exists():
        return folder / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    events, items = complete_journey.prepare(folder / "journey", progress)
    users = folder / "users.parquet"
    pq.write_table(pq.read_table(complete_journey.data_dir() / "demographics.parquet"), users)
    schema: dict[str, Any] = yaml.safe_load(complete_journey.schema_path().read_text(encoding="utf-8"))
    schema |= {"split": {"time": "2017-11-15", "validation": "2017-10-25"}, "users": {"categories": list(ATTRIBUTES)}}
    table = pq.read_table(events)
    household = table["household_id"].to_numpy()
    half = folder / "half.parquet"
    pq.write_table(table.filter(np.isin(household, np.unique(household)[::2])), half)
    declared = folder / "schema.yaml"
    declared.write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    return tokenize(declared, half, items, folder / "corpus", users_path=users).folder


def recipe_for(corpus: Corpus, name: str, seed: int) -> Recipe:
    """The settings of that name; without content an item is its row and nothing else."""
    recipe = recipe_of(corpus, {**FUTURE, **SETTINGS[name]}, seed)
    if name != "without content":
        return recipe
    bare = replace(recipe.model.item, categories=(), text_width=0)
    return replace(recipe, model=replace(recipe.model, item=bare))


def trained(corpus_folder: Path, name: str, seed: int) -> Path:
    """A run that has learned all before the test part; one that was begun goes on, one that is there stays."""
    torch.set_num_threads(1)
    corpus = Corpus.open(corpus_folder)
    recipe = recipe_for(corpus, name, seed)
    folder = CACHE / Trial(corpus_folder, recipe).key
    if not (folder / "model" / "space.json").exists():
        pretrain_bare(start(corpus, folder, recipe, Until.TEST))
    return folder / "model"


def judged(model: Path, corpus_folder: Path) -> Found:
    """All that is asked of one model."""
    corpus, subgraph = Corpus.open(corpus_folder), Subgraph.from_pretrained(model)
    scorers, cold = model_scorers(subgraph), cold_items(corpus, Part.TEST)
    tokenizer = subgraph.tokenizer
    recalls = {name: recall(cold, score_UC) for name, score_UC in scores(cold, scorers).items()}
    held = hold_out(corpus.tokens(), Columns.of(tokenizer), corpus.split, Part.TEST)
    few = {"all events": scorers["model"]} | {
        f"{events} events": knowing_last(model_scorers(subgraph)["model"], events, tokenizer) for events in (1, 0)
    }
    evaluation = ranking.evaluate(held, few, len(tokenizer.items))
    users = {name: one.values[ranking.Slice.ALL]["ndcg@10"] for name, one in evaluation.judged.items()}
    return Found(recalls, users, velocity.places(velocity.debuts(corpus, Part.TEST), scorers["model"]))


def beside(corpus: Corpus) -> tuple[ColdItems, dict[str, Floats]]:
    """Cold products of the test part, and recall@50 of what stands beside the model, its settings by validation."""
    items, chosen = corpus.tokenizer.items, cold_items(corpus, Part.VALIDATION)
    settings = max(grid(), key=lambda one: metrics.mean(recall(chosen, content_neighbours(chosen, items, one))))
    kinds = list(items.category_sizes)
    kind = max(kinds, key=lambda one: metrics.mean(recall(chosen, category_popularity(chosen, items, one))))
    cold = cold_items(corpus, Part.TEST)
    return cold, {
        "content_knn": recall(cold, content_neighbours(cold, items, settings)),
        "department_popularity": recall(cold, category_popularity(cold, items, "department")),
        "category_popularity": recall(cold, category_popularity(cold, items, kind)),
    }


def _cold_figures(corpus: Corpus, found: Mapping[str, Sequence[Found]]) -> tuple[dict[str, float], tuple[Bar, ...]]:
    cold, others = beside(corpus)
    figures = {"cold.users": float(len(cold)), "cold.products": float(len(cold.cold_C))}
    figures["cold.random"] = 50 / len(cold.cold_C)
    said = {
        f"{name}.{scorer}": np.mean([one.cold[scorer] for one in runs], axis=0)
        for name, runs in found.items()
        for scorer in ("model", "embedding")
    }
    for name, value_U in {**said, **others}.items():
        figures |= _interval(f"cold_recall@50.{name}", metrics.bootstrap(value_U[:, None])[0])
    bars = []
    for other, value_U in others.items():
        gap = metrics.paired_bootstrap(said["default.model"], value_U)
        figures |= _interval(f"cold_recall@50.model_minus_{other}", gap)
        estimate = Estimate(gap.mean, gap.low, gap.high)
        bars.append(at_least(f"cold_recall@50.model_minus_{other}", estimate, 0.0))
    same = np.mean([one.cold["model"] for one in found["default"][: len(found["gated"])]], axis=0)
    gap = metrics.paired_bootstrap(said["gated.model"], same)  # of the same seeds
    return figures | _interval("cold_recall@50.gated_minus_default", gap), tuple(bars)


def _user_figures(corpus: Corpus, found: Mapping[str, Sequence[Found]]) -> dict[str, float]:
    tokenizer, columns = corpus.tokenizer, Columns.of(corpus.tokenizer)
    held = hold_out(corpus.tokens(), columns, corpus.split, Part.TEST)
    popular = _popularity(held, corpus)
    known_U = described(held.tokens, tokenizer)[held.asked.row]
    figures = {"users.judged": float(len(held)), "users.described": float(known_U.sum())}
    for name in ("default", "gated"):
        said = {events: np.mean([one.users[events] for one in found[name]], axis=0) for events in found[name][0].users}
        groups = {
            "all events": (said["all events"], popular),
            "one event": (said["1 events"], popular),
            "attributes alone": (said["0 events"][known_U], popular[known_U]),
            "nothing": (said["0 events"][~known_U], popular[~known_U]),
        }
        for group, (value_U, popular_U) in groups.items():
            figures |= _interval(f"{name}.{group}.ndcg@10", metrics.bootstrap(value_U[:, None])[0])
            gap = metrics.paired_bootstrap(value_U, popular_U)
            figures |= _interval(f"{name}.{group}.ndcg@10_minus_popularity", gap)
    return figures


def _popularity(held: Holdout, corpus: Corpus) -> Floats:
    items = len(corpus.tokenizer.items)
    assert corpus.split.time is not None
    popular = baselines.popularity(baselines.item_popularity(held.before, items, corpus.split.time))
    found = ranking.evaluate(held, {"popularity": popular}, items)
    return found.judged["popularity"].values[ranking.Slice.ALL]["ndcg@10"]


def _velocity_figures(corpus: Corpus, found: Mapping[str, Sequence[Found]]) -> dict[str, float]:
    debuts, figures, drawn = velocity.debuts(corpus, Part.TEST), {}, {}
    for name, runs in found.items():
        gaps = velocity.behind(debuts, np.mean([one.places for one in runs], axis=0))
        figures[f"velocity.{name}.meetings_until_old"] = velocity.caught_up(gaps)
        for met, gap in zip(velocity.MEETINGS, gaps, strict=True):
            figures |= _interval(f"velocity.{name}.doublings_behind_{met}", gap)
        drawn[name] = Line([gap.mean for gap in gaps], [gap.low for gap in gaps], [gap.high for gap in gaps])
    places = range(len(velocity.MEETINGS))
    title = "How soon a new product is found as well as an old one"
    labels, ticks = ("meetings before the cut", "doublings of its place behind an old one"), _ticks(velocity.MEETINGS)
    lines(PICTURE, list(places), drawn, *labels, title, ticks)
    return figures


def _ticks(begins: Sequence[int]) -> list[str]:
    """The bins from each of these up to the next one, as they are written."""
    ends = [str(begin) if end == begin + 1 else f"{begin}–{end - 1}" for begin, end in pairwise(begins)]
    return [*ends, f"{begins[-1]} and more"]


def _interval(name: str, found: Interval) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
