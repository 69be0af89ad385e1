"""Media and semantic IDs of items on their way through: declared, tokenized, learned, saved, grown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation import pretrained
from foundation.embedding import item_content
from foundation.folder import fingerprint
from foundation.pretrained import Pretrained
from tokenization.corpus.corpus import Corpus, write_corpus
from tokenization.schema.event_schema import EventSchema
from tokenization.sources.tables import items_rule
from tokenization.tokenizer.tokenizer import Tokenizer
from training import pretrain
from training.recipes import Recipe
from training.run import start
from training.training_set import facet_configs, item_config


@dataclass(frozen=True)
class Rich:
    """The kiosk with an image an article: its corpus, its items, and a model of it that was trained a little."""

    corpus: Corpus
    items: pa.Table
    folder: Path
    model: Pretrained


@pytest.fixture(scope="module")
def rich(kiosk: Any, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Rich:
    declared = kiosk.schema.to_dict()
    declared["items"] |= {"vectors": ["image"], "semantic_ids": {"levels": 2, "codes": 4}}
    schema = EventSchema.from_dict(declared)
    image = np.random.default_rng(0).normal(size=(len(kiosk.items), 3))
    items = kiosk.items.append_column("image", pa.array(list(image)))
    tokenizer = Tokenizer.fit(schema, kiosk.events, items)
    tokens = tokenizer.transform(kiosk.events)
    folder = tmp_path_factory.mktemp("rich")
    corpus = write_corpus(folder / "corpus", [tokens], tokenizer, {"events": 1, "tokens": 1, "users": 1, "items": 1})
    model = replace(recipe.model, facets=facet_configs(tokenizer), item=item_config(tokenizer))
    run = start(corpus, folder / "run", replace(recipe, model=model, epochs=1))
    pretrain.pretrain_bare(run)
    [path] = [path.parent for path in (folder / "run").rglob("model.safetensors")]
    return Rich(corpus, items, path, pretrained.load(path))


def test_a_declared_image_and_semantic_ids_reach_the_model(rich: Rich) -> None:
    tower, config = rich.model.model.tower, rich.model.model.config.item
    assert config.media_width == 3
    assert config.semantic_ids == (6, 6)
    assert tower.media_VM.shape == (tower.codes, 3)
    assert tower.semantic_VL.shape == (tower.codes, 2)
    assert tower.semantic_VL[2:].min() >= 2
    assert all(table.weight[2:].any() for table in tower.semantic_ids)


def test_the_fingerprint_knows_codes_and_images_and_not_what_grew(rich: Rich) -> None:
    tokenizer, config = rich.model.tokenizer, rich.model.model.config
    items = tokenizer.items
    assert items.semantic is not None

    def found(**changes: Any) -> str:
        changed = replace(tokenizer, items=replace(items, **changes))
        return fingerprint(rich.folder, changed, config)

    known = rich.model.space.fingerprint
    assert found() == known
    assert found(semantic=replace(items.semantic, codes=np.roll(items.semantic.codes, 1, axis=0))) != known
    assert found(media={"image": -items.media["image"]}) != known
    later = replace(tokenizer, items=_grown(rich))
    assert fingerprint(rich.folder, later, config) == known


def test_items_that_come_later_have_codes_and_change_no_vector(rich: Rich) -> None:
    grown = _grown(rich)
    before, after = item_content(rich.model.tokenizer.items), item_content(grown)
    assert len(after) == len(before) + 2
    assert torch.equal(after.semantic_VL[: len(before)], before.semantic_VL)
    assert after.semantic_VL[-2:].min() >= 2
    tower = type(rich.model.model.tower)(rich.model.model.config, after)
    tower.load_state_dict(rich.model.model.tower.state_dict())
    with torch.no_grad():
        vector_VD = tower(torch.arange(tower.codes))
        torch.testing.assert_close(vector_VD[: len(before)], rich.model.model.tower(torch.arange(len(before))))
    assert torch.isfinite(vector_VD).all()
    assert not torch.equal(vector_VD[-1], vector_VD[-2])


def _grown(rich: Rich) -> Any:
    tokenizer = rich.model.tokenizer
    later = rich.items.slice(3, 2).set_column(0, "article", pa.array([900, 901]))
    return tokenizer.items.grow(later, items_rule(tokenizer.schema))
