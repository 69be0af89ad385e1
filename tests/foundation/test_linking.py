from __future__ import annotations

import pytest
import torch

from foundation.errors import ModelError
from foundation.generation import best_paths
from foundation.linking import Fit, Linking, Named, fit_linking, named
from foundation.model import FoundationModel
from foundation.trie import CodeTrie

FIT = Fit(epochs=150, batch=4, rate=0.01)


@pytest.fixture(scope="module")
def texts(coded: FoundationModel) -> Named:
    """A text of its own for each path."""
    trie = coded.trie()
    ends = len(trie.levels[-1])
    text_NX = torch.randn(ends, coded.tower.text_UX.shape[1], generator=torch.Generator().manual_seed(0))
    return Named(text_NX, torch.arange(ends))


@pytest.fixture(scope="module")
def linking(coded: FoundationModel, texts: Named) -> Linking:
    assert coded.decoder is not None
    return fit_linking(coded.decoder, coded.trie(), texts, FIT)


def test_texts_learn_their_codes_and_codes_their_texts(coded: FoundationModel, texts: Named, linking: Linking) -> None:
    trie = coded.trie()
    with torch.no_grad():
        beams = best_paths(linking.decoder, linking.states(texts.text_NX), trie, 2)
        cosine_NN = linking.texts(trie, texts.end_N) @ torch.nn.functional.normalize(texts.text_NX, dim=1).T
    assert torch.equal(beams.node_RM[:, 0], texts.end_N)
    assert torch.equal(cosine_NN.argmax(1), texts.end_N)


def test_the_decoder_that_it_starts_from_stays_as_it_is(coded: FoundationModel, texts: Named, linking: Linking) -> None:
    assert coded.decoder is not None
    before = [weight.clone() for weight in coded.decoder.parameters()]
    again = fit_linking(coded.decoder, coded.trie(), texts, FIT)
    assert all(torch.equal(*pair) for pair in zip(before, coded.decoder.parameters(), strict=True))
    assert all(weight.grad is None for weight in coded.decoder.parameters())
    assert all(torch.equal(*pair) for pair in zip(again.parameters(), linking.parameters(), strict=True))


def test_what_is_linked_are_the_distinct_texts_with_their_paths(coded: FoundationModel) -> None:
    tower, trie = coded.tower, coded.trie()
    found = named(tower, trie)
    expected = {
        (tuple(tower.text_of(torch.tensor([item]))[0].tolist()), int(trie.end_V[item])) for item in trie.item_I.tolist()
    }
    pairs = [(tuple(text.tolist()), end) for text, end in zip(found.text_NX, found.end_N.tolist(), strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {pair for pair in expected if any(pair[0])}
    some = trie.only(trie.item_I[:1])
    assert len(named(tower, some)) == 1


def test_items_without_text_and_fits_that_make_no_sense_are_refused(coded: FoundationModel) -> None:
    trie: CodeTrie = coded.trie()
    tower = FoundationModel(coded.config, _without_text(coded)).tower
    with pytest.raises(ModelError, match="have no text to link codes with; declare `text`"):
        named(tower, trie)
    for settings in ({"epochs": 0}, {"batch": 1}, {"rate": 0.0}):
        with pytest.raises(ModelError, match="a fit takes at least 1 epoch"):
            Fit(**settings)  # type: ignore[arg-type]


def _without_text(model: FoundationModel):
    from foundation.embedding import ItemContent

    tower = model.tower
    return ItemContent(
        tower.category_VC,
        torch.zeros_like(tower.text_UX),
        tower.text_row_V,
        tower.log_recent_V.exp(),
        tower.media_VM,
        tower.semantic_VL,
    )
