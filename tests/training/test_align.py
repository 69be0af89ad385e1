from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation.alignment import UNALIGNED, Shared
from foundation.errors import ModelError
from foundation.heads import Heads
from foundation.space import Space
from foundation.subgraph import Subgraph
from serving.engine import Engine
from serving.rows import Entity
from serving.store import EmbeddingStore
from tokenization.corpus.corpus import Corpus
from training import pretrain
from training.align import Known, align, check_lineage, dots_moved, fitted, known, told, weighted_mean
from training.errors import RunError
from training.push import push
from training.recipes import Recipe
from training.run import Run, start

TARGET = Space("kiosk", 1, "a" * 64, 9, 5.0)


@pytest.fixture(scope="module")
def before(kiosk_corpus: Corpus, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model before: another training of the same recipe."""
    folder = tmp_path_factory.mktemp("before") / "run"
    run = start(kiosk_corpus, folder, replace(recipe, seed=4, epochs=2))
    pretrain.pretrain_bare(run)
    return run


@pytest.fixture
def again(trained: Run, tmp_path: Path) -> Run:
    """A run to align, with heads."""
    run = Run.open(shutil.copytree(trained.folder, tmp_path / "again"))
    Heads.untrained(Subgraph.from_pretrained(run.model)).save(run.model)
    return run


def cloud(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 9, generator=torch.Generator().manual_seed(seed))


def turned(rows: int, seed: int, noise: float) -> Shared:
    """Vectors of width 8 + 1, the same in two spaces but for a rotation and noise."""
    turn = torch.linalg.qr(cloud(9, 99)[:8, :8])[0]
    source = cloud(rows, seed)
    target = torch.cat([source[:, :8] @ turn, source[:, 8:]], dim=1) + noise * cloud(rows, seed + 1)
    return Shared(source, target, torch.ones(rows))


def test_a_fit_is_judged_by_what_it_has_not_seen() -> None:
    fit = fitted(Known(turned(200, 0, 0.1), turned(300, 2, 0.1)), TARGET)
    for judged, rows in ((fit.users, 200), (fit.items, 300)):
        assert judged.fitted + judged.held_out == rows
        assert judged.held_out > 20
        assert judged.before.mean < 0.3 < 0.95 < judged.after.low
    assert fit.dots < 1e-5
    assert fit.alignment.aligned_to == TARGET.origin


def test_where_two_spaces_share_nothing_held_out_entities_say_so() -> None:
    noise = Known(*(Shared(cloud(20, seed), cloud(20, seed + 1), torch.ones(20)) for seed in (0, 2)))
    assert fitted(noise, TARGET).users.after.mean < 0.5


def test_too_few_shared_entities_are_refused() -> None:
    with pytest.raises(RunError, match=r"users and items that both models know are too few for a map of 8 dimensions"):
        fitted(Known(turned(6, 0, 0.0), turned(6, 2, 0.0)), TARGET)


def test_items_count_by_how_often_they_were_met() -> None:
    weight = torch.tensor([0.0, 1.0, 3.0])
    found = weighted_mean(torch.tensor([5.0, 1.0, 0.0]), weight)
    assert found.mean == pytest.approx(0.25)


def test_frames_name_every_space_before() -> None:
    target = replace(TARGET, frames=("b" * 64,))
    fit = fitted(Known(turned(60, 0, 0.1), turned(60, 2, 0.1)), target)
    assert fit.alignment.frames == ("b" * 64, "a" * 64)


def test_both_models_read_the_same_histories_until_the_run_stopped_learning(
    again: Run, before: Run, kiosk_corpus: Corpus
) -> None:
    mine, other = Subgraph.from_pretrained(again.model), Subgraph.from_pretrained(before.model)
    found = known(mine, other, kiosk_corpus, again.until, lambda stage, done, total: None)
    tokens = kiosk_corpus.tokens()
    assert len(found.users.source_ND) == tokens.num_rows
    with torch.inference_mode():
        _, whole = mine.pack(tokens)
        assert not torch.allclose(mine(whole), found.users.source_ND)
    items = mine.item_vectors()[2:].detach()
    torch.testing.assert_close(found.items.source_ND, items)
    assert torch.equal(found.items.weight_N, torch.from_numpy(mine.tokenizer.items.count[2:]).float())


def test_an_aligned_run_leaves_in_the_older_directions_everywhere_and_ranks_as_before(
    again: Run, before: Run, kiosk, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    store = EmbeddingStore(tmp_path / "store")
    old = push(before, kiosk_corpus, store)
    plain = push(again, kiosk_corpus, store)
    fit, space = align(again, store.pushed_model(old))
    new = push(again, kiosk_corpus, store)
    assert (old.version, plain.version, new.version) == (1, 2, 3)
    assert old.accepts(new)
    assert not old.accepts(plain)
    assert new.fingerprint == space.fingerprint
    store.publish(new)

    engine, subgraph = Engine.open(store), Subgraph.from_pretrained(again.model)
    users, batch = subgraph.pack(kiosk_corpus.tokens())
    ids = subgraph.tokenizer.items.ids.decode(np.arange(2, 47, dtype=np.int32))
    with torch.inference_mode():
        user_BD, item_VD = subgraph(batch), subgraph.item_vectors()[2:]
    stored_BD = engine.lookup(Entity.USER, users.cast(pa.large_string())).vectors_ND
    stored_VD = engine.lookup(Entity.ITEM, ids.cast(pa.int64())).vectors_ND
    np.testing.assert_allclose(stored_BD, fit.alignment(user_BD), atol=1e-5)
    np.testing.assert_allclose(stored_VD, fit.alignment(item_VD), atol=1e-5)
    assert np.abs(stored_BD - user_BD.numpy()).max() > 0.1
    np.testing.assert_allclose(stored_BD @ stored_VD.T, user_BD @ item_VD.T, atol=1e-4)
    encoded = engine.encoder.encode(kiosk.events, None, None)
    at = [encoded.users.to_pylist().index(user) for user in users.to_pylist()]
    np.testing.assert_allclose(encoded.vectors_BD[at], stored_BD, atol=1e-5)


def test_aligning_again_begins_at_the_model_and_not_at_its_last_map(again: Run, before: Run) -> None:
    first, space = align(again, before.model)
    second, same = align(again, before.model)
    assert same == space
    assert torch.equal(first.alignment.blocks[0], second.alignment.blocks[0])
    assert (again.model / "README.md").read_text().count("## Alignment") == 1
    for line in told(first):
        assert line in (again.model / "README.md").read_text()


def test_what_could_not_be_the_space_before_is_refused(again: Run, before: Run, tmp_path: Path) -> None:
    mine, other = Subgraph.from_pretrained(again.model), Subgraph.from_pretrained(before.model)
    with pytest.raises(RunError, match=r"is of the same weights as the run"):
        check_lineage(mine.space, mine)
    with pytest.raises(RunError, match=r"can't be aligned to kiosk: take an earlier model of the same log's name"):
        check_lineage(replace(mine.space, name="shop"), other)
    with pytest.raises(RunError, match=r"the run are 9 wide, those of kiosk-v1@.{12} 17: a rotation"):
        check_lineage(replace(mine.space, width=9), other)
    grown = Subgraph.from_pretrained(again.model)
    with torch.no_grad():
        grown.model.empty_D[0] += 1.0
    grown.save_pretrained(tmp_path / "grown")
    with pytest.raises(RunError, match=r"came after .*: align the later one to the earlier one"):
        align(again, tmp_path / "grown")
    align(again, before.model)
    with pytest.raises(RunError, match=r"came after"):
        check_lineage(other.space, Subgraph.from_pretrained(again.model))
    with pytest.raises(ModelError, match=r"bands"):
        align(again, before.model, bands=(16, 16))
    assert Subgraph.from_pretrained(before.model).alignment.widths == ()


def test_the_moment_of_an_item_is_that_of_its_own_training(again: Run, before: Run) -> None:
    _, space = align(again, before.model)
    assert space.as_of == Subgraph.from_pretrained(again.model).space.as_of


def test_products_that_a_map_would_move_are_told() -> None:
    assert dots_moved(UNALIGNED, cloud(5, 0), cloud(5, 1)) == 0.0
