"""Token tables written by hand, in the format of `Tokenizer.transform`; and a run trained on the kiosk's log."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.config import AttentionConfig, ModelConfig, RepeatConfig
from foundation.model import FoundationModel
from tokenization.corpus.corpus import Corpus
from training import data, pretrain
from training.beginning import initial_model
from training.loop import train
from training.optimisers import Optimisation
from training.parallel import Ranks
from training.progress import StepRecord
from training.recipes import Recipe
from training.run import Run, start
from training.training_set import TrainingSet, facet_configs, item_config, read_training_set

DAY = 86_400.0
Token = tuple[float, int, int, int]  # time, group, item code (0 = no item), store code
Log = Mapping[str, Sequence[Token]]
TokenTable = Callable[[Log], pa.Table]


def _token_table(log: Log) -> pa.Table:
    offsets = pa.array(np.cumsum([0, *map(len, log.values())]), pa.int32())
    flat = [token for tokens in log.values() for token in tokens]

    def lists(column: int, dtype: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.array([token[column] for token in flat], dtype))

    ones = pa.ListArray.from_arrays(offsets, pa.array([1] * len(flat), pa.int32()))
    return pa.table(
        {
            "user_id": list(log),
            "time": lists(0, pa.float64()),
            "group": lists(1, pa.int32()),
            "product": lists(2, pa.int32()),
            "store": lists(3, pa.int32()),
            "events": ones,
        }
    )


@pytest.fixture(scope="session")
def token_table() -> TokenTable:
    """Builds a token table from user → (time, group, item, store) of each token."""
    return _token_table


@pytest.fixture(scope="session")
def random_log() -> Callable[[int], Log]:
    """A log of 40 users over 100 days of whole-day times, with groups of 1 to 4 items and groups without."""

    def build(seed: int) -> Log:
        rng = np.random.default_rng(seed)
        log: dict[str, list[Token]] = {}
        for user in range(40):
            days = np.sort(rng.choice(100, rng.integers(1, 15), replace=False))
            log[f"u{user}"] = [
                (86400.0 * day, group, int(item), int(rng.integers(2, 5)))
                for group, day in enumerate(days)
                for item in _items(rng)
            ]
        return log

    def _items(rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.2:
            return np.array([0])
        return np.sort(1 + rng.choice(19, rng.integers(1, 5), replace=False))

    return build


@pytest.fixture(scope="session")
def recipe(kiosk_corpus: Corpus) -> Recipe:
    """Every number stated, so that no tuning of the named recipes moves what is tested with it."""
    tokenizer = kiosk_corpus.tokenizer
    model = ModelConfig(
        facets=facet_configs(tokenizer),
        item=item_config(tokenizer),
        repeat=RepeatConfig(half_lives=(10 * DAY, 40 * DAY, math.inf), time_unit=DAY, width=8),
        targets=(("quantity", 0.1), ("action", 0.1)),
        width=16,
        layers=1,
        heads=2,
        attention=AttentionConfig(windows=(16,)),
        horizons=2,
    )
    sampling = data.Sampling(tokens=60, requests=4, negatives=24, negative_power=0.75, context_dropout=0.2)
    optimisation = Optimisation(rate=6e-3, table_rate=2e-2, weight_decay=0.01, warmup=5, clip=1.0)
    return Recipe(
        model, sampling, optimisation=optimisation, epochs=5, minutes=math.inf, checkpoint_seconds=math.inf, seed=3
    )


@pytest.fixture(scope="session")
def training_set(kiosk_corpus: Corpus, recipe: Recipe) -> TrainingSet:
    return read_training_set(kiosk_corpus, recipe.model)


@pytest.fixture(scope="session")
def trained(kiosk_corpus: Corpus, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the kiosk; copy it before changing anything in it."""
    run = start(kiosk_corpus, tmp_path_factory.mktemp("trained") / "run", recipe)
    pretrain.pretrain_bare(run)
    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums are bit for bit the same only when they are divided among as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train_until(
    corpus: Corpus, training_set: TrainingSet, recipe: Recipe, checkpoints: Path, stop: int | None = None
) -> tuple[FoundationModel, list[StepRecord]]:
    """A model trained to the end of the recipe, or cut off within step `stop`; from the newest checkpoint if any."""
    model = initial_model(training_set, corpus, recipe)
    records: list[StepRecord] = []

    def on_step(record: StepRecord) -> None:
        if record.step == stop:
            raise KeyboardInterrupt
        records.append(record)

    try:
        train(model, training_set, recipe, checkpoints, Ranks.alone(), on_step)
    except KeyboardInterrupt:
        assert stop is not None
    return model, records
