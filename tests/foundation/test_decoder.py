from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundation.decoder import copies_of
from foundation.errors import ModelError
from foundation.jagged import EventBatch, Requests
from foundation.learning import losses
from foundation.lesson import Lesson, Objectives
from foundation.model import FoundationModel
from foundation.objectives.targets import Negatives, Targets
from foundation.pretrained import load, save
from foundation.repeat import FIRST_ITEM
from foundation.subgraph import Subgraph
from tokenization.corpus.corpus import Corpus


@pytest.fixture(scope="module")
def lesson(coded: FoundationModel, batch: EventBatch, asked: Requests) -> Lesson:
    """One request in thirty, with its group's first token as target; some are no items."""
    some = torch.arange(0, len(asked), 30)
    requests = Requests(*(getattr(asked, name)[some] for name in ("user_R", "end_R", "time_R", "context_RC")))
    item_E = batch.facet_TF[requests.end_R, coded.config.item_column]
    facets = torch.zeros(len(some), len(coded.config.targets), dtype=torch.int64)
    target = Targets(torch.arange(len(some)), item_E, facets, 0.5 + torch.rand(len(some)), torch.ones(len(some)))
    codes = torch.arange(FIRST_ITEM, coded.config.item.codes)
    return Lesson(batch, requests, (target,) * coded.config.horizons, Negatives(codes, torch.zeros(len(codes))))


def test_before_training_it_says_what_is_popular(coded: FoundationModel) -> None:
    fresh = FoundationModel(coded.config, _content(coded))
    decoder, trie = fresh.decoder, fresh.trie()
    assert decoder is not None
    with torch.no_grad():
        for table in decoder.tables:
            table.weight.zero_()
        ends = torch.arange(len(trie.levels[-1]))
        log_EL = decoder.log_paths(torch.randn(1, coded.config.width), trie, ends * 0, ends)
    recent_V = coded.tower.log_recent_V.exp()
    recent_V[:FIRST_ITEM] = 0.0
    expected_E = torch.stack([recent_V[trie.end_V == end].sum() for end in ends]) / recent_V.sum()
    torch.testing.assert_close(log_EL.sum(1).exp(), expected_E)


def _content(model: FoundationModel):
    from foundation.embedding import ItemContent

    tower = model.tower
    recent_V = tower.log_recent_V.exp() - 0.1
    return ItemContent(tower.category_VC, tower.text_UX, tower.text_row_V, recent_V, tower.media_VM, tower.semantic_VL)


def test_the_loss_is_that_of_the_paths_of_what_came(coded: FoundationModel, lesson: Lesson) -> None:
    found = {loss.name: loss for loss in losses(coded, lesson, Objectives(codes=0.3))}
    assert found["codes"].share == 0.3
    states, trie, decoder = coded(lesson.batch, lesson.requests), coded.trie(), coded.decoder
    assert decoder is not None
    copies = copies_of(states.own, coded.returns(states), trie, len(states.bare_RD))
    copied_RN = torch.zeros(len(states.bare_RD), len(trie.levels[-1]))
    copied_RN = copied_RN.index_put(
        (copies.request_P, trie.end_V[copies.item_P]), copies.share_P.detach(), accumulate=True
    )
    copy_R = torch.sigmoid(decoder.copy(states.bare_RD)).squeeze(1).detach()
    total, weight, target = 0.0, 0.0, lesson.targets[0]
    for row, item in enumerate(target.item_E.tolist()):
        if item >= FIRST_ITEM:
            end = trie.end_V[item][None]
            made = decoder.log_paths(states.bare_RD[row][None], trie, end * 0, end).sum().exp().detach()
            copy = copy_R[row] if copied_RN[row].any() else 0.0
            total -= float(target.weight_E[row] * torch.log((1 - copy) * made + copy * copied_RN[row, end[0]]))
            weight += float(target.weight_E[row])
    assert found["codes"].total.item() == pytest.approx(total, rel=1e-4)
    assert float(found["codes"].weight) == pytest.approx(weight)


def test_the_loss_reaches_the_decoder_and_the_trunk_and_changes_no_other(
    coded: FoundationModel, lesson: Lesson
) -> None:
    without = {loss.name: loss for loss in losses(coded, lesson, Objectives())}
    found = {loss.name: loss for loss in losses(coded, lesson, Objectives(codes=0.3))}
    assert found.keys() - without.keys() == {"codes"}
    assert all(torch.equal(found[name].total, loss.total) for name, loss in without.items())
    assert coded.decoder is not None
    named = dict(coded.named_parameters())
    slopes = torch.autograd.grad(found["codes"].total, list(named.values()), allow_unused=True)
    reached = {name for name, slope in zip(named, slopes, strict=True) if slope is not None}
    # What returns is learned from the stored vector; here only how often something is copied.
    assert not {name for name in reached if name.startswith(("bare_repeat", "pooling", "horizons", "conditioning"))}
    assert {name for name in named if name.startswith("decoder")} <= reached
    assert any(name.startswith("trunk") for name in reached)


def test_codes_and_a_decoder_belong_together(model: FoundationModel, lesson: Lesson) -> None:
    with pytest.raises(ModelError, match="a decoder of 0 layers learns from `codes`"):
        losses(model, lesson, Objectives(codes=0.3))


def test_nothing_that_came_weighs_nothing(coded: FoundationModel, lesson: Lesson) -> None:
    targets = tuple(replace(target, item_E=target.item_E * 0) for target in lesson.targets)
    [loss] = [
        one for one in losses(coded, replace(lesson, targets=targets), Objectives(codes=1.0)) if one.name == "codes"
    ]
    assert (loss.total.item(), loss.weight.item()) == (0.0, 0.0)


def test_a_saved_model_generates_as_before_and_its_user_embedding_reads_no_decoder(
    coded: FoundationModel, kiosk_corpus: Corpus, tmp_path: Path
) -> None:
    # The tokenizer of the kiosk knows no semantic IDs: only what hangs on the weights is compared.
    save(coded, kiosk_corpus.tokenizer, tmp_path, "kiosk", 1, 5.0, "# Card\n")
    read = load(tmp_path)
    assert read.model.config == coded.config
    assert read.model.decoder is not None
    assert coded.decoder is not None
    for one, other in zip(read.model.decoder.parameters(), coded.decoder.parameters(), strict=True):
        assert torch.equal(one, other)
    learning = Subgraph.of(read).trainable().model.named_parameters()
    assert not any(weight.requires_grad for name, weight in learning if name.startswith("decoder"))
