"""Each technique on and off, all else equal: what it is worth, with an interval. Writes docs/ablations.md.

A run learns a named slice of a log for a fixed number of steps and is judged on the validation part of that slice;
three seeds. The page says what a run took, 90 s being the aim. The difference is paired over users, seeds averaged.
What wins nothing stays off, and its row says so. Complete Journey tells of time, context and length; MovieLens only of
order, and of what was liked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from benchmarks.measure import Measured
from benchmarks.trials import Outcome, Progress, Trial, difference, run_trials, settings_hash, spread
from tokenization.corpus.corpus import Corpus
from tokenization.job.pipeline import tokenize
from training.metrics import Interval
from training.recipes import Recipe, default, with_overrides
from userfm import complete_journey

SEEDS = (0, 1, 2)
BASE = {"rate": "0.012", "future": "0"}
"""Where all runs differ from the default recipe, unless they say otherwise: the rate is what AdamW does best with in so
short a run (`benchmarks optimisers`), and without the future window what others bring to the stored vector shows."""
CACHE = Path("out/ablations")
PAGE = Path(__file__).parent.parent / "docs" / "ablations.md"


class Slice(StrEnum):
    """What is learned and judged."""

    JOURNEY = "journey-half"  # every second household of Complete Journey, judged on its next basket from 2017-10-25
    UNMERGED = "journey-half-unmerged"  # the same, each line a token
    MOVIES = "ml-1m-third"  # every third user of MovieLens-1M, last two items out
    RATED = "ml-100k"  # MovieLens-100K with what was thought of each film, by time


EPOCHS = {Slice.JOURNEY: 1, Slice.UNMERGED: 1, Slice.MOVIES: 2, Slice.RATED: 8}
"""Passes over a slice: about a minute of one core."""


@dataclass(frozen=True)
class Technique:
    """One row: settings with it and without it, the rest as in the default recipe.

    kept: whether the default has it. because: what for, though it is not shown to help; or why not, though it is.
    figure: what it is judged by, a name of `trials.FIGURES`. off_slice: where the log itself is another without it.
    off_told: whether the run without it is told time and context.
    """

    name: str
    on: Mapping[str, str]
    off: Mapping[str, str]
    kept: bool
    slice: Slice = Slice.JOURNEY
    figure: str = "model"
    off_slice: Slice | None = None
    off_told: bool = True
    because: str = ""


NOTHING: Mapping[str, str] = {}
LATER = "it answers for later groups too"
VECTORS = "stored vectors are better for it, and on whole runs no worse elsewhere (docs/log.md)"
TECHNIQUES = (
    Technique("multi-token prediction", NOTHING, {"horizons": "1"}, kept=True, because=LATER),
    Technique(
        "multi-token prediction, stored vector",
        NOTHING,
        {"horizons": "1"},
        kept=True,
        figure="embedding",
        because=LATER,
    ),
    Technique(
        "future window, stored vector", {"future": "0.3"}, NOTHING, kept=True, figure="embedding", because=VECTORS
    ),
    Technique("future window", {"future": "0.3"}, NOTHING, kept=True, because=VECTORS),
    Technique("context conditioning", NOTHING, {"context_dropout": "1.0"}, kept=True, off_told=False),
    Technique(
        "context dropout",
        NOTHING,
        {"context_dropout": "0.0"},
        kept=True,
        figure="embedding",
        because="requests that tell nothing are answered by what was learned for them",
    ),
    Technique("sparse window (64 beside everything)", NOTHING, {"windows": "0"}, kept=True),
    Technique("compressed memory", {"memory": "1"}, NOTHING, kept=False),
    Technique("sinks", {"sinks": "16"}, NOTHING, kept=False),
    Technique("rotary time beside place", {"rotary": "both"}, NOTHING, kept=False),
    Technique("copy path", NOTHING, {"repeat_path": "off"}, kept=True),
    Technique("category affinity, new products", NOTHING, {"category_affinity": "off"}, kept=True, figure="new"),
    Technique(
        "set-aware groups",
        NOTHING,
        {"groups": "sequence"},
        kept=True,
        because="a basket has no order, and so no answer depends on one",
    ),
    Technique("hierarchical intent", {"intents": "department,action"}, NOTHING, kept=False),
    Technique(
        "facet targets",
        NOTHING,
        {"objectives.facets": "0"},
        kept=True,
        because="what a schema declares as a target is learned",
    ),
    Technique("category targets", {"category_targets": "department"}, NOTHING, kept=False),
    Technique("time gap target", {"gap_bins": "16"}, NOTHING, kept=False),
    Technique(
        "feedback weights",
        NOTHING,
        {"feedback": "off"},
        kept=True,
        slice=Slice.RATED,
        because="what a schema declares as no interest is not recommended for",
    ),
    Technique("logQ correction", NOTHING, {"logq": "off"}, kept=True),
    Technique(
        "logQ correction, films",
        NOTHING,
        {"logq": "off"},
        kept=True,
        slice=Slice.MOVIES,
        because="it helps where catalogues are large",
    ),
    Technique("in-batch negatives", {"in_batch": "on"}, NOTHING, kept=False),
    Technique("full softmax, films", {"full_below": "10000"}, NOTHING, kept=False, slice=Slice.MOVIES),
    Technique("layer-wise supervision", {"layerwise": "0.3"}, NOTHING, kept=False),
    Technique("self-distillation", {"distill": "0.3"}, NOTHING, kept=False),
    Technique("requests without history", {"history_dropout": "0.1"}, NOTHING, kept=False),
    Technique(
        "merging",
        NOTHING,
        NOTHING,
        kept=True,
        off_slice=Slice.UNMERGED,
        because="fewer tokens say the same (`benchmarks merging`)",
    ),
    Technique("target-aware scoring", {"candidates.layers": "1"}, NOTHING, kept=False, figure="target_aware"),
    Technique("Muon beside AdamW", {"method": "muon"}, NOTHING, kept=False),
    Technique("Sophia beside AdamW", {"method": "sophia", "rate": "0.003"}, NOTHING, kept=False),
)


@dataclass(frozen=True)
class Row:
    """One technique, judged: mean and spread over seeds with and without it, and the difference paired over users."""

    technique: Technique
    on: tuple[float, float]
    off: tuple[float, float]
    gap: Interval
    parameters: tuple[int, int]
    seconds: float
    config: str
    users: int = field(default=0)


def run(progress: Progress) -> Measured:
    """Figures by technique: on, off, difference with its interval, spread, parameters; and the page of all of them."""
    with tempfile.TemporaryDirectory() as folder:
        corpora = {one: corpus_of(one, Path(folder), progress) for one in _slices()}
        trials = {
            name: trial
            for technique in TECHNIQUES
            for name, trial in _trials(technique, corpora).items()
            if corpora.keys() >= {technique.slice, technique.off_slice or technique.slice}
        }
        found = dict(run_trials(trials, CACHE, len(os.sched_getaffinity(0)), progress))
        rows = [
            _row(technique, found, corpora[technique.slice])
            for technique in TECHNIQUES
            if _name(technique, True, SEEDS[0]) in found
        ]
    PAGE.write_text(page(rows), encoding="utf-8")
    return Measured({name: value for row in rows for name, value in _figures(row).items()}, ())


def _name(technique: Technique, on: bool, seed: int) -> str:
    return f"{technique.name}/{'on' if on else 'off'}/{seed}"


def recipe_of(corpus: Corpus, overrides: Mapping[str, str], seed: int, epochs: int = 1) -> Recipe:
    """The default recipe for some passes over the slice, with other settings."""
    return with_overrides(replace(default(corpus), epochs=epochs, seed=seed), {**BASE, **overrides})


def _trials(technique: Technique, corpora: Mapping[Slice, Path]) -> dict[str, Trial]:
    trials = {}
    for on, settings in ((True, technique.on), (False, technique.off)):
        where = corpora[technique.slice if on else technique.off_slice or technique.slice]
        for seed in SEEDS:
            recipe = recipe_of(Corpus.open(where), settings, seed, EPOCHS[technique.slice])
            trials[_name(technique, on, seed)] = Trial(where, recipe, on or technique.off_told)
    return trials


def _row(technique: Technique, found: Mapping[str, Outcome], corpus: Path) -> Row:
    on, off = ([found[_name(technique, side, seed)] for seed in SEEDS] for side in (True, False))
    beside = "model" if technique.figure == "target_aware" else technique.figure
    gap = difference(on, technique.figure, off, beside)
    return Row(
        technique,
        spread(on, technique.figure),
        spread(off, beside),
        gap,
        (on[0].parameters, off[0].parameters),
        float(np.median([outcome.seconds for outcome in on])),
        settings_hash(recipe_of(Corpus.open(corpus), technique.on, 0, EPOCHS[technique.slice])),
        len(on[0].users),
    )


def _figures(row: Row) -> dict[str, float]:
    name = row.technique.name
    return {
        f"{name}.on": row.on[0],
        f"{name}.on_spread": row.on[1],
        f"{name}.off": row.off[0],
        f"{name}.off_spread": row.off[1],
        f"{name}.difference": row.gap.mean,
        f"{name}.difference_low": row.gap.low,
        f"{name}.difference_high": row.gap.high,
        f"{name}.parameters_on": row.parameters[0],
        f"{name}.parameters_off": row.parameters[1],
        f"{name}.seconds": row.seconds,
        f"{name}.users": row.users,
    }


def verdict(row: Row) -> str:
    """What the row says of the technique, in words."""
    if row.gap.low > 0:
        return "helps" if row.technique.kept else f"helps; off: {row.technique.because or 'not shown on whole runs'}"
    told = "hurts" if row.gap.high < 0 else "no difference shown"
    return f"{told}; kept: {row.technique.because or 'docs/log.md'}" if row.technique.kept else f"{told}; off"


def page(rows: Sequence[Row]) -> str:
    """docs/ablations.md."""
    head = (
        "| technique | slice | figure | with | without | difference (95 %) | parameters | s | config | verdict |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    return _ABOVE + head + "".join(_line(row) for row in rows) + _BELOW


_ABOVE = """# What each technique is worth

<!-- written by `python -m benchmarks ablations --json benchmarks/results/ablations.json`; do not edit -->

Each row: one technique with and without, everything else as in the default recipe but for the rate (.012, or what a
method of its own does best with: `benchmarks optimisers`) and the future window, which only its own rows have; a few
passes over a slice of a log, three seeds, `s` seconds of processor time a training, on one core. Figures are of the
validation part, never of the test part: mean over the seeds ± half of what lies between the best and the worst. The
difference is paired over users, seeds averaged, with its 95 % interval over users; whatever includes zero shows no
difference. `model` is NDCG@10 of the whole model, `embedding` that of the stored vectors' dot product, `new`
Recall@50 on items new to the user, `target_aware` NDCG@10 with candidates that read the history (beside `model`
without it). `config` is a hash of the settings with the technique on.
Runs are short: what needs a long training to show is not shown here.

"""
_BELOW = """
Slices: `journey-half` is every second household of Complete Journey, asked for its next basket from 2017-10-25;
`ml-1m-third` every third user of MovieLens-1M, in order only, two passes; `ml-100k` is MovieLens-100K, eight passes,
where one or two stars are feedback of weight 0, judged on the films that were liked next.
"""


def _line(row: Row) -> str:
    technique, (on, off) = row.technique, row.parameters
    sizes = f"{on:,}" if on == off else f"{on:,} / {off:,}"
    cells = (
        technique.name,
        technique.slice,
        technique.figure,
        f"{row.on[0]:.4f} ± {row.on[1]:.4f}",
        f"{row.off[0]:.4f} ± {row.off[1]:.4f}",
        f"{row.gap.mean:+.4f} ({row.gap.low:+.4f} to {row.gap.high:+.4f})",
        sizes,
        f"{row.seconds:.0f}",
        f"`{row.config}`",
        verdict(row),
    )
    return "| " + " | ".join(cells) + " |\n"


def _slices() -> list[Slice]:
    """Those whose data is here; research data lies where USERFM_DATA says."""
    research = os.environ.get("USERFM_DATA")
    needed = {Slice.MOVIES: "ml-1m", Slice.RATED: "ml-100k"}
    found = []
    for one in Slice:
        if one in needed and not (research and (Path(research) / needed[one]).exists()):
            print(f"SKIPPED {one}: set USERFM_DATA to the folder that holds {needed[one]}/", flush=True)
        else:
            found.append(one)
    return found


def corpus_of(slice_: Slice, folder: Path, progress: Progress) -> Path:
    out = folder / slice_
    if (out / "corpus.json").exists():
        return out
    if slice_ in (Slice.JOURNEY, Slice.UNMERGED):
        return _journey(slice_, folder, out, progress)
    return _films(slice_, folder, out)


def _journey(slice_: Slice, folder: Path, out: Path, progress: Progress) -> Path:
    events, items = complete_journey.prepare(folder / "journey", progress)
    schema: dict[str, Any] = yaml.safe_load(complete_journey.schema_path().read_text(encoding="utf-8"))
    schema["split"] = {"time": "2017-11-15", "validation": "2017-10-25"}
    if slice_ is Slice.UNMERGED:
        schema["merge"] = {"same_item_in_group": False}
    half = folder / "journey-half.parquet"
    pq.write_table(every(pq.read_table(events), "household_id", 2), half)
    return tokenize(_written(schema, out), half, items, out).folder


def _films(slice_: Slice, folder: Path, out: Path) -> Path:
    name = "ml-1m" if slice_ is Slice.MOVIES else "ml-100k"
    source = Path(os.environ["USERFM_DATA"]) / name
    table = pq.read_table(source / "events.parquet")
    schema: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "user": "user_id",
        "entities": {"film": {"column": "item_id", "candidates": True}},
        "items": {"id": "item_id", "text": ["title"]},
    }
    if slice_ is Slice.MOVIES:
        table = every(table, "user_id", 3)
        schema |= {"position": "position", "split": {"last_items": 1}}
    else:
        liked = pc.if_else(pc.greater_equal(table["rating"], 3.0), "liked", "disliked")
        table = table.append_column("verdict", liked)
        schema |= {
            "time": {"column": "timestamp"},
            "action": {"column": "verdict"},
            "split": {"fraction": 0.8},
            "targets": {"film": 1.0, "action": 0.1},
        }
        schema["feedback"] = {"disliked": 0}
    events = folder / f"{slice_}.parquet"
    pq.write_table(table, events)
    return tokenize(_written(schema, out), events, source / "items.parquet", out).folder


def every(table: pa.Table, user: str, step: int) -> pa.Table:
    """Every so manieth user, in the order of ids."""
    chosen = pa.array(np.unique(table[user].to_numpy())[::step])
    return table.filter(pc.is_in(table[user], chosen))


def _written(schema: Mapping[str, Any], out: Path) -> Path:
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(dict(schema), sort_keys=False), encoding="utf-8")
    return path
