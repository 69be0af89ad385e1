"""Long histories as overlapping windows, so that a user of any length fits a budget of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenization.arrays import Integers, Longs, Mask


@dataclass(frozen=True, eq=False)
class Windows:
    """w windows over packed tokens, ordered by user, then place.

    user: [w] whose. begin, end: [w] its tokens. fresh: [w] the first token that no earlier window has: of begin..fresh
    a model is only reminded, fresh..end it predicts. So each token is fresh in exactly one window.
    """

    user: Longs
    begin: Longs
    fresh: Longs
    end: Longs

    def __len__(self) -> int:
        return len(self.user)

    @property
    def lengths(self) -> Longs:
        """[w] tokens of each window."""
        return self.end - self.begin


def cut_windows(offsets: Longs, groups: Integers, window: int, overlap: int) -> Windows:
    """Cut the tokens of u users into windows of at most `window` tokens.

    Whoever has no more is one window. Of the others, a window begins up to `overlap` tokens before what is fresh in it,
    and both its ends move inward to borders of groups, since a group is a set that is seen whole or not at all. If
    the overlap leaves no room for the first fresh group, there is less overlap. Only a group longer than a window is
    cut, in the order of its tokens; what of it comes after the first cut is not reminded of the rest.

    Args:
        offsets: [u + 1] user i has the tokens offsets[i] to offsets[i + 1].
        groups: [t] ordinal of each token's group within its user, ascending.
        window: at least 1.
        overlap: at least 0, below `window`.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"windows of {window} tokens that share {overlap}; share fewer, and at least 0")
    user = np.flatnonzero(np.diff(offsets))
    begin, last = offsets[:-1][user], offsets[1:][user]
    borders = np.append(np.flatnonzero(_first_of_group(offsets, groups)), len(groups))
    fresh = begin
    found: list[Windows] = []
    while len(user):  # a turn is the next window of every user who has tokens left
        begin = _begin(fresh, begin, borders, window, overlap)
        end = _end(begin, fresh, last, borders, window)
        found.append(Windows(user, begin, fresh, end))
        left = end < last
        # From now on overlap may reach back to the user's first token: what came before `fresh` was fresh once.
        user, last, fresh, begin = user[left], last[left], end[left], offsets[:-1][user[left]]
    return _joined(found)


def _first_of_group(offsets: Longs, groups: Integers) -> Mask:
    """[t] whether a token is the first of its group."""
    first = np.ones(len(groups), np.bool_)
    first[1:] = np.diff(groups) != 0
    first[offsets[:-1][offsets[:-1] < len(groups)]] = True
    return first


def _begin(fresh: Longs, first: Longs, borders: Longs, window: int, overlap: int) -> Longs:
    """The first border from which at most `overlap` tokens lead up to `fresh`, and the group there still fits."""
    next_border = borders[np.searchsorted(borders, fresh, side="right")]
    whole = next_border - fresh <= window
    earliest = np.maximum(fresh - overlap, first)
    earliest = np.where(whole, np.maximum(earliest, next_border - window), earliest)
    return np.minimum(borders[np.searchsorted(borders, earliest)], fresh)


def _end(begin: Longs, fresh: Longs, last: Longs, borders: Longs, window: int) -> Longs:
    """The last border within the window; if that leaves nothing fresh, the group is longer than it and is cut."""
    limit = np.minimum(begin + window, last)
    border = borders[np.searchsorted(borders, limit, side="right") - 1]
    return np.where(border > fresh, border, limit)


def _joined(found: list[Windows]) -> Windows:
    if not found:
        nothing = np.zeros(0, np.int64)
        return Windows(nothing, nothing, nothing, nothing)
    user, begin, fresh, end = (
        np.concatenate([getattr(windows, name) for windows in found]) for name in ("user", "begin", "fresh", "end")
    )
    order = np.lexsort((fresh, user))
    return Windows(user[order], begin[order], fresh[order], end[order])
