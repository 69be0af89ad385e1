from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from foundation.space import Space
from serving.errors import CorruptStore, NothingPublished, PublishRefused, SpaceConflict, StoreError
from serving.publication import Publication
from serving.rows import Entity
from serving.store import EmbeddingStore


def vectors_of(store: EmbeddingStore, entity: Entity, ids: list[int] | list[str]) -> np.ndarray:
    snapshot = store.snapshot(store.current(), entity)
    asked = pa.array(ids, snapshot.ids.type)
    return snapshot.vectors_ND[snapshot.index.rows(asked)]


def test_what_is_pushed_and_published_is_served(store, space, batch) -> None:
    users, items = batch(["ann", "bob"], seed=1), batch([7, 8, 9], seed=2)
    store.push(space, Entity.USER, [users])
    store.push(space, Entity.ITEM, [items])
    publication = store.publish(space)
    assert (publication.epoch, publication.user.rows, publication.item.rows) == (1, 2, 3)
    assert np.array_equal(vectors_of(store, Entity.USER, ["bob", "ann"]), users.vectors_ND[::-1])
    assert np.array_equal(vectors_of(store, Entity.ITEM, [9, 7]), items.vectors_ND[[2, 0]])
    assert store.snapshot(publication, Entity.USER).as_of_N.tolist() == [1e9 + 1] * 2


def test_pushing_the_same_again_changes_nothing(store, fill) -> None:
    fill(store)
    before = {entity: vectors_of(store, entity, ids) for entity, ids in ((Entity.USER, ["user-7"]),)}
    fill(store)
    assert store.current().user.rows == 100
    assert np.array_equal(vectors_of(store, Entity.USER, ["user-7"]), before[Entity.USER])


def test_publishing_the_same_again_is_the_same_publication(store, space, fill) -> None:
    fill(store)
    assert store.publish(space) == store.current()
    assert store.current().epoch == 1


def test_a_vector_that_saw_fewer_events_never_replaces_one_that_saw_more(store, space, batch) -> None:
    fresh, stale, later = batch(["ann"], 1, event_seq=9), batch(["ann"], 2, event_seq=8), batch(["ann"], 3, event_seq=9)
    store.push(space, Entity.ITEM, [batch([1, 2])])
    for pushed, expected in ((fresh, fresh), (stale, fresh), (later, later)):
        store.push(space, Entity.USER, [pushed])
        store.publish(space)
        assert np.array_equal(vectors_of(store, Entity.USER, ["ann"]), expected.vectors_ND)


def test_an_id_twice_in_one_push_keeps_the_vector_with_the_most_events(store, space, batch) -> None:
    batches = [batch(["ann", "bob"], 1, event_seq=5), batch(["ann"], 2, event_seq=7), batch(["ann"], 3, event_seq=6)]
    store.push(space, Entity.USER, batches)
    store.push(space, Entity.ITEM, [batch([1, 2])])
    assert store.publish(space).user.rows == 2
    assert np.array_equal(vectors_of(store, Entity.USER, ["ann"]), batches[1].vectors_ND)


def test_a_push_resumes_with_the_ids_that_are_missing(store, space, batch) -> None:
    def interrupted():
        yield batch([f"u{i}" for i in range(70_000)])
        raise KeyboardInterrupt

    heard: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        store.push(space, Entity.USER, interrupted(), heard.append)
    assert heard == [70_000]
    assert sorted(store.pushed(space, Entity.USER)["id"].to_pylist()) == sorted(f"u{i}" for i in range(70_000))
    assert len(store.pushed(space, Entity.ITEM)) == 0


def test_what_is_pushed_says_how_many_events_it_has_seen(store, space, batch) -> None:
    store.push(space, Entity.USER, [batch([3, 1], event_seq=5), batch([2], event_seq=7)])
    store.push(space, Entity.USER, [batch([1], event_seq=9)])
    found = store.pushed(space, Entity.USER).sort_by("id")
    assert found.to_pydict() == {"id": [1, 2, 3], "event_seq": [9, 7, 5]}


def test_ids_of_one_entity_are_of_one_kind(store, space, batch) -> None:
    with pytest.raises(StoreError, match="some batches have text ids and some integers"):
        store.push(space, Entity.USER, [batch(["1"]), batch([1])])
    store.push(space, Entity.USER, [batch(["1"])])
    with pytest.raises(StoreError, match="are text, those pushed are integers; convert them to text"):
        store.push(space, Entity.USER, [batch([1])])


@pytest.mark.parametrize("name", ["'; DROP TABLE users --", "id = id", "\0", "ünï/../..", "a" * 10_000])
def test_any_text_is_an_id(store, space, batch, name: str) -> None:
    for seed in (0, 1):
        store.push(space, Entity.USER, [batch([name, "other"], seed, event_seq=seed)])
    store.push(space, Entity.ITEM, [batch([1])])
    assert store.publish(space).user.rows == 2
    assert np.array_equal(vectors_of(store, Entity.USER, [name]), batch([name, "other"], 1).vectors_ND[:1])


def test_spaces_never_mix(store, space, batch, fill) -> None:
    fill(store)
    other = replace(space, fingerprint="e" * 64)
    for refused in (
        lambda: store.push(other, Entity.USER, [batch(["ann"])]),
        lambda: store.publish(other),
    ):
        with pytest.raises(SpaceConflict, match="gives the new model the next version"):
            refused()
    following = replace(other, version=2)
    fill(store, following, seed=5)
    assert store.current().space == following


def test_a_store_gives_a_new_fingerprint_the_next_version(store, space, batch) -> None:
    assert store.spaces() == []
    assert store.numbered(space) == space
    for version, letter in ((2, "e"), (3, "d")):
        other = replace(space, fingerprint=letter * 64)
        assert store.numbered(other) == store.numbered(other) == replace(other, version=version)
    assert store.numbered(replace(space, version=7, as_of=3.0)) == replace(space, as_of=3.0)
    assert store.numbered(replace(space, fingerprint="c" * 64, version=9)).version == 9
    assert store.numbered(replace(space, fingerprint="b" * 64)).version == 10
    assert store.numbered(replace(space, fingerprint="b" * 64, name="other")).version == 1
    assert [held.id for held in store.spaces() if held.name == "shop"] == [f"shop-v{n}" for n in (1, 2, 3, 9, 10)]


def test_two_that_ask_at_once_get_two_versions(store, space) -> None:
    others = [replace(space, fingerprint=f"{number:064d}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(store.numbered, others))
    assert sorted(held.version for held in found) == list(range(1, 9))


def test_the_space_whose_model_was_pushed_last_is_the_last(store, space, tmp_path) -> None:
    spaces = [store.numbered(replace(space, fingerprint=letter * 64)) for letter in "fed"]
    for held in (spaces[1], spaces[0]):
        folder = tmp_path / held.id
        folder.mkdir()
        (folder / "space.json").write_text(held.to_json())
        store.push_model(held, folder)
    assert store.spaces() == [spaces[2], spaces[1], spaces[0]]
    # And a copy of the store, in which every file is of now, says the same.
    copy = EmbeddingStore(shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copyfile))
    assert copy.spaces() == store.spaces()


def test_a_torn_description_of_a_space_is_named(store, space) -> None:
    store.numbered(space)
    (store.root / "spaces" / "shop-v1" / "space.json").write_text('{"space": {"na')
    with pytest.raises(CorruptStore, match=r"shop-v1/space\.json can't be read"):
        store.spaces()


def test_a_space_name_is_no_path(store, space, batch) -> None:
    with pytest.raises(StoreError, match="can't be called"):
        store.push(replace(space, name="../../etc"), Entity.USER, [batch(["ann"])])


def test_rollback_walks_back_through_the_publications(store, space, batch) -> None:
    with pytest.raises(StoreError, match="no embedding store"):
        store.rollback()
    epochs = []
    for seed in range(3):
        store.push(space, Entity.USER, [batch(["ann"], seed, event_seq=seed)])
        store.push(space, Entity.ITEM, [batch([1], seed, event_seq=seed)])
        epochs.append(store.publish(space))
    for back in (1, 0):
        rolled = store.rollback()
        assert (rolled.user, rolled.item) == (epochs[back].user, epochs[back].item)
        assert rolled.epoch > epochs[-1].epoch
        assert np.array_equal(vectors_of(store, Entity.USER, ["ann"]), batch(["ann"], back).vectors_ND)
    with pytest.raises(StoreError, match=r"nothing was published .* before epoch 5"):
        store.rollback()


def test_a_refused_publish_leaves_the_old_version_current(store, space, batch, fill) -> None:
    fill(store)
    before = store.current()
    broken = batch(["user-3"], event_seq=2)
    broken.vectors_ND[0, 0] = np.nan
    store.push(space, Entity.USER, [broken])
    with pytest.raises(PublishRefused, match="1 of 100 vectors"):
        store.publish(space)
    assert store.current() == before
    store.push(space, Entity.USER, [batch(["user-3"], event_seq=3)])
    assert store.publish(space).epoch == 2


def test_publish_needs_users_and_items(store, space, batch) -> None:
    with pytest.raises(StoreError, match="nothing has been pushed"):
        store.publish(space)
    store.push(space, Entity.USER, [batch(["ann"])])
    with pytest.raises(NothingPublished, match="nothing published yet"):
        store.current()
    with pytest.raises(StoreError, match="no item vectors have been pushed to shop-v1"):
        store.publish(space)


def test_a_bit_flipped_in_lance_is_caught_before_it_is_published(store, space, batch) -> None:
    pushed = batch([f"u{i}" for i in range(500)])
    store.push(space, Entity.ITEM, [batch([1])])
    store.push(space, Entity.USER, [pushed])
    file = next((store.root / "spaces/shop-v1/user.lance/data").glob("*.lance"))
    content = bytearray(file.read_bytes())
    content[content.find(pushed.vectors_ND[250].tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptStore, match=r"1 of 500 rows of .*user\.lance differ from what was pushed"):
        store.publish(space)


def test_a_damaged_snapshot_is_caught_and_mended_by_publishing_again(store, space, fill) -> None:
    fill(store)
    before = vectors_of(store, Entity.USER, ["user-1"])
    for name, damage in (
        ("vectors.f32", lambda file: file.write_bytes(b"\xff" + file.read_bytes()[1:])),
        ("keys.u64", lambda file: file.write_bytes(file.read_bytes()[:-8])),
        ("rows.arrow", lambda file: file.unlink()),
        ("snapshot.json", lambda file: file.write_bytes(file.read_bytes()[:100])),
    ):
        damage(store.root / store.current().user.snapshot / name)
        with pytest.raises(CorruptStore, match=name):
            store.snapshot(store.current(), Entity.USER)
        assert store.publish(space).epoch == 1
        assert np.array_equal(vectors_of(store, Entity.USER, ["user-1"]), before)


def test_a_torn_pointer_is_named(store, fill) -> None:
    fill(store)
    (store.root / "current.json").write_text('{"format": 1, "epo')
    with pytest.raises(CorruptStore, match=r"current\.json can't be read"):
        store.current()


def test_a_publication_of_another_format_is_refused(store, fill) -> None:
    fill(store)
    with pytest.raises(ValueError):
        Publication.from_json(store.current().to_json().replace('"format": 1', '"format": 2'))


def test_the_model_is_copied_and_published_with_the_vectors(store, space, tmp_path, fill) -> None:
    model = tmp_path / "model"
    (model / "heads").mkdir(parents=True)
    (model / "space.json").write_text(space.to_json())
    (model / "heads" / "home.json").write_text("{}")
    store.push_model(space, model)
    fill(store)
    copy = store.model(store.current())
    assert copy is not None
    assert (copy / "heads" / "home.json").read_text() == "{}"
    (model / "heads" / "home.json").write_text('{"changed": 1}')
    assert (copy / "heads" / "home.json").read_text() == "{}"
    store.push_model(space, model)
    assert store.model(store.publish(space)) != copy


@pytest.mark.parametrize("name", ["heads/home.safetensors", "model.safetensors", "space.json"])
def test_a_bit_flipped_in_the_model_is_refused_and_mended_by_pushing_again(
    store, space, tmp_path, fill, name: str
) -> None:
    model = tmp_path / "model"
    (model / "heads").mkdir(parents=True)
    (model / "space.json").write_text(space.to_json())
    for weights in ("heads/home.safetensors", "model.safetensors"):
        (model / weights).write_bytes(bytes(100))
    store.push_model(space, model)
    fill(store)
    copy = store.model(store.current())
    assert copy is not None
    content = bytearray((copy / name).read_bytes())
    content[50] ^= 1
    (copy / name).write_bytes(content)
    for refused in (lambda: store.model(store.current()), lambda: store.publish(space)):
        with pytest.raises(CorruptStore, match=r"is not the model that was pushed there; push its run again"):
            refused()
    assert store.push_model(space, model) == copy
    assert store.model(store.publish(space)) == copy
    assert store.current().epoch == 1


def test_a_model_of_another_space_is_refused(store, space, tmp_path) -> None:
    with pytest.raises(StoreError, match=r"no model directory: it has no space\.json"):
        store.push_model(space, tmp_path)
    (tmp_path / "space.json").write_text(replace(space, fingerprint="0" * 64).to_json())
    with pytest.raises(SpaceConflict, match="the model in"):
        store.push_model(space, tmp_path)


def test_the_id_is_lances_primary_key(store, space, batch) -> None:
    store.push(space, Entity.USER, [batch(["ann"])])
    field = lance.dataset(str(store.root / "spaces/shop-v1/user.lance")).schema.field("id")
    assert field.metadata == {b"lance-schema:unenforced-primary-key": b"true"}
    assert not field.nullable


WRITER = """
    import sys
    import numpy as np, pyarrow as pa
    from foundation.space import Space
    from serving.rows import Entity, VectorBatch
    from serving.store import EmbeddingStore

    space = Space.from_json(sys.argv[2])
    store = EmbeddingStore(sys.argv[1])
    for seed in range(1, 1000):
        for entity, ids in ((Entity.USER, [f"user-{i}" for i in range(100)]), (Entity.ITEM, list(range(1000, 1050)))):
            n = len(ids)
            vectors = np.full((n, 8), float(seed), np.float32)
            store.push(space, entity, [VectorBatch(pa.array(ids), vectors, np.zeros(n), np.full(n, seed))])
        print(store.publish(space).epoch, flush=True)
"""


def start_writer(store: EmbeddingStore, space: Space) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(store.root), space.to_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("moment", range(3))
def test_a_kill_while_publishing_leaves_a_whole_version_current(store, space, moment: int) -> None:
    kill_while_publishing(store, space, 0.05 + 0.037 * moment)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(30))
def test_a_kill_at_a_seeded_moment_leaves_a_whole_version_current(store, space, seed: int) -> None:
    kill_while_publishing(store, space, random.Random(seed).uniform(0.0, 0.4))


def kill_while_publishing(store: EmbeddingStore, space: Space, seconds: float) -> None:
    """Users and items of one publication are of one seed: after SIGKILL at any moment both files agree."""
    writer = start_writer(store, space)
    assert writer.stdout is not None
    acknowledged = int(writer.stdout.readline())
    time.sleep(seconds)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    writer.stdout.close()
    current = store.current()
    assert current.epoch >= acknowledged
    seeds = {float(value) for entity in Entity for value in np.unique(store.snapshot(current, entity).vectors_ND)}
    assert len(seeds) == 1
    assert store.publish(space).epoch >= current.epoch  # and the lock of the dead writer is free


def test_writers_of_new_ids_at_the_same_time_leave_one_row_an_id(store, space) -> None:
    writers = [start_writer(store, space) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert store.publish(space).user.rows == 100
