"""Generative retrieval beside dense retrieval: semantic IDs decoded from the user state, and stored vectors.

Every second household of Complete Journey, products with semantic IDs; one pass, three seeds, judged on the next basket
of the validation part: seeds averaged, differences paired over households. Lists are of all products (nothing
filtered), of products new to the household, and of cold ones: listed, and met by nobody before. Beside them: what
learning to decode does to the rest of the model, the width of the beam (docs/figures/beam.svg), and how well codes
and texts are linked for products that the link has not seen (`benchmarks/linking.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.ablations import every, recipe_of
from benchmarks.linking import linked
from benchmarks.measure import Measured
from benchmarks.plots import Line, lines
from benchmarks.trials import Progress
from foundation.generation import generate
from foundation.model import UserStates
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from foundation.trie import CodeTrie
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training import metrics
from training.holdout import Columns, Holdout, Part, hold_out
from training.metrics import Codes, Floats, Interval, ItemSets
from training.pretrain import pretrain_bare
from training.ranking import Slice, evaluate
from training.run import start
from training.scorers import inputs, model_scorers
from userfm import complete_journey

SEEDS = (0, 1, 2)
SETTINGS: Mapping[str, Mapping[str, str]] = {"with": {"decoder.layers": "1", "codes": "0.3"}, "without": {}}
BEAM, DEPTH = 100, 100
BEAMS = (1, 5, 10, 20, 50, 100, 200)
USERS = 64  # encoded and answered at a time
PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "beam.svg"


@dataclass(frozen=True)
class Asked:
    """What is judged: a part of the truth, and which lists may answer. truth: [U] sets. trie: of the items that may be
    listed, item_V: the same as a mask; new: whether a household's own are left out."""

    truth: ItemSets
    size_U: NDArray[np.int64]
    trie: CodeTrie
    item_V: Tensor
    new: bool


def corpus_in(folder: Path, progress: Progress) -> Corpus:
    """Every second household, with products that have semantic IDs."""
    events, items = complete_journey.prepare(folder / "journey", progress)
    schema = yaml.safe_load(complete_journey.schema_path().read_text(encoding="utf-8"))
    schema["split"] = {"time": "2017-11-15", "validation": "2017-10-25"}
    schema["items"]["semantic_ids"] = {"levels": 3, "codes": 256}
    half, declared = folder / "half.parquet", folder / "schema.yaml"
    pq.write_table(every(pq.read_table(events), "household_id", 2), half)
    declared.write_text(yaml.safe_dump(schema, sort_keys=False), encoding="utf-8")
    return tokenize(declared, half, items, folder / "corpus")


def parts(held: Holdout, subgraph: Subgraph) -> dict[str, Asked]:
    """All products; those new to the household; those that nobody met before, among themselves."""
    truth, items = held.truth, subgraph.model.tower.codes
    had = held.seen.contains(truth.users, truth.codes)
    cold_V = np.bincount(held.before.item, minlength=items) == 0
    cold_V[:FIRST_ITEM] = False
    everything_V = torch.arange(items) >= FIRST_ITEM
    whole = subgraph.model.trie()
    cold = whole.only(torch.from_numpy(np.flatnonzero(cold_V)))
    new, cold_truth = truth.keep(~had), truth.keep(cold_V[truth.codes])
    return {
        "all": Asked(truth, truth.sizes + held.unknown, whole, everything_V, new=False),
        "new": Asked(new, new.sizes + held.unknown, whole, everything_V, new=True),
        "cold": Asked(cold_truth, cold_truth.sizes, cold, torch.from_numpy(cold_V), new=True),
    }


def states_of(held: Holdout, subgraph: Subgraph) -> Iterator[tuple[ItemSets, UserStates]]:
    """The households, so many at a time: what each had, and what the model knows of it."""
    for begin, requests in held.chunks(USERS):
        states = subgraph.states(*inputs(subgraph, requests))
        yield held.seen.slice(begin, begin + len(requests)), states


def dense(user_RD: Tensor, item_VD: Tensor, seen: ItemSets, asked: Asked) -> Codes:
    """The best DEPTH items by dot product, int32 [R, DEPTH]."""
    score_RV = user_RD @ item_VD.T
    score_RV[:, ~asked.item_V] = -torch.inf
    if asked.new:
        score_RV[torch.from_numpy(seen.users), torch.from_numpy(seen.codes.astype(np.int64))] = -torch.inf
    return metrics.top_k(score_RV.numpy(), DEPTH)


def generated(
    subgraph: Subgraph, states: UserStates, item_VD: Tensor, seen: ItemSets, asked: Asked, beam: int
) -> Codes:
    """The best DEPTH items by decoding, int32 [R, DEPTH]; −1 where there are fewer."""
    own = torch.from_numpy(seen.users), torch.from_numpy(seen.codes.astype(np.int64))
    made = generate(subgraph.model, states, item_VD, asked.trie, beam, DEPTH, own if asked.new else None)
    return torch.where(made.item_RK == 0, -1, made.item_RK).numpy().astype(np.int32)


def interleaved(one_UK: Codes, other_UK: Codes, length: int) -> Codes:
    """The first of one, the first of the other, ..., each item once, so many; int32 [U, length]."""
    both_UK = np.stack([one_UK, other_UK], axis=2).reshape(len(one_UK), -1)
    out_UL = np.full((len(one_UK), length), -1, np.int32)
    for row, items in enumerate(both_UK):
        kept = list(dict.fromkeys(items[items >= 0].tolist()))[:length]
        out_UL[row, : len(kept)] = kept
    return out_UL


@dataclass(frozen=True)
class Answers:
    """What a model answers everybody. lists: [U, DEPTH] by part and kind. by_beam: of all items, by width of the
    beam. seconds: of processor time a household by width, 0 is the dot products."""

    lists: Mapping[str, Mapping[str, Codes]]
    by_beam: Mapping[int, Codes]
    seconds: Mapping[int, float]


def answers(held: Holdout, subgraph: Subgraph, asked: Mapping[str, Asked], beams: Sequence[int]) -> Answers:
    """Lists of all parts and beams; each household is encoded once."""
    lists: dict[str, dict[str, list[Codes]]] = {name: {"dense": [], "generative": []} for name in asked}
    by_beam: dict[int, list[Codes]] = {beam: [] for beam in beams}
    seconds = dict.fromkeys((0, *beams), 0.0)
    with torch.inference_mode():
        item_VD = subgraph.item_vectors()
        for seen, states in states_of(held, subgraph):
            user_RD = subgraph.model.user_vectors(states)
            for name, of in asked.items():
                began = time.process_time()
                lists[name]["dense"].append(dense(user_RD, item_VD, seen, of))
                seconds[0] += (time.process_time() - began) * (name == "all")
                lists[name]["generative"].append(generated(subgraph, states, item_VD, seen, of, BEAM))
            for beam in beams:
                began = time.process_time()
                by_beam[beam].append(generated(subgraph, states, item_VD, seen, asked["all"], beam))
                seconds[beam] += time.process_time() - began
    return Answers(
        {name: {kind: np.concatenate(rows) for kind, rows in kinds.items()} for name, kinds in lists.items()},
        {beam: np.concatenate(rows) for beam, rows in by_beam.items()},
        {beam: total / len(held) for beam, total in seconds.items()},
    )


def recalls(lists: Mapping[str, Codes], asked: Asked) -> dict[str, Floats]:
    """[U] by name of list and cutoff. union: both in turn, as long as one of them; both: 50 of each, beside
    `dense@100`, which is as long or longer."""
    one, other = lists["dense"], lists["generative"]
    ranked = {**lists, "union": interleaved(one, other, DEPTH)}
    found = {
        f"{name}@{k}": metrics.recall_at(metrics.hits(list_UK, asked.truth), asked.size_U, k)
        for name, list_UK in ranked.items()
        for k in (10, 50, 100)
    }
    both = metrics.hits(interleaved(one[:, :50], other[:, :50], 100), asked.truth)
    return {**found, "both@50+50": metrics.recall_at(both, asked.size_U, 100)}


@dataclass(frozen=True)
class Judged:
    """One training: [U] figures by name; with a decoder, what it answers by part, by beam, and what it costs."""

    plain: Mapping[str, Floats]
    recalls: Mapping[str, Mapping[str, Floats]]
    by_beam: Mapping[int, Floats]
    seconds: Mapping[int, float]
    linked: Mapping[str, float]
    sizes: Mapping[str, float]


def trained(corpus: Path, folder: Path, side: str, seed: int) -> Judged:
    """Train one side with one seed, and judge it."""
    torch.set_num_threads(1)
    opened = Corpus.open(corpus)
    run = start(opened, folder / f"{side}-{seed}", recipe_of(opened, SETTINGS[side], seed))
    pretrain_bare(run)
    subgraph = Subgraph.from_pretrained(run.model)
    held = hold_out(opened.tokens(), Columns.of(opened.tokenizer), opened.split, Part.VALIDATION)
    evaluation = evaluate(held, model_scorers(subgraph), len(opened.tokenizer.items))
    plain = {
        f"{name}.{metric}": of.values[Slice.ALL][metric]
        for name, of in evaluation.judged.items()
        for metric in ("ndcg@10", "recall@10", "recall@50")
    }
    if subgraph.model.decoder is None:
        return Judged(plain, {}, {}, {}, {}, {})
    asked = parts(held, subgraph)
    first = seed == SEEDS[0]
    found = answers(held, subgraph, asked, BEAMS if first else ())
    ranked = {name: recalls(found.lists[name], of) for name, of in asked.items()}
    everything = asked["all"]
    hit_UK = metrics.hits(found.lists["all"]["generative"], everything.truth)
    plain["generative.ndcg@10"] = metrics.ndcg_at(hit_UK, everything.size_U, 10)
    by_beam = {
        beam: metrics.recall_at(metrics.hits(list_UK, everything.truth), everything.size_U, 50)
        for beam, list_UK in found.by_beam.items()
    }
    sizes = {"items": len(everything.trie), "paths": len(everything.trie.levels[-1])}
    sizes |= {"cold_items": len(asked["cold"].trie)}
    sizes |= {f"{name}.households": int((of.size_U > 0).sum()) for name, of in asked.items()}
    links = linked(subgraph.model) if first else {}
    return Judged(plain, ranked, by_beam, found.seconds, links, sizes)


def run(progress: Progress) -> Measured:
    """Figures by part, list and cutoff, with differences; by beam; of the links; no bars."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_in(Path(folder), progress)
        wanted = [(side, seed) for seed in SEEDS for side in SETTINGS]
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            running = [pool.submit(trained, corpus.folder, Path(folder), side, seed) for side, seed in wanted]
            judged: dict[str, list[Judged]] = {side: [] for side in SETTINGS}
            for done, ((side, _), future) in enumerate(zip(wanted, running, strict=True), 1):
                judged[side].append(future.result())
                progress("trainings", done, len(wanted))
    on, off = judged["with"], judged["without"]
    draw(on[0].by_beam)
    return Measured(figures_of(on, off), ())


def figures_of(on: Sequence[Judged], off: Sequence[Judged]) -> dict[str, float]:
    """All figures of trainings with and without a decoder, one of each a seed; beams and links are those of
    the first."""
    return {**on[0].sizes, **_of_parts(on), **_of_rest(on, off), **_of_beams(on[0]), **on[0].linked}


def averaged(values: Iterable[Floats]) -> Floats:
    """[U] of one figure, the mean over the seeds."""
    return np.asarray(np.mean(list(values), axis=0))


def _of_parts(on: Sequence[Judged]) -> dict[str, float]:
    """Recall by part and list, and what generative, union and both have more than dense."""
    figures: dict[str, float] = {}
    for part in on[0].recalls:
        mean = {name: averaged(one.recalls[part][name] for one in on) for name in on[0].recalls[part]}
        figures |= {f"{part}.{name}": metrics.mean(value_U) for name, value_U in mean.items()}
        for name in ("generative@10", "generative@50", "union@10", "union@50", "both@50+50"):
            beside = "dense@100" if name.startswith("both") else f"dense@{name.partition('@')[2]}"
            gap = metrics.paired_bootstrap(mean[name], mean[beside])
            figures |= _interval(f"{part}.{name}_minus_{beside}", gap)
    return figures


def _of_rest(on: Sequence[Judged], off: Sequence[Judged]) -> dict[str, float]:
    """The whole model and the stored vectors, learned with the decoder beside without; generative beside the model."""
    figures: dict[str, float] = {}
    for name in on[0].plain:
        one = averaged(run.plain[name] for run in on)
        figures[f"with.{name}"] = metrics.mean(one)
        if name in off[0].plain:
            other = averaged(run.plain[name] for run in off)
            figures[f"without.{name}"] = metrics.mean(other)
            figures |= _interval(f"{name}_with_minus_without", metrics.paired_bootstrap(one, other))
    made, whole = (averaged(run.plain[f"{name}.ndcg@10"] for run in on) for name in ("generative", "model"))
    return figures | _interval("generative_minus_model_ndcg@10", metrics.paired_bootstrap(made, whole))


def _of_beams(first: Judged) -> dict[str, float]:
    figures: dict[str, float] = {}
    for beam in BEAMS:
        figures |= _interval(f"beam_{beam}.recall@50", metrics.bootstrap(first.by_beam[beam][:, None])[0])
    for beam in (0, *BEAMS):
        figures[f"beam_{beam}.processor_ms" if beam else "dense.processor_ms"] = 1e3 * first.seconds[beam]
    return figures


def _interval(name: str, gap: Interval) -> dict[str, float]:
    return {name: gap.mean, f"{name}_low": gap.low, f"{name}_high": gap.high}


def draw(recall: Mapping[int, Floats]) -> None:
    """docs/figures/beam.svg."""
    found = [metrics.bootstrap(recall[beam][:, None])[0] for beam in BEAMS]
    line = Line([one.mean for one in found], [one.low for one in found], [one.high for one in found])
    lines(PICTURE, BEAMS, {"generative": line}, "beams", "Recall@50", "What a wider beam finds")
