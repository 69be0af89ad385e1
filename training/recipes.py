"""Whole configurations of a training run. A recipe is a function of a corpus that returns every number."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Self

import numpy as np

from foundation.config import AttentionConfig, ItemConfig, ItemGate, ModelConfig, RepeatConfig, Switch
from foundation.errors import ModelError
from foundation.jagged import EventBatch
from foundation.lesson import Objectives, check_objectives
from tokenization.corpus.corpus import Corpus
from tokenization.errors import with_article
from tokenization.schema.event_schema import EventSchema
from training.data import Sampling, row_tokens
from training.dropout import MEASURED, IdDropout
from training.errors import TrainingError
from training.optimisers import Method, Optimisation
from training.parallel import Parallelism, Precision, Scoring, Tables, Weights, check_parallelism
from training.stages import Stage, check_shares, parse_stages
from training.training_set import Until, facet_configs, item_config, trainable_events


class Start(StrEnum):
    """What a run's first weights are drawn by."""

    SEED = "seed"  # the run's seed
    SHARED = "shared"  # names of weights and ids of items, so that all runs begin alike (foundation/start.py)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run besides the corpus.

    epochs: passes over the users. minutes: the schedule ends by then even if epochs are left; inf for no limit.
    checkpoint_seconds: between two checkpoints. stages: parts of the run with rows of their own length, in order; where
    there are none, rows are as `sampling.history` says throughout. seed: of what is drawn in training, and of the first
    weights where `start` says so. parallelism: how a step is spread over ranks and memory.
    """

    model: ModelConfig
    sampling: Sampling = field(default_factory=Sampling)
    objectives: Objectives = field(default_factory=Objectives)
    optimisation: Optimisation = field(default_factory=Optimisation)
    epochs: int = 8
    minutes: float = math.inf
    checkpoint_seconds: float = 60.0
    seed: int = 0
    stages: tuple[Stage, ...] = ()
    start: Start = Start.SEED
    parallelism: Parallelism = field(default_factory=Parallelism)

    def sampling_in(self, stage: int) -> Sampling:
        """How the corpus becomes lessons in that stage, from 0."""
        return replace(self.sampling, history=self.stages[stage].history) if self.stages else self.sampling

    def to_json(self) -> str:
        """One JSON object; the model's part as in `ModelConfig.to_json`."""
        return json.dumps({**asdict(self), "model": json.loads(self.model.to_json())}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`. Raises TrainingError for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            model = ModelConfig.from_json(json.dumps(values.pop("model")))
            return cls(
                model=model,
                sampling=_sampling(values.pop("sampling")),
                objectives=_objectives(values.pop("objectives")),
                optimisation=_optimisation(values.pop("optimisation")),
                stages=tuple(Stage(**stage) for stage in values.pop("stages", ())),
                start=Start(values.pop("start", Start.SEED)),
                parallelism=Parallelism.read(values.pop("parallelism", {})),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError, ModelError) as error:
            raise TrainingError(f"this recipe can't be read ({error}): start a new run") from error


def _sampling(told: dict[str, Any]) -> Sampling:
    return Sampling(**{**told, "id_dropout": IdDropout(**told.get("id_dropout", {}))})


def _objectives(told: dict[str, Any]) -> Objectives:
    switches = {one.name for one in fields(Objectives) if isinstance(one.default, Switch)}
    values: dict[str, Any] = {name: Switch(value) if name in switches else value for name, value in told.items()}
    return Objectives(**values)


def _optimisation(told: dict[str, Any]) -> Optimisation:
    return Optimisation(**{**told, "method": Method(told.get("method", Method.ADAMW))})


_LISTS: dict[Any, tuple[type, str]] = {
    "tuple[int, ...]": (int, "list of whole numbers"),
    "tuple[str, ...]": (str, "list of words"),
}
"""Types of fields that take several values: what each is, and what they are called."""


class Name(StrEnum):
    """The recipes that the command line offers."""

    DEFAULT = "default"  # 64 wide, 2 layers: minutes on two cores
    SMALL = "small"  # 32 wide, 1 layer: seconds, to see a pipeline through
    ORDERED = "ordered"  # for logs that tell an order and no time, in which nothing returns: films, books, reviews
    LARGE = "large"  # 512 wide, 8 layers: for 8 GPUs of 80 GB and ten million items
    HUGE = "huge"  # 1,024 wide, 24 layers: for 64 GPUs of 80 GB and a hundred million items


def named(name: Name, corpus: Corpus) -> Recipe:
    """The recipe of that name for this corpus."""
    if name is Name.ORDERED:
        return ordered(corpus)
    if name is Name.SMALL:
        return small(corpus)
    recipe = default(corpus)
    return large(recipe) if name is Name.LARGE else huge(recipe) if name is Name.HUGE else recipe


def default(corpus: Corpus) -> Recipe:
    """Two layers of width 64 over windows of 64 tokens; half-lives and time unit from the corpus itself."""
    tokenizer = corpus.tokenizer
    item = item_config(tokenizer)
    span, gap = _span_and_gap(corpus)
    # From the whole span down to a hundredth of it, and a plain count.
    half_lives = (*(span / 2**halvings for halvings in range(7, -1, -1)), math.inf)
    targets = tuple((name, weight) for name, weight in tokenizer.schema.weights.items() if name != item.facet)
    model = ModelConfig(
        facets=facet_configs(tokenizer),
        item=item,
        repeat=RepeatConfig(half_lives=half_lives, time_unit=gap),
        targets=targets,
        attention=AttentionConfig(windows=(64,), time_unit=gap),
        attributes=tuple(tokenizer.users.sizes.items()),
    )
    # Whoever has attributes is asked for before the first event, so lessons hold some such users.
    sampling = Sampling(history_dropout=0.1) if model.attributes else Sampling()
    # It costs nothing and lets retrained models be aligned: docs/log.md, "Two trainings, one space".
    return Recipe(model, sampling, objectives_for(tokenizer.schema), start=Start.SHARED)


def ordered(corpus: Corpus) -> Recipe:
    """For logs of which an order is known and nothing else, and in which nothing returns, passed over many times.

    No path for own items and no count of categories; every position is asked, beside the whole catalogue where that is
    small; what is learned is the stored vector, which alone answers. Many small steps, of which the average is kept:
    docs/log.md has what each of these is worth.
    """
    recipe = default(corpus)
    model = replace(
        recipe.model,
        horizons=1,
        repeat_path=Switch.OFF,
        category_affinity=Switch.OFF,
        dropout=0.3,
    )
    objectives = Objectives(next=0.0, embedding=1.0, own=Switch.OFF, full_below=10_000)
    sampling = replace(recipe.sampling, tokens=1_024, requests=1_024)
    optimisation = replace(recipe.optimisation, rate=3e-3, table_rate=5e-3, warmup=100, average=0.999)
    return replace(recipe, model=model, objectives=objectives, sampling=sampling, optimisation=optimisation, epochs=16)


def objectives_for(schema: EventSchema) -> Objectives:
    """What is learned of a log. A stored vector is asked for days, so it learns a window of days where there are times:
    docs/ablations.md, docs/log.md."""
    return Objectives(future=0.3) if schema.time is not None else Objectives()


def small(corpus: Corpus) -> Recipe:
    """One layer of width 32, two epochs: to see a pipeline through, not to judge by."""
    recipe = default(corpus)
    model = replace(recipe.model, width=32, layers=1, heads=1)
    return replace(recipe, model=model, epochs=2, sampling=replace(recipe.sampling, negatives=256))


def large(base: Recipe) -> Recipe:
    """For 8 GPUs and ten million items: 8 layers of width 512 over histories of 2,048 tokens.

    The trunk is small beside the tables: every rank has it whole (DDP), and its own rows.
    """
    return _wider(
        base,
        width=512,
        layers=8,
        history=2_048,
        tokens=32_768,
        negatives=16_384,
        shards=8,
        parallelism=Parallelism(Weights.DDP, Tables.ROWS, Scoring.OWNERS, precision=Precision.BFLOAT16),
    )


def huge(base: Recipe) -> Recipe:
    """For 64 GPUs and a hundred million items: 24 layers of width 1,024 over histories of 4,096 tokens.

    Nothing is whole on any rank, and what a layer computed is made again in the backward pass. docs/scale.md has the
    arithmetic of both.
    """
    return _wider(
        base,
        width=1_024,
        layers=24,
        history=4_096,
        tokens=65_536,
        negatives=65_536,
        shards=64,
        parallelism=Parallelism(
            Weights.SHARDED, Tables.ROWS, Scoring.OWNERS, recompute=Switch.ON, precision=Precision.BFLOAT16
        ),
    )


def _wider(
    base: Recipe,
    width: int,
    layers: int,
    history: int,
    tokens: int,
    negatives: int,
    shards: int,
    parallelism: Parallelism,
) -> Recipe:
    """One pass, heads of 64 dimensions, and a rate that falls with the width, as Adam's best one does (Yang et al.,
    Tensor Programs V, arXiv:2203.03466)."""
    attention = replace(base.model.attention, windows=(256,), sinks=4)
    model = replace(base.model, width=width, layers=layers, heads=width // 64, attention=attention)
    sampling = replace(base.sampling, tokens=tokens, history=history, negatives=negatives, shards=shards)
    rate = base.optimisation.rate * min(base.model.width / width, 1.0)
    optimisation = replace(base.optimisation, rate=rate, warmup=2_000)
    return replace(
        base,
        model=model,
        sampling=sampling,
        optimisation=optimisation,
        epochs=1,
        checkpoint_seconds=1_800.0,
        parallelism=parallelism,
    )


def with_overrides(recipe: Recipe, overrides: dict[str, str]) -> Recipe:
    """The recipe with fields replaced, written `model.width=128` or, where that means one setting, `width=128`.

    Stages are written as `parse_stages` reads them.
    Raises TrainingError naming the nearest field for one that does not exist or a value of another type.
    """
    for key, value in overrides.items():
        recipe = _override(recipe, key, value)
    check(recipe)
    return recipe


def check(recipe: Recipe) -> None:
    """Raises TrainingError or ModelError where parts of the recipe do not fit one another, or make no run: before
    anything is written."""
    check_objectives(recipe.model, recipe.objectives)
    recipe.sampling.id_dropout.check(recipe.model)
    _check_shards(recipe)
    if recipe.epochs < 1 or not recipe.minutes > 0:
        raise TrainingError(
            f"`epochs` must be at least 1 and `minutes` above 0, got {recipe.epochs} and {recipe.minutes:g}"
        )
    check_parallelism(
        recipe.parallelism,
        recipe.model,
        recipe.objectives,
        recipe.optimisation.method,
        recipe.sampling.id_dropout,
    )
    check_shares(recipe.stages)
    if recipe.stages and recipe.sampling.history:
        raise TrainingError("`history` is for runs of one stage: leave it out where `stages` says how long rows are")
    for stage in range(max(len(recipe.stages), 1)):
        row_tokens(recipe.sampling_in(stage))


def _check_shards(recipe: Recipe) -> None:
    """What is counted of the whole log is not there where each rank reads a part of it."""
    whole = {
        "`item_gate=age`": recipe.model.item_gate is ItemGate.AGE,
        "`in_batch=on`": recipe.objectives.in_batch is Switch.ON,
        "`id_dropout.share=-1`": recipe.sampling.id_dropout.share == MEASURED,
    }
    if recipe.sampling.shards > 1 and (wanting := [name for name, asked in whole.items() if asked]):
        raise TrainingError(
            f"{wanting[0]} counts over the whole log: set `shards=1`, so that every rank reads all of it"
        )


def _override(recipe: Recipe, key: str, value: str) -> Recipe:
    paths = _paths(recipe)
    found = [path for path in paths if path == key or path.endswith(f".{key}")]
    # Of two settings of one name the outer one is meant: `width` is the model's.
    found = [path for path in found if path.count(".") == min(one.count(".") for one in found)]
    if len(found) > 1:
        raise TrainingError(f"several settings are called {key!r}: write {' or '.join(found)}")
    if not found:
        near = get_close_matches(key, [*paths, *(path.split(".")[-1] for path in paths)], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f": choose one of {', '.join(paths)}"
        raise TrainingError(f"the recipe has no setting {key!r}{hint}")
    return _with(recipe, found[0].split("."), found[0], value)  # type: ignore[no-any-return]


def _with(owner: Any, path: Sequence[str], setting: str, value: str) -> Any:
    """The same dataclass with one field, however deep, as the text says."""
    name, *deeper = path
    old, kind = getattr(owner, name), next(one.type for one in fields(owner) if one.name == name)
    return replace(owner, **{name: _with(old, deeper, setting, value) if deeper else _read(old, kind, setting, value)})


def _read(old: Any, kind: Any, setting: str, value: str) -> Any:
    """A text as a value of the type that stands there; several side by side are written `64,256` or `action,brand`."""
    try:
        if setting == "stages":
            return parse_stages(value)
        if kind in _LISTS:
            one, _ = _LISTS[kind]
            return tuple(one(part) for part in value.replace(",", " ").split())
        return type(old)(value)
    except ValueError as error:
        wanted = {int: "a whole number", float: "a number"}.get(type(old), "")
        if kind in _LISTS:
            wanted = with_article(_LISTS[kind][1])
        elif isinstance(old, StrEnum):
            wanted = f"one of {', '.join(type(old))}"
        raise TrainingError(f"setting {setting!r} takes {wanted}, got {value!r}") from error


def _paths(owner: Any, prefix: str = "") -> list[str]:
    """Settings of plain numbers and words, lists of whole numbers or of words, and the stages, dotted."""
    paths = []
    for one in fields(owner):
        value, name = getattr(owner, one.name), f"{prefix}{one.name}"
        if isinstance(value, ItemConfig):
            continue  # that is for the corpus to say
        if is_dataclass(value):
            paths += _paths(value, f"{name}.")
        elif isinstance(value, int | float | str) or one.type in _LISTS or name == "stages":
            paths.append(name)
    return paths


def _span_and_gap(corpus: Corpus) -> tuple[float, float]:
    """Seconds from the first to the last event that may be fitted on, and the median gap between two groups."""
    events = trainable_events(
        EventBatch.from_tokens(corpus.tokens(["time", "group"]), []), corpus.split, Until.VALIDATION
    )
    if not events.tokens:
        raise TrainingError("no event lies before the validation cut: move `split` in the schema to a later time")
    time_T = (events.time_T + events.start_B[events.user_T]).numpy()
    gap_T = np.diff(events.time_T.numpy())
    gap_T = gap_T[gap_T > 0]
    return max(float(time_T.max() - time_T.min()), 1.0), max(float(np.median(gap_T)) if len(gap_T) else 1.0, 1e-6)
