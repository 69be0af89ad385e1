"""One training step's losses: the model's outputs joined with what really came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.affinity import pair_lifts
from foundation.candidates import TargetAttention
from foundation.config import Switch
from foundation.decoder import PATHS, copies_of
from foundation.item_age import NOTHING_HIDDEN, moments
from foundation.lesson import Lesson, Loss, Objectives, check_decoder, check_layers
from foundation.model import FoundationModel, UserStates
from foundation.objectives.blocks import contest_sums
from foundation.objectives.codes import path_cross_entropy
from foundation.objectives.contests import (
    Bonus,
    Candidates,
    Contest,
    Vectors,
    against_impressions,
    candidates,
    contest,
    contest_logits,
    shown_in_vain,
    wanted,
)
from foundation.objectives.distillation import View, contest_divergence, likeness
from foundation.objectives.facets import facet_cross_entropy
from foundation.objectives.gaps import gap_bins, gaps
from foundation.objectives.softmax import chunks, recomputed, set_softmax
from foundation.objectives.target_aware import Contenders, slate, slate_softmax, target_weights
from foundation.objectives.targets import Targets
from foundation.pooling import pooled_own
from foundation.repeat import own_pairs
from foundation.teaching import Teaching, teaches_layers

Sums = Callable[[Tensor, Vectors, Contest, Bonus], tuple[Tensor, Tensor]]
"""What a state says of a contest, as `contest_sums` has it: float [R, K], whose log Σ exp over K is that of the
negatives, and float [A], logits of the shown pairs."""


@dataclass(frozen=True)
class _Said:
    """What the model says of a lesson: the users' states, and the vectors of all candidates.

    whole_ND: vectors of all candidates as of the end of what is learned, whoever asks. own_OD: those of the distinct
    own items. place_P: each own item's row among them. earlier: bare states after the earlier layers, where something
    is learned of them. sums: of contests in which age decides nothing.
    """

    states: UserStates
    candidates: Candidates
    among: Vectors
    whole_ND: Tensor
    own_OD: Tensor
    place_P: Tensor
    earlier: tuple[Tensor, ...]
    sums: Sums


def losses(
    model: FoundationModel,
    lesson: Lesson,
    objectives: Objectives,
    sums: Sums = contest_sums,
    teaching: Teaching | None = None,
) -> list[Loss]:
    """Losses of the next items (conditioned and bare), the stored embedding, later horizons and facets.

    sums: of contests, for whoever knows of more negatives than the lesson's. teaching: by a larger model.
    """
    first, *later = (wanted(target) for target in lesson.targets)
    future, vain = wanted(lesson.future), shown_in_vain(lesson.targets[0])
    layers = bool(objectives.layerwise or objectives.distill) or teaches_layers(teaching, model.config)
    said = _said(model, lesson, (first, *later, future, vain), objectives, sums, layers)
    now = contest(said.candidates, lesson.negatives, first, said.states.own)
    if objectives.impressions:
        now = against_impressions(said.candidates, now, vain, objectives.impressions)
    found, stored_RD = _told_losses(model, lesson, said, now, objectives), _stored(model, said)
    if objectives.embedding:
        found += _stored_losses(model, said, stored_RD, now, "embedding", objectives.embedding)
    if objectives.future:
        window = contest(said.candidates, lesson.negatives, future, said.states.own)
        found += _stored_losses(model, said, stored_RD, window, "future", objectives.future)
    if model.interests is not None:
        interest_RID = model.interests(said.states.bare_RD, stored_RD)
        found.append(Loss("interests", *_interest_loss(said, interest_RID, now), share=objectives.interest))
    for ahead, target in enumerate(later, start=1):
        # Own items compete in the first horizon only: what returns later is for the dot product to find.
        then = contest(said.candidates, lesson.negatives, target, None)
        bare_RD = model.horizons[ahead](said.states.bare_RD)
        found.append(Loss(f"next_{ahead + 1}", *_item_loss(said, bare_RD, then), share=objectives.later))
    found += _layer_losses(model, said, now, objectives)
    if objectives.codes:
        found.append(Loss("codes", *_code_path_loss(model, said, first, objectives), share=objectives.codes))
    for others in (_facet_losses, _gap_losses, _intent_losses):
        found += others(model, lesson, said.states, objectives)
    if teaching is not None:
        found += _taught_losses(model, lesson, said, stored_RD, now, teaching, told=bool(objectives.next))
    return found


def _said(
    model: FoundationModel,
    lesson: Lesson,
    targets: Sequence[Targets],
    objectives: Objectives,
    sums: Sums,
    layers: bool,
) -> _Said:
    """layers: whether something is learned of the earlier ones."""
    check_layers(model.config, objectives)
    if layers:
        states, earlier = model.with_layers(lesson.batch, lesson.requests, lesson.hidden)
    else:
        states, earlier = model(lesson.batch, lesson.requests, lesson.hidden), ()
    if model.config.repeat_path is Switch.OFF and objectives.own is Switch.ON:
        states = replace(states, own=own_pairs(model.meetings(lesson.batch, lesson.requests)))
    found = candidates(states.own.code_P, lesson.negatives, targets, model.tower.codes)
    code_N = found.code_N
    among, whole_ND = _vectors(model, lesson, code_N)
    own_P = found.column_V[states.own.code_P]
    own_N = _own(own_P, len(code_N))
    place_P = (own_N.cumsum(0) - 1)[own_P]
    own_OD = whole_ND.index_select(0, own_N.nonzero().squeeze(1))
    return _Said(states, found, among, whole_ND, own_OD, place_P, earlier, sums)


def _own(column_P: Tensor, number: int) -> Tensor:
    """bool [N]: which candidates are somebody's own; as torch.unique has them, without sorting so many pairs."""
    own_N = torch.zeros(number, dtype=torch.bool, device=column_P.device)
    own_N[column_P] = True
    return own_N


def _vectors(model: FoundationModel, lesson: Lesson, code_N: Tensor) -> tuple[Vectors, Tensor]:
    """Candidates as each request reads them, at its own moment; and as of the end, float [N, D]: what a user met is
    known by more than its age."""
    tower, requests, category_NC = model.tower, lesson.requests, model.tower.category_VC[code_N]
    moment_R = moments(requests.time_R + lesson.batch.start_B[requests.user_R])
    aged, whole_ND = tower.aged(code_N, moment_R, lesson.hidden), tower(code_N, lesson.hidden)
    if not aged:
        return Vectors(whole_ND, tower.popularity(code_N), category_NC), whole_ND
    return Vectors(tower.content(code_N), tower.popularity_of_new(code_N), category_NC, aged), whole_ND


def _item_loss(said: _Said, state_RD: Tensor, contest: Contest, bonus: Bonus | None = None) -> tuple[Tensor, Tensor]:
    # What an item is worth at each request's own moment is no one product for a block of them.
    say = contest_logits if said.among.aged else said.sums
    negative_RK, shown_A = say(state_RD, said.among, contest, bonus or Bonus())
    return set_softmax(negative_RK, shown_A, contest.pairs, contest.target.request_E, contest.target.weight_E)


def _stored_losses(
    model: FoundationModel, said: _Said, stored_RD: Tensor, contest: Contest, name: str, share: float
) -> list[Loss]:
    """A contest by the stored vectors, and by the first dimensions of them that are to be usable alone."""
    found, bands = [Loss(name, *_item_loss(said, stored_RD, contest), share=share)], model.config.bands
    for width in bands:
        some = replace(said, among=said.among.first(width))
        loss = _item_loss(some, stored_RD[:, :width], contest)
        found.append(Loss(f"{name}_{width}", *loss, share=share / len(bands)))
    return found


def _interest_loss(said: _Said, interest_RID: Tensor, contest: Contest) -> tuple[Tensor, Tensor]:
    """The softmax over items of Σ exp of all interests' products: an item is somebody's by any one of them."""
    say = contest_logits if said.among.aged else said.sums
    sums, shown = zip(
        *(say(state_RD, said.among, contest, Bonus()) for state_RD in interest_RID.unbind(1)), strict=True
    )
    # Where nobody competes, no interest has anybody compete, and log 0 has no slope.
    nobody_RK, negative_IRK = sums[0] == -torch.inf, torch.stack(sums)
    negative_RK = negative_IRK.masked_fill(nobody_RK, 0.0).logsumexp(0).masked_fill(nobody_RK, -torch.inf)
    shown_A = torch.stack(shown).logsumexp(0)
    return set_softmax(negative_RK, shown_A, contest.pairs, contest.target.request_E, contest.target.weight_E)


def _told_losses(
    model: FoundationModel, lesson: Lesson, said: _Said, now: Contest, objectives: Objectives
) -> list[Loss]:
    """The next items by the whole model, and by target-aware scores where it has them."""
    if not objectives.next and model.target_attention is None:
        return []
    told_RD, told_bonus = model.horizons[0](said.states.told_RD), _told_bonus(model, said, now)
    found = [Loss("next", *_item_loss(said, told_RD, now, told_bonus), share=objectives.next)]
    if model.target_attention is not None:
        contenders = _contenders(said, lesson, now, told_RD, told_bonus)
        aware = _target_aware(model.target_attention, said, contenders, objectives)
        found.append(Loss("target_aware", *aware, share=objectives.target_aware))
    return found


def _target_aware(
    attention: TargetAttention, said: _Said, contenders: Contenders, objectives: Objectives
) -> tuple[Tensor, Tensor]:
    """The plain scores, and what each candidate's own look at the history adds; gradients reach the trunk by it."""
    row_S, contenders = contenders.some(objectives.slates)
    drawn = slate(contenders, objectives.competitors)
    keys, told_SD = said.states.keys.picked(row_S), said.states.told_RD[row_S]
    return slate_softmax(drawn, attention(keys, told_SD, said.whole_ND, drawn.column_RN))


@torch.no_grad()
def _contenders(said: _Said, lesson: Lesson, now: Contest, told_RD: Tensor, bonus: Bonus) -> Contenders:
    requests, pairs, target = lesson.requests, now.pairs, now.target
    # Each negative for itself, however many there are: without gradients their logits are all that is held.
    negative_RM, shown_A = contest_logits(told_RD, said.among, now, bonus, chunk=len(now.negatives))
    return Contenders(
        negative_RM,
        shown_A,
        pairs=pairs,
        column_A=now.column_A,
        weight_A=target_weights(pairs.place_E, target.weight_E, len(pairs.row_A)),
        code_M=now.negatives.code_M,
        key_R=(lesson.batch.start_B[requests.user_R] + requests.time_R).view(torch.int64),
    )


def _told_bonus(model: FoundationModel, said: _Said, contest: Contest) -> Bonus:
    """Repeat path and category affinity, as in `FoundationModel.scores`."""
    own, pairs = said.states.own, contest.pairs
    told_P = model.told_repeat(own.told_PX, own.request_P, said.states.told_RD, said.own_OD, said.place_P)
    # The own items are the first of the pairs; a target that is new to the user has no past to read.
    told_A = F.pad(told_P, (0, len(pairs.row_A) - len(told_P)))
    lifts = model.affinity(said.states.shares)
    return Bonus(lifts, told_A + pair_lifts(lifts, pairs.row_A, said.among.category_NC[contest.column_A]))


def _stored(model: FoundationModel, said: _Said) -> Tensor:
    """The user embedding without its popularity dimension, as in `FoundationModel.user_vectors`."""
    own, bare_RD = said.states.own, said.states.bare_RD
    bare_P = model.bare_repeat(own.feature_PX, own.request_P, bare_RD, said.own_OD, said.place_P)
    own_RD = pooled_own(own, bare_P, len(bare_RD), said.own_OD, said.place_P, model.pooling.rest)
    stored_RD: Tensor = model.pooling(bare_RD, own_RD)
    return stored_RD


def _code_path_loss(
    model: FoundationModel, said: _Said, target: Targets, objectives: Objectives
) -> tuple[Tensor, Tensor]:
    """The next items' semantic IDs, by the decoder or copied; logits of so many paths at a time."""
    check_decoder(model.config, objectives)
    assert model.decoder is not None
    decoder, trie, bare_RD, own = model.decoder, model.trie(), said.states.bare_RD, said.states.own
    with torch.no_grad():
        repeat_P = model.bare_repeat(own.feature_PX, own.request_P, bare_RD, said.own_OD, said.place_P)
        copies = copies_of(own, repeat_P, trie, len(bare_RD))
        end_E = trie.end_V[target.item_E]
        copied_E = copies.of_ends(trie, target.request_E, end_E)
    log_yes_R, log_no_R = decoder.copying(bare_RD, copies)

    def made(part: slice) -> Tensor:
        return decoder.log_paths(bare_RD, trie, target.request_E[part], end_E[part]).sum(1)

    made_E = torch.cat([recomputed(made, part) for part in chunks(len(end_E), PATHS)])
    yes_E, no_E = log_yes_R[target.request_E], log_no_R[target.request_E]
    return path_cross_entropy(made_E, copied_E, yes_E, no_E, target.weight_E)


def _layer_losses(model: FoundationModel, said: _Said, now: Contest, objectives: Objectives) -> list[Loss]:
    """What the earlier layers of the trunk say of the next items: beside what came, and beside the last layer."""
    found, last_RD = list[Loss](), model.horizons[0](said.states.bare_RD)
    earlier = said.earlier if objectives.layerwise or objectives.distill else ()
    for depth, bare_RD in enumerate(earlier, start=1):
        state_RD = model.horizons[0](bare_RD)
        if objectives.layerwise:
            share = objectives.layerwise / len(said.earlier)
            found.append(Loss(f"layer_{depth}", *_item_loss(said, state_RD, now), share))
        if objectives.distill:
            share = objectives.distill / len(said.earlier)
            taught = contest_divergence(View(last_RD, said.among), View(state_RD, said.among), now)
            found.append(Loss(f"distill_{depth}", *taught, share))
    return found


def _taught_losses(
    model: FoundationModel,
    lesson: Lesson,
    said: _Said,
    stored_RD: Tensor,
    now: Contest,
    teaching: Teaching,
    told: bool,
) -> list[Loss]:
    """What the teacher says of the same requests and candidates; it sees what is hidden from the student. told: whether
    models answer by whole scores, and not by stored vectors alone."""
    teacher, found = teaching.teacher, list[Loss]()
    with torch.no_grad():
        known = _known_by(teacher, lesson, said)
        whole, stored = _whole_view(teacher, known, now), View(_stored(teacher, known), known.among)
    if teaching.logits and told:
        taught = contest_divergence(whole, _whole_view(model, said, now), now)
        found.append(Loss("taught", *taught, share=teaching.logits))
    if teaching.logits:
        taught = contest_divergence(stored, View(stored_RD, said.among), now)
        found.append(Loss("taught_embedding", *taught, share=teaching.logits))
    if teaching.states:
        taught = likeness(known.states.bare_RD, said.states.bare_RD)
        found.append(Loss("taught_states", *taught, share=teaching.states))
    if teaches_layers(teaching, model.config):
        layers = (*known.earlier, known.states.bare_RD)
        for depth, bare_RD in enumerate(said.earlier, start=1):
            taught = likeness(layers[teaching.depth(depth, model.config.layers) - 1], bare_RD)
            found.append(Loss(f"taught_layer_{depth}", *taught, share=teaching.layers / len(said.earlier)))
    return found


def _known_by(teacher: FoundationModel, lesson: Lesson, said: _Said) -> _Said:
    """What a teacher says of a lesson, of the candidates that its student is asked about."""
    states, earlier = teacher.with_layers(lesson.batch, lesson.requests)
    if teacher.config.repeat_path is Switch.OFF:
        states = replace(states, own=said.states.own)  # pairs alone, the same for both
    among, whole_ND = _vectors(teacher, replace(lesson, hidden=NOTHING_HIDDEN), said.candidates.code_N)
    own_N = _own(said.candidates.column_V[states.own.code_P], len(whole_ND))
    own_OD = whole_ND.index_select(0, own_N.nonzero().squeeze(1))
    return replace(said, states=states, among=among, whole_ND=whole_ND, own_OD=own_OD, earlier=earlier)


def _whole_view(model: FoundationModel, said: _Said, now: Contest) -> View:
    """A contest by whole scores, as `FoundationModel.scores` makes them."""
    return View(model.horizons[0](said.states.told_RD), said.among, _told_bonus(model, said, now))


def _facet_losses(model: FoundationModel, lesson: Lesson, states: UserStates, objectives: Objectives) -> list[Loss]:
    """Facets, and categories of items, of the next groups. They are predicted from the bare state: a context facet
    would otherwise be told what it should guess."""
    found, horizons, config = [], len(lesson.targets), model.config
    for horizon, target in enumerate(lesson.targets):
        state_RD = model.horizons[horizon](states.bare_RD)
        suffix = "" if horizon == 0 else f"_{horizon + 1}"
        for column, ((name, share), head) in enumerate(zip(config.targets, model.facet_heads, strict=True)):
            loss = _code_loss(head(state_RD), target, target.facet_EF[:, column])
            found.append(Loss(f"{name}{suffix}", *loss, objectives.facets * share / horizons))
        liked = wanted(target)
        for name, head in zip(config.category_targets, model.category_heads, strict=True):
            loss = _code_loss(head(state_RD), liked, _category(model, name, liked))
            found.append(Loss(f"category.{name}{suffix}", *loss, objectives.category / horizons))
    return found


def _gap_losses(model: FoundationModel, lesson: Lesson, states: UserStates, objectives: Objectives) -> list[Loss]:
    """The time until the next group, where that is predicted."""
    if model.gap_head is None:
        return []
    gap_R, there_R = gaps(lesson.batch, lesson.requests)
    bin_R = gap_bins(gap_R, model.config.repeat.time_unit, model.config.gap_bins)
    loss_R = F.cross_entropy(model.gap_head(model.horizons[0](states.bare_RD)), bin_R, reduction="none")
    weight_R = there_R.to(loss_R.dtype)
    return [Loss("gap", (loss_R * weight_R).sum(), weight_R.sum(), objectives.gap)]


def _intent_losses(model: FoundationModel, lesson: Lesson, states: UserStates, objectives: Objectives) -> list[Loss]:
    """What the next group is about: facets of all its events, categories of the items that were wanted."""
    facets = [name for name, _ in model.config.targets]
    found, target, liked = [], lesson.targets[0], wanted(lesson.targets[0])
    for name, logit_RC in zip(model.config.intents, states.intents, strict=True):
        if name in facets:
            loss = _code_loss(logit_RC, target, target.facet_EF[:, facets.index(name)])
        else:
            loss = _code_loss(logit_RC, liked, _category(model, name, liked))
        found.append(Loss(f"intent.{name}", *loss, objectives.intent))
    return found


def _code_loss(logit_RC: Tensor, target: Targets, code_E: Tensor) -> tuple[Tensor, Tensor]:
    """Codes that came after training are learned as unknown, 1."""
    code_E = torch.where(code_E < logit_RC.shape[1], code_E, 1)
    return facet_cross_entropy(logit_RC, target.request_E, code_E, target.weight_E)


def _category(model: FoundationModel, name: str, target: Targets) -> Tensor:
    level = [category for category, _ in model.config.item.categories].index(name)
    return model.tower.category_VC[target.item_E, level]
