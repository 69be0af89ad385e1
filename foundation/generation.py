"""Generative retrieval: items found by decoding their semantic IDs from the user state, beam by beam.

Rajput et al., TIGER, arXiv:2305.05065, over a trie of the items that are there (`trie.py`); a user is encoded once,
and each level costs one step of the decoder for all users and beams. What stands at the end of a path are items that
content can't tell apart: which of them it is, the stored vectors say, by the softmax of their dot products (dense
beside generative as in Yang et al., LIGER, arXiv:2411.18814). So every item has a probability, they sum to one, and a
beam as wide as the trie finds the very best. An item that was listed and never met has a path like any other.

Shapes beside those of trie.py: M beams of a request, K items of an answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.decoder import CodeDecoder, Decoding, copies_of
from foundation.errors import ModelError
from foundation.jagged import segment_max, segment_sum
from foundation.model import FoundationModel, UserStates
from foundation.objectives.softmax import pair_logits
from foundation.trie import CodeTrie, Copies


@dataclass(frozen=True)
class Generated:
    """The best items of each request. item_RK: int64 codes, best first, 0 where there are fewer. log_RK: float log
    probabilities, −inf there."""

    item_RK: Tensor
    log_RK: Tensor


@dataclass(frozen=True)
class Beams:
    """The best M paths of each request so far. node_RM: int64 places among the prefixes of this level. made_RM: float
    log P by the decoder alone; log_RM: with what is copied; −inf where there are fewer paths."""

    node_RM: Tensor
    made_RM: Tensor
    log_RM: Tensor


def generate(
    model: FoundationModel,
    states: UserStates,
    item_VD: Tensor,
    trie: CodeTrie,
    beam: int = 50,
    k: int = 50,
    without: tuple[Tensor, Tensor] | None = None,
) -> Generated:
    """The k most likely items of each request, of those in the trie.

    item_VD: `model.item_vectors()`. trie: `model.trie()`, or of some items alone. beam: paths that are followed at a
    time. without: (request, item code) pairs that are left out of the answer, int64; they keep their probability.
    Raises ModelError where the model has no decoder, or beam or k is below 1.
    """
    if model.decoder is None:
        raise ModelError("this model generates nothing: train one with `--set decoder.layers=1 --set codes=0.3`")
    if beam < 1 or k < 1:
        raise ModelError(f"beam and k must be at least 1, got {beam} and {k}")
    with torch.no_grad():
        copies = copies_of(states.own, model.returns(states), trie, len(states.bare_RD))
        log_yes_R, log_no_R = model.decoder.copying(states.bare_RD, copies)
        beams = _ends(model.decoder, states.bare_RD, trie, copies, log_yes_R, log_no_R, beam)
        row_A, item_A, made_A = _items_of(beams, trie, model.user_vectors(states), item_VD)
        copied_A = copies.of_items(row_A, item_A, len(trie.end_V))
        log_A = torch.logaddexp(made_A + log_no_R[row_A], torch.log(copied_A) + log_yes_R[row_A])
        if without is not None:
            hidden_A = torch.isin(row_A * len(trie.end_V) + item_A, without[0] * len(trie.end_V) + without[1])
            log_A = log_A.masked_fill(hidden_A, -torch.inf)
        return _best(row_A, item_A, log_A, len(states.bare_RD), k)


def beam_width(waiting: int, room: int, narrow: int, wide: int) -> int:
    """How many beams a request is worth while so many wait in a queue with that much room: `wide` for an empty queue,
    `narrow` for a full one, and between them by equal ratios, so that each doubling of the load left costs alike.

    Raises ModelError where bounds or numbers make no sense.
    """
    if not 1 <= narrow <= wide or room < 1 or waiting < 0:
        raise ModelError(
            f"beams from {narrow} to {wide} for {waiting} of {room}: give 1 <= narrow <= wide, room >= 1, waiting >= 0"
        )
    load = min(waiting / room, 1.0)
    return min(max(round(wide * math.pow(narrow / wide, load)), narrow), wide)


def beam_in_time(seconds_left: float, seconds_a_beam: float, narrow: int, wide: int) -> int:
    """As many beams as fit into the time that a request has left, between the bounds; one beam takes `seconds_a_beam`.

    Raises ModelError where bounds or numbers make no sense.
    """
    if not 1 <= narrow <= wide or not seconds_a_beam > 0 or math.isnan(seconds_left):
        raise ModelError(
            f"beams from {narrow} to {wide} of {seconds_a_beam} s: give 1 <= narrow <= wide, and seconds above 0"
        )
    return int(min(max(seconds_left / seconds_a_beam, narrow), wide))


def best_paths(decoder: CodeDecoder, state_RD: Tensor, trie: CodeTrie, beam: int) -> Beams:
    """The most likely whole paths from each state by the decoder alone, best first; with nothing copied."""
    nobody = torch.zeros(0, dtype=torch.int64, device=state_RD.device)
    copies = Copies(nobody, nobody, state_RD.new_zeros(0))
    with torch.no_grad():
        return _ends(decoder, state_RD, trie, copies, *decoder.copying(state_RD, copies), beam)


def _ends(
    decoder: CodeDecoder,
    state_RD: Tensor,
    trie: CodeTrie,
    copies: Copies,
    log_yes_R: Tensor,
    log_no_R: Tensor,
    beam: int,
) -> Beams:
    """The best whole paths. Between two levels nothing is kept but the state of each beam."""
    requests = len(state_RD)
    zeros_R1 = state_RD.new_zeros(requests, 1)
    beams = Beams(zeros_R1.long(), zeros_R1, zeros_R1)
    decoding, code_N = decoder.begin(state_RD), None
    for level, of_level in enumerate(trie.levels):
        decoding, logit_NS = decoder.step(decoding, code_N, level)
        log_NS = decoder.log_next(logit_NS, of_level.shares(beams.node_RM.flatten()), level)
        made_RMS = beams.made_RM[:, :, None] + log_NS.view(requests, -1, of_level.size)
        log_RMS = made_RMS + log_no_R[:, None, None]
        log_RMS = _with_copies(log_RMS, beams, trie, level, copies, log_yes_R)
        log_RM, place_RM = log_RMS.flatten(1).topk(min(beam, len(of_level), log_RMS[0].numel()), dim=1)
        from_RM, code_RM = place_RM // of_level.size, place_RM % of_level.size
        made_RM = made_RMS.flatten(1).gather(1, place_RM)
        node_RM = of_level.child(beams.node_RM.gather(1, from_RM).flatten(), code_RM.flatten()).view_as(code_RM)
        decoding = _followed(decoding, from_RM, beams.node_RM.shape[1])
        beams, code_N = Beams(node_RM, made_RM, log_RM), code_RM.flatten()
    return beams


def _followed(decoding: Decoding, from_RM: Tensor, before: int) -> Decoding:
    row_R1 = torch.arange(len(from_RM), device=from_RM.device)[:, None]
    return decoding.picked((row_R1 * before + from_RM).flatten())


def _with_copies(
    log_RMS: Tensor, beams: Beams, trie: CodeTrie, level: int, copies: Copies, log_yes_R: Tensor
) -> Tensor:
    """What is copied, added where an own path goes on from a beam."""
    request_Q, node_Q, share_Q = copies.at(trie, level)
    of_level = trie.levels[level]
    above = of_level.begin_P1.shape[0] - 1
    live_N = (beams.log_RM > -torch.inf).flatten()
    row_R1 = torch.arange(len(log_RMS), device=log_RMS.device)[:, None]
    # Beams that are none get keys that nobody asks for.
    key_N = torch.where(live_N, (row_R1 * above + beams.node_RM).flatten(), -1)
    key_N, order_N = key_N.sort()
    wanted_Q = request_Q * above + of_level.parents()[node_Q]
    place_Q = torch.searchsorted(key_N, wanted_Q).clamp(max=len(key_N) - 1)
    hit_Q = key_N[place_Q] == wanted_Q
    at_Q = order_N[place_Q] * of_level.size + of_level.code_N[node_Q]
    flat = log_RMS.flatten()
    at_Q, log_Q = at_Q[hit_Q], (torch.log(share_Q) + log_yes_R[request_Q])[hit_Q]
    flat[at_Q] = torch.logaddexp(flat[at_Q], log_Q)
    return flat.view_as(log_RMS)


def _items_of(beams: Beams, trie: CodeTrie, user_RD: Tensor, item_VD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(request, item, log P by the decoder) of all items at the ends of the beams, [A] each."""
    row_N, beam_N = (beams.log_RM > -torch.inf).nonzero(as_tuple=True)
    end_N, made_N = beams.node_RM[row_N, beam_N], beams.made_RM[row_N, beam_N]
    owner_A, item_A = trie.items(end_N)
    row_A = row_N[owner_A]
    logit_A = pair_logits(user_RD, item_VD, row_A, item_A)
    top_N = segment_max(logit_A, owner_A, len(end_N))
    total_N = segment_sum(torch.exp(logit_A - top_N[owner_A]), owner_A, len(end_N))
    return row_A, item_A, made_N[owner_A] + logit_A - (top_N + torch.log(total_N))[owner_A]


def _best(row_A: Tensor, item_A: Tensor, log_A: Tensor, requests: int, k: int) -> Generated:
    """The best k of each request; of equals the lower code."""
    order_A = torch.argsort(item_A)
    for key_A in (-log_A, row_A):
        order_A = order_A[torch.argsort(key_A[order_A], stable=True)]
    row_A, item_A, log_A = row_A[order_A], item_A[order_A], log_A[order_A]
    first_R = torch.searchsorted(row_A, torch.arange(requests, device=row_A.device))
    rank_A = torch.arange(len(row_A), device=row_A.device) - first_R[row_A]
    kept_A = (rank_A < k) & (log_A > -torch.inf)
    item_RK = item_A.new_zeros(requests, k)
    log_RK = log_A.new_full((requests, k), -torch.inf)
    item_RK[row_A[kept_A], rank_A[kept_A]] = item_A[kept_A]
    log_RK[row_A[kept_A], rank_A[kept_A]] = log_A[kept_A]
    return Generated(item_RK, log_RK)
