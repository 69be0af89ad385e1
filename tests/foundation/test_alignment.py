from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foundation import pretrained
from foundation.alignment import (
    FILE,
    Alignment,
    Shared,
    check_orthogonal,
    cosines,
    fit_blocks,
    scale,
    together,
)
from foundation.errors import ModelError
from foundation.folder import Identity, identify
from foundation.heads import Heads
from foundation.jagged import EventBatch
from foundation.space import Space
from foundation.subgraph import Subgraph

OTHER = Space("kiosk", 1, "a" * 64, 17, 5.0, frames=("b" * 64,))


def drawn(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def orthogonal(width: int, seed: int = 0) -> Tensor:
    """Of either determinant."""
    turned: Tensor = torch.linalg.qr(drawn(width, width, seed).double())[0].float()
    return turned


def evenly(source_ND: Tensor, target_ND: Tensor) -> Shared:
    return Shared(source_ND, target_ND, torch.ones(len(source_ND)))


@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 2))
def test_a_rotated_space_is_found_again_block_by_block(seed: int, widths: list[int], kept: int) -> None:
    source = drawn(60, sum(widths) + kept, seed)
    true = Alignment(tuple(orthogonal(width, seed + place) for place, width in enumerate(widths)))
    found = Alignment(fit_blocks(evenly(source, true(source)), widths))
    torch.testing.assert_close(found(source), true(source), atol=1e-4, rtol=0)
    assert found.widths == tuple(widths)


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_fitted_map_keeps_every_product_and_the_last_dimension(seed: int, width: int) -> None:
    """Also where the two spaces have nothing in common."""
    source, target = drawn(30, width + 1, seed), drawn(30, width + 1, seed + 1)
    mapped = Alignment(fit_blocks(evenly(source, target), (width,)))(source)
    torch.testing.assert_close(mapped @ mapped.T, source @ source.T, atol=1e-4, rtol=1e-5)
    assert torch.equal(mapped[:, -1], source[:, -1])


@given(st.integers(0, 10_000))
def test_no_other_orthogonal_map_brings_the_entities_nearer(seed: int) -> None:
    source, target = drawn(30, 4, seed), drawn(30, 4, seed + 1)
    weight = torch.rand(30, generator=torch.Generator().manual_seed(seed))
    best = Alignment(fit_blocks(Shared(source, target, weight), (4,)))
    other = Alignment((best.blocks[0] @ orthogonal(4, seed),))
    near, nearer = ((weight * cosines(one(source), target, 4)).sum() for one in (other, best))
    assert nearer >= near - 1e-5


def test_a_reflection_is_found() -> None:
    source = drawn(20, 2)
    target = source * torch.tensor([1.0, -1.0])
    (block,) = fit_blocks(evenly(source, target), (2,))
    torch.testing.assert_close(block, torch.diag(torch.tensor([1.0, -1.0])), atol=1e-5, rtol=0)


def test_the_length_of_a_vector_does_not_decide_the_map() -> None:
    source = drawn(20, 3)
    turn = orthogonal(3)
    target = source @ turn
    target[0] = -1000.0 * target[0]  # one that points elsewhere, and is long
    (block,) = fit_blocks(evenly(source, target), (3,))
    assert cosines(source[1:] @ block, target[1:], 3).mean() > 0.99


def test_what_weighs_nothing_decides_nothing() -> None:
    source, turn = drawn(20, 3), orthogonal(3)
    target = torch.cat([source[:10] @ turn, -source[10:] @ turn])
    shared = Shared(source, target, torch.tensor([1.0] * 10 + [0.0] * 10))
    torch.testing.assert_close(fit_blocks(shared, (3,))[0], turn, atol=1e-4, rtol=0)


def test_kinds_count_alike_however_many_they_are() -> None:
    joint = together([evenly(drawn(2, 3), drawn(2, 3)), evenly(drawn(50, 3), drawn(50, 3))])
    assert joint.weight_N[:2].sum() == pytest.approx(1.0)
    assert joint.weight_N[2:].sum() == pytest.approx(1.0)


def test_scale_is_told_and_not_changed() -> None:
    source = drawn(20, 3)
    assert scale(source, 3 * source, 3) == pytest.approx(3.0)
    (block,) = fit_blocks(evenly(source, 3 * source), (3,))
    check_orthogonal((block,))


@pytest.mark.parametrize("widths", [(), (0,), (3, 3), (-1, 2)])
def test_widths_that_are_none_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"must be whole numbers from 1 that make at most 5 together"):
        fit_blocks(evenly(drawn(20, 5), drawn(20, 5)), widths)


def test_fewer_entities_than_directions_are_refused() -> None:
    with pytest.raises(ModelError, match=r"3 shared entities can't fix 4 directions: share more users or items"):
        fit_blocks(evenly(drawn(3, 5), drawn(3, 5)), (4,))


def test_vectors_of_other_shapes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"can't be mapped onto"):
        evenly(drawn(3, 5), drawn(3, 4))
    with pytest.raises(ModelError, match=r"need a weight each"):
        Shared(drawn(3, 5), drawn(3, 5), torch.ones(2))
    with pytest.raises(ModelError, match=r"at least 5 dimensions, got 4"):
        Alignment((orthogonal(5),))(drawn(3, 4))


def test_the_way_back_is_the_inverse() -> None:
    there = Alignment((orthogonal(3), orthogonal(4)), "kiosk-v1@aaaa", ("a" * 64,))
    vectors = drawn(5, 8)
    torch.testing.assert_close(there.inverse()(there(vectors)), vectors, atol=1e-5, rtol=0)


# --- as a part of a model directory


@pytest.fixture
def alignment() -> Alignment:
    return Alignment((orthogonal(16),), OTHER.origin, (*OTHER.frames, OTHER.fingerprint))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "model")


@pytest.fixture
def aligned(copy: Path, alignment: Alignment) -> Path:
    held = pretrained.load(copy)
    identify(copy, Identity(held.space, held.card, alignment))
    return copy


def test_the_subgraph_of_an_aligned_model_stays_unrotated_and_offers_the_map(
    folder: Path, aligned: Path, alignment: Alignment, batch: EventBatch
) -> None:
    before, after = Subgraph.from_pretrained(folder), Subgraph.from_pretrained(aligned)
    with torch.no_grad():
        user_BD = after(batch)
        assert torch.equal(user_BD, before(batch))
    assert after.space == before.space == before.aligned_space
    torch.testing.assert_close(after.aligned(user_BD)[:, :-1], user_BD[:, :-1] @ alignment.blocks[0])
    assert before.aligned(user_BD) is user_BD


def test_the_aligned_space_is_another_that_says_what_it_is_aligned_to(aligned: Path) -> None:
    subgraph = Subgraph.from_pretrained(aligned)
    space = subgraph.aligned_space
    assert space == Space.from_json((aligned / "space.json").read_text())
    assert space.fingerprint != subgraph.space.fingerprint
    assert space.aligned_to == OTHER.origin
    assert OTHER.accepts(space)
    assert not OTHER.accepts(subgraph.space)
    assert not subgraph.space.accepts(space)
    assert replace(space, fingerprint=subgraph.space.fingerprint, aligned_to=None, frames=()) == subgraph.space


def test_another_map_is_another_space(aligned: Path, alignment: Alignment) -> None:
    unaligned = Subgraph.from_pretrained(aligned).space
    spaces = {
        alignment.space(unaligned).fingerprint,
        replace(alignment, blocks=(orthogonal(16, 1),)).space(unaligned).fingerprint,
        replace(alignment, blocks=alignment.blocks, frames=()).space(unaligned).fingerprint,
        unaligned.fingerprint,
    }
    assert len(spaces) == 4


@pytest.mark.parametrize("place", [0.2, 0.6, 0.999])
def test_a_flipped_bit_in_the_map_is_refused(aligned: Path, place: float) -> None:
    content = bytearray((aligned / FILE).read_bytes())
    content[int(place * len(content))] ^= 1
    (aligned / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"copy the whole folder again"):
        Subgraph.from_pretrained(aligned)


def test_a_map_that_is_gone_is_missed(aligned: Path) -> None:
    (aligned / FILE).unlink()
    with pytest.raises(ModelError, match=r"is not the model that space\.json describes"):
        Subgraph.from_pretrained(aligned)


def test_heads_of_a_model_outlive_its_alignment(aligned: Path, batch: EventBatch) -> None:
    """They read unrotated vectors on both sides."""
    assert (aligned / "heads" / "home.safetensors").exists()
    Heads.load(aligned, Subgraph.from_pretrained(aligned))


def test_saving_unchanged_weights_keeps_the_map_and_changed_ones_drop_it(aligned: Path, tmp_path: Path) -> None:
    held = pretrained.load(aligned)
    again = held.save_pretrained(tmp_path / "again")
    assert pretrained.load(tmp_path / "again").alignment.space(again.space) == held.alignment.space(held.space)
    with torch.no_grad():
        held.model.empty_D[0] += 1e-3
    grown = held.save_pretrained(tmp_path / "grown")
    assert grown.alignment.widths == ()
    assert not (tmp_path / "grown" / FILE).exists()
    assert Subgraph.from_pretrained(tmp_path / "grown").aligned_space == grown.space
    assert grown.space.lineage[-1] == held.space.origin


def test_an_alignment_is_taken_off_again(aligned: Path, folder: Path) -> None:
    held = pretrained.load(aligned)
    assert identify(aligned, Identity(held.space, held.card)) == pretrained.load(folder).space
    assert not (aligned / FILE).exists()


def test_a_map_that_would_change_products_is_refused(copy: Path, alignment: Alignment) -> None:
    held = pretrained.load(copy)
    stretched = replace(alignment, blocks=(1.1 * alignment.blocks[0],))
    with pytest.raises(ModelError, match=r"block 0 of this map is not orthogonal .*: fit the alignment again"):
        identify(copy, Identity(held.space, held.card, stretched))
    with pytest.raises(ModelError, match=r"align each model by itself"):
        identify(copy, Identity(OTHER, held.card, alignment))
    assert pretrained.load(copy).alignment.widths == ()
