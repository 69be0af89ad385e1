from __future__ import annotations

import json
import os
import pickletools
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foundation import pretrained
from foundation.embedding import ItemContent, item_content
from foundation.errors import ModelError
from foundation.folder import fingerprint
from foundation.folder import read as folder_of
from foundation.jagged import EventBatch, requests_now
from foundation.model import FoundationModel
from foundation.pooling import NEVER
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus
from tokenization.errors import UserfmError
from tokenization.items.content import ItemTable
from tokenization.tokenizer.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A model directory to damage."""
    return shutil.copytree(folder, tmp_path / "model")


def vectors(model: FoundationModel, batch: EventBatch) -> tuple[torch.Tensor, torch.Tensor]:
    untold = torch.zeros(batch.users, len(model.config.context), dtype=torch.int64)
    with torch.no_grad():
        return model.user_vectors(model(batch, requests_now(batch, None, untold))), model.item_vectors()


def test_a_loaded_model_gives_the_vectors_of_the_saved_one(
    model: FoundationModel, folder: Path, batch: EventBatch
) -> None:
    for loaded in (pretrained.load(folder).model, FoundationModel.from_pretrained(str(folder))):
        assert loaded.config == model.config
        assert not loaded.training
        for one, other in zip(vectors(model, batch), vectors(loaded, batch), strict=True):
            assert torch.equal(one, other)


def test_saving_again_is_the_same_space(
    model: FoundationModel, folder: Path, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    loaded = pretrained.load(folder)
    space = pretrained.save(loaded.model, loaded.tokenizer, tmp_path / "again", "kiosk", 1, 5.0, "# Card\n")
    assert space == loaded.space
    assert (tmp_path / "again" / "README.md").read_text() == "# Card\n"
    assert pretrained.load(tmp_path / "again").space.fingerprint == loaded.space.fingerprint


def test_another_weight_is_another_space(folder: Path, tmp_path: Path) -> None:
    loaded = pretrained.load(folder)
    with torch.no_grad():
        loaded.model.empty_D[0] += 1e-3
    space = pretrained.save(loaded.model, loaded.tokenizer, tmp_path / "other", "kiosk", 1, 5.0, "")
    assert space.fingerprint != loaded.space.fingerprint


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999])
def test_a_flipped_bit_in_the_weights_is_refused(copy: Path, place: float) -> None:
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not the model that space\.json describes: copy the whole folder again"):
        Subgraph.from_pretrained(copy)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_a_flipped_bit_in_the_texts_of_the_items_is_refused(copy: Path, place: float) -> None:
    """Item vectors depend on them, so they are part of the space."""
    path = copy / "tokenizer" / "text_vectors.arrow"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not the model that space\.json describes: copy the whole folder again"):
        Subgraph.from_pretrained(copy)


def test_new_items_leave_the_fingerprint_alone_and_new_contents_do_not(folder: Path) -> None:
    loaded = pretrained.load(folder)
    items, config = loaded.tokenizer.items, loaded.model.config

    def found(changed: ItemTable) -> str:
        return fingerprint(folder, replace(loaded.tokenizer, items=changed), config)

    order = np.random.default_rng(0).permutation(len(items.distinct_vectors))
    renumbered = replace(
        items, distinct_vectors=items.distinct_vectors[order], text_of=np.argsort(order).astype(np.int32)[items.text_of]
    )
    grown = replace(
        renumbered,
        text_of=np.append(renumbered.text_of, 0).astype(np.int32),
        categories={name: np.append(codes, 1).astype(np.int32) for name, codes in items.categories.items()},
    )
    assert found(renumbered) == found(grown) == loaded.space.fingerprint
    for other in (
        replace(items, text_of=np.roll(items.text_of, 1)),
        replace(items, categories={name: np.roll(codes, 1) for name, codes in items.categories.items()}),
        replace(items, distinct_vectors=items.distinct_vectors * np.float32(1.0001)),
    ):
        assert found(other) != loaded.space.fingerprint


def grown(tokenizer: Tokenizer) -> Tokenizer:
    """The same with an id more in every vocabulary, and with two new items."""
    items, candidates = tokenizer.items, tokenizer.schema.candidates
    more = replace(
        items,
        ids=items.ids.grow(pa.array([998, 999])),
        categories={
            name: np.append(codes, [2, v.size]).astype(np.int32)
            for (name, codes), v in zip(items.categories.items(), items.vocabularies.values(), strict=True)
        },
        vocabularies={name: v.grow(pa.array(["grown"])) for name, v in items.vocabularies.items()},
        text=pa.concat_arrays([items.text, pa.array(["new", "newer"])]),
        text_of=np.append(items.text_of, [0, len(items.distinct_vectors)]).astype(np.int32),
        distinct_vectors=np.concatenate([items.distinct_vectors, np.ones_like(items.distinct_vectors[:1])]),
    )
    vocabularies = {
        name: v.grow(pa.array(["grown"])) for name, v in tokenizer.vocabularies.items() if name != candidates
    }
    return replace(tokenizer, items=more, vocabularies={**vocabularies, candidates: more.ids})


def test_a_tokenizer_that_grew_is_still_of_the_models_space(copy: Path, kiosk) -> None:
    before = Subgraph.from_pretrained(copy)
    later = grown(before.tokenizer)
    assert later.fingerprint != before.tokenizer.fingerprint
    later.save(copy / "tokenizer")
    after = Subgraph.from_pretrained(copy)
    assert after.space == before.space
    (_, batch), (_, same) = before.tokenize(kiosk.events), after.tokenize(kiosk.events)
    (user, item), (same_user, more_items) = vectors(before.model, batch), vectors(after.model, same)
    assert torch.equal(user, same_user)
    assert torch.equal(item, more_items[: len(item)])
    assert len(more_items) == len(item) + 2


def change(name: str, find: bytes, put: bytes) -> Callable[[Path], None]:
    def _change(folder: Path) -> None:
        path = folder / name
        assert find in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(find, put))

    return _change


@pytest.mark.parametrize(
    "damage",
    [
        change("config.json", b'"horizons": 3', b'"horizons": 2'),
        change("config.json", b'"format": 3', b'"format": 9'),
        change("space.json", b'"fingerprint": "', b'"fingerprint": "0'),
        lambda folder: (folder / "space.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10]),
        lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{}"),
        lambda folder: next((folder / "tokenizer").glob("vocabulary.*.arrow")).write_bytes(b"torn"),
    ],
)
def test_a_damaged_folder_is_refused_with_a_sentence(copy: Path, damage: Callable[[Path], None]) -> None:
    damage(copy)
    with pytest.raises(UserfmError):
        pretrained.load(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "space.json", "tokenizer"])
def test_what_is_missing_is_named(copy: Path, name: str) -> None:
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelError, match=rf"is no model directory, {name} is missing: give the `model` folder"):
        pretrained.load(copy)


def test_a_model_directory_holds_no_pickle(folder: Path) -> None:
    """Every file is JSON, Arrow, safetensors or the card; and nothing in it is a pickle or an archive of some."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".arrow", ".safetensors", ".md"}
    assert any("heads" in path.parts for path in files)
    for path in files:
        content = path.read_bytes()
        assert not zipfile.is_zipfile(path), path
        with pytest.raises(ValueError):
            list(pickletools.genops(content))
        if path.suffix == ".arrow":
            assert content[:6] == b"ARROW1", path
        if path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            assert json.loads(content[8 : 8 + length]), path


def test_loading_a_model_unpickles_nothing(folder: Path) -> None:
    """Python itself says so: it raises an audit event for each global that an unpickler asks for."""
    code = f"""
import sys
import foundation.subgraph, foundation.heads

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled {{arguments}}")

sys.addaudithook(refuse)
subgraph = foundation.subgraph.Subgraph.from_pretrained("{folder}")
foundation.heads.Heads.load("{folder}", subgraph)
print("loaded", subgraph.space.id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.strip() == "loaded kiosk-v1", done.stderr


def test_no_artefact_names_a_python_class(folder: Path) -> None:
    names = {module.__class__.__name__ for module in pretrained.load(folder).model.modules()}
    for path in folder.rglob("*.json"):
        text = path.read_text()
        assert not [name for name in names | {"foundation."} if f'"{name}' in text], path


def test_an_item_table_that_grew_leaves_every_vector_as_it_was(
    model: FoundationModel, folder: Path, batch: EventBatch
) -> None:
    """Items and categories admitted after training: the model reads them, and says the same of all others."""
    content = item_content(pretrained.load(folder).tokenizer.items)
    later = torch.full((2, content.category_VC.shape[1]), 50)
    grown = ItemContent(
        torch.cat([content.category_VC, later]),
        torch.cat([content.text_UX, torch.ones(1, content.text_UX.shape[1])]),
        torch.cat([content.text_row_V, torch.full((2,), len(content.text_UX))]),
        torch.cat([content.recent_V, torch.zeros(2)]),
        torch.cat([content.media_VM, torch.zeros(2, content.media_VM.shape[1])]),
        torch.cat([content.semantic_VL, torch.zeros(2, content.semantic_VL.shape[1], dtype=torch.int64)]),
    )
    wider = FoundationModel(model.config, grown)
    wider.load_state_dict(model.state_dict())
    (user, item), (same_user, more_items) = vectors(model, batch), vectors(wider.eval(), batch)
    torch.testing.assert_close(same_user, user)
    torch.testing.assert_close(more_items[: len(item)], item)
    assert len(more_items) == len(item) + 2
    untold = torch.zeros(batch.users, len(model.config.context), dtype=torch.int64)
    with torch.no_grad():
        scores = wider.scores(wider(batch, requests_now(batch, None, untold)), more_items)
    assert torch.isfinite(scores[:, -2:]).all()


def shaken(subgraph: Subgraph) -> Subgraph:
    """As if it had been trained further."""
    with torch.no_grad():
        subgraph.model.pooling.own_gain += 0.5
    return subgraph


def test_a_subgraph_trained_further_is_saved_as_a_space_of_its_own(folder: Path, kiosk, tmp_path: Path) -> None:
    subgraph = shaken(Subgraph.from_pretrained(folder))
    before = subgraph.space
    space = subgraph.save_pretrained(tmp_path / "churn", learned="Churn of 2017, AdamW, 3 epochs.", as_of=9.0)
    assert space == subgraph.space
    assert space.fingerprint != before.fingerprint
    assert (space.name, space.version, space.as_of) == ("kiosk", 1, 9.0)
    assert space.lineage == (f"kiosk-v1@{before.fingerprint[:12]}",) == (before.origin,)
    again = Subgraph.from_pretrained(tmp_path / "churn")
    assert again.space == space
    (_, batch), grandchild = subgraph.tokenize(kiosk.events), shaken(again)
    assert not torch.equal(grandchild(batch), subgraph(batch))
    assert grandchild.save_pretrained(tmp_path / "third").lineage == (before.origin, space.origin)
    card = (tmp_path / "churn" / "README.md").read_text()
    for said in ("# kiosk, trained further", f"grew from {before.origin}", "3 epochs", "None is recorded", "> # Card"):
        assert said in card


def test_weights_that_did_not_change_stay_in_their_space(folder: Path, tmp_path: Path) -> None:
    subgraph = Subgraph.from_pretrained(folder)
    subgraph.save_pretrained(str(tmp_path / "same"), learned="nothing", as_of=9.0)
    same, whole = pretrained.load(tmp_path / "same"), pretrained.load(folder)
    assert (same.space, same.card) == (whole.space, whole.card) == (subgraph.space, "# Card\n")
    assert subgraph.double().save_pretrained(tmp_path / "double") == whole.space


class Full(Exception):
    """No space is left on the device, say."""


def test_a_crash_leaves_the_old_model_or_none(
    folder: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Full

    subgraph = shaken(Subgraph.from_pretrained(folder))
    for name in ("foundation.folder.save_file", "foundation.folder.Space.to_json", "foundation.folder.sync"):
        with monkeypatch.context() as patch:
            patch.setattr(name, crash)
            for place in (copy, tmp_path / "fresh"):
                with pytest.raises(Full):
                    subgraph.save_pretrained(place)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert pretrained.load(copy).space == pretrained.load(folder).space


def test_a_model_takes_the_place_of_another_as_a_whole_and_of_nothing_else(folder: Path, copy: Path) -> None:
    (copy.parent / ".model.fresh").mkdir()  # of a process that was killed
    subgraph = shaken(Subgraph.from_pretrained(folder))
    subgraph.save_pretrained(copy)
    assert pretrained.load(copy).space == subgraph.space
    assert not (copy / "heads").exists()
    assert {path.name for path in copy.parent.iterdir()} == {"model"}
    (copy / "thesis.tex").write_text("...")
    with pytest.raises(ModelError, match=r"holds 'thesis\.tex', which is no part of a model: save into a folder of"):
        subgraph.save_pretrained(copy)
    assert (copy / "thesis.tex").exists()


def test_models_saved_while_the_gain_was_a_scalar_and_nothing_stood_beside_own_items_are_read(
    folder: Path, model: FoundationModel
) -> None:
    read = folder_of(folder)
    scalar = {**read.weights, "pooling.own_gain": read.weights["pooling.own_gain"].reshape(())}
    assert torch.equal(FoundationModel.of(replace(read, weights=scalar)).pooling.own_gain, model.pooling.own_gain)
    alone = {name: weight for name, weight in read.weights.items() if name != "pooling.own_rest"}
    assert float(FoundationModel.of(replace(read, weights=alone)).pooling.own_rest) == NEVER
    with pytest.raises(ModelError, match=r"the weights of kiosk-v1 don't fit its config\.json"):
        FoundationModel.of(replace(read, weights={**scalar, "empty_D": torch.zeros(3)}))
