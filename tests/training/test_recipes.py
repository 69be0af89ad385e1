from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from foundation.config import CandidateConfig, Rotary
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.errors import UserfmError
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import TrainingError
from training.recipes import Name, Recipe, named, objectives_for, with_overrides

DAY = 86_400


@pytest.mark.parametrize("name", list(Name))
def test_a_named_recipe_is_read_as_it_was_written(kiosk_corpus: Corpus, name: Name) -> None:
    recipe = replace(named(name, kiosk_corpus), minutes=2.5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    endless = replace(recipe, minutes=math.inf)
    assert Recipe.from_json(endless.to_json()) == endless


def test_a_recipe_takes_facets_items_and_targets_from_the_tokenizer(kiosk_corpus: Corpus) -> None:
    model = named(Name.DEFAULT, kiosk_corpus).model
    tokenizer = kiosk_corpus.tokenizer
    assert [(f.name, f.size, f.role) for f in model.facets] == [(f.name, f.size, str(f.role)) for f in tokenizer.facets]
    assert (model.item.facet, model.item.codes, model.item.text_width) == ("product", len(tokenizer.items), 256)
    assert dict(model.item.categories) == tokenizer.items.category_sizes
    assert dict(model.targets) == {"quantity": 0.1, "action": 0.1}


def test_time_is_measured_in_what_the_log_before_validation_shows(kiosk_corpus: Corpus) -> None:
    model = named(Name.DEFAULT, kiosk_corpus).model
    rows = kiosk_corpus.tokens(["time"])["time"].to_pylist()
    before = [sorted({at for at in row if at < kiosk_corpus.split.validation}) for row in rows]
    times = [at for row in before for at in row]
    gaps = [gap for row in before for gap in np.diff(row)]
    finite = [half_life for half_life in model.repeat.half_lives if math.isfinite(half_life)]
    assert max(finite) == pytest.approx(max(times) - min(times))
    assert model.repeat.half_lives[-1] == math.inf
    assert model.repeat.time_unit == pytest.approx(float(np.median(gaps)))


def test_stored_vectors_learn_a_window_of_days_where_a_log_has_days(kiosk_corpus: Corpus) -> None:
    schema = kiosk_corpus.tokenizer.schema
    assert named(Name.DEFAULT, kiosk_corpus).objectives.future == 0.3
    assert objectives_for(schema.model_copy(update={"time": None, "position": "at"})).future == 0


def test_settings_are_replaced_by_name_or_by_path(kiosk_corpus: Corpus) -> None:
    recipe = named(Name.DEFAULT, kiosk_corpus)
    changed = with_overrides(
        recipe, {"width": "128", "sampling.tokens": "99", "rate": "1e-4", "epochs": "2", "seed": "7"}
    )
    assert (changed.model.width, changed.sampling.tokens, changed.optimisation.rate) == (128, 99, 1e-4)
    assert (changed.epochs, changed.seed) == (2, 7)
    assert with_overrides(changed, {"backend": "reference"}).model.backend == "reference"
    sparse = with_overrides(recipe, {"windows": "64,0", "sinks": "4", "model.attention.memory": "2", "rotary": "both"})
    assert sparse.model.attention == replace(
        recipe.model.attention, windows=(64, 0), sinks=4, memory=2, rotary=Rotary.BOTH
    )
    assert with_overrides(recipe, {"layers": "1", "repeat.width": "8"}).model.repeat.width == 8
    aware = with_overrides(changed, {"candidates.layers": "2", "reach": "9", "model.candidates.heads": "4"})
    assert aware.model == replace(changed.model, candidates=CandidateConfig(layers=2, heads=4, reach=9))
    # Of several settings of one name the outermost is meant.
    assert with_overrides(aware, {"layers": "3"}).model == replace(aware.model, layers=3)
    assert with_overrides(recipe, {}) == recipe


def test_every_setting_of_the_model_itself_can_be_written_without_its_path(recipe: Recipe) -> None:
    for name in ("interests", "pools", "state_layers", "bands", "width", "dropout"):
        with_overrides(recipe, {name: str(getattr(recipe.model, name)).strip("(),")})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("widht", "64", "no setting 'widht'; did you mean 'width'?"),
        ("model.widht", "64", "no setting 'model.widht'; did you mean 'model.width'?"),
        ("zzz", "1", "no setting 'zzz': choose one of"),
        (
            "time_unit",
            "1",
            "several settings are called 'time_unit': write model.repeat.time_unit or model.attention.time_unit",
        ),
        ("item.codes", "1", "no setting 'item.codes'"),
        ("windows", "64;0", "setting 'model.attention.windows' takes a list of whole numbers, got '64;0'"),
        ("rotary", "sideways", "setting 'model.attention.rotary' takes one of place, time, both, got 'sideways'"),
        ("width", "wide", "setting 'model.width' takes a whole number, got 'wide'"),
        ("candidates.layer", "1", "no setting 'candidates.layer'; did you mean"),
        ("epochs", "2.5", "setting 'epochs' takes a whole number, got '2.5'"),
        ("backend", "magic", "setting 'model.backend' takes one of reference, blocked, flex, xformers, got 'magic'"),
    ],
)
def test_a_setting_that_can_not_be_is_named_with_the_nearest(
    kiosk_corpus: Corpus, key: str, value: str, sentence: str
) -> None:
    with pytest.raises(TrainingError) as error:
        with_overrides(named(Name.SMALL, kiosk_corpus), {key: value})
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("requests", "0", "sampling: 'requests' must be at least 1, got 0"),
        ("negatives", "0", "sampling: 'negatives' must be at least 1, got 0"),
        ("tokens", "-5", "sampling: 'tokens' must be at least 1, got -5"),
        ("context_dropout", "2", "sampling: 'context_dropout' is a share, from 0 to 1, got 2"),
        ("history_dropout", "nan", "sampling: 'history_dropout' is a share, from 0 to 1, got nan"),
        ("negative_power", "-1", "sampling: 'negative_power' must be at least 0, got -1"),
        ("warmup", "0", "optimisation: 'warmup' must be at least 1 step, got 0"),
        ("rate", "inf", "optimisation: 'rate' must be at least 0, got inf"),
        ("clip", "0", "optimisation: 'clip' must be above 0, inf for no limit, got 0"),
        ("epochs", "0", "`epochs` must be at least 1 and `minutes` above 0, got 0 and inf"),
        ("minutes", "0", "`epochs` must be at least 1 and `minutes` above 0, got 2 and 0"),
        ("in_batch", "7", "setting 'objectives.in_batch' takes one of on, off, got '7'"),
        ("slates", "2", "objective 'slates' must be at most 1 and 'competitors' at least 1, got 2.0 and 64"),
        ("codes", "0.3", "a decoder of 0 layers learns from `codes` 0.3: give both"),
        ("decoder.layers", "1", "items have no semantic IDs to decode"),
        ("distill", "0.1", "a trunk of one layer has no earlier one to learn: give `layers` 2"),
    ],
)
def test_a_setting_that_would_learn_nothing_or_break_later_is_refused_at_once(
    kiosk_corpus: Corpus, key: str, value: str, sentence: str
) -> None:
    with pytest.raises(UserfmError) as error:
        with_overrides(named(Name.SMALL, kiosk_corpus), {key: value})
    assert sentence in str(error.value)


def test_lists_of_words_are_settings(kiosk_corpus: Corpus) -> None:
    recipe = named(Name.SMALL, kiosk_corpus)
    changed = with_overrides(recipe, {"intents": "kind, action", "category_targets": "brand", "objectives.intent": "1"})
    assert changed.model.intents == ("kind", "action")
    assert changed.model.category_targets == ("brand",)
    assert changed.objectives.intent == 1.0
    assert Recipe.from_json(changed.to_json()) == changed
    assert with_overrides(changed, {"intents": "", "category_targets": "", "intent": "0.1"}) == recipe


@pytest.mark.parametrize("text", ["", "{}", "3", "[]", '{"model": 1}'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="this recipe can't be read"):
        Recipe.from_json(text)


def test_a_log_that_lies_behind_the_split_is_refused(kiosk, tmp_path) -> None:
    tokenizer = Tokenizer.fit(kiosk.schema, kiosk.events, kiosk.items)
    late = kiosk.events.filter(np.array(kiosk.events["time"]) >= tokenizer.split.validation)
    corpus = write_corpus(tmp_path / "corpus", [tokenizer.transform(late)], tokenizer, {})
    with pytest.raises(TrainingError, match="no event lies before the validation cut: move `split`"):
        named(Name.DEFAULT, corpus)
