"""A part of a log that alone is asked for: groups whose context has a certain value. What is read stays all of it.

A surface, such as search or the home page, and a company among others that share a log are both one value of a context
facet: known when a request is made, and the same for all that the request leads to.

Shapes: G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from foundation.jagged import EventBatch
from tokenization.codes.vocabulary import FIRST
from tokenization.errors import nearest
from tokenization.tokenizer.tokenizer import Tokenizer
from training.asking import context_of_groups
from training.errors import TrainingError


@dataclass(frozen=True)
class Surface:
    """Requests in which a context facet has one of these values.

    facet: its name; column: its place among all facets. values: as they were written; codes: of them.
    """

    facet: str
    column: int
    values: tuple[str, ...]
    codes: tuple[int, ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of plain numbers and words, as `asdict` and JSON leave it."""
        return cls(told["facet"], told["column"], tuple(told["values"]), tuple(told["codes"]))

    def __str__(self) -> str:
        return f"{self.facet}={','.join(self.values)}"

    def has(self, code_N: np.ndarray) -> np.ndarray:
        """bool [N]: which codes of the facet are of this surface."""
        return np.isin(code_N, self.codes)


def surface_of(text: str, tokenizer: Tokenizer) -> Surface:
    """The surface that is written `store=367`, or `store=367,406` for several values of one facet.

    Raises TrainingError naming the nearest facet or value for one that the log has not.
    """
    name, equals, told = text.partition("=")
    values = tuple(value for value in told.split(",") if value)
    if not (name and equals and values):
        raise TrainingError(f"{text!r} is no surface: write a context facet and a value, such as store=367")
    known = {facet.name: facet for facet in tokenizer.context_facets if facet.name in tokenizer.vocabularies}
    if name not in known:
        raise TrainingError(f"no context facet with values of its own is called {name!r}; {nearest(name, known)}")
    ids = tokenizer.vocabularies[name].ids.to_pylist()
    code_of = {str(one): code for code, one in enumerate(ids, start=FIRST)}
    if unknown := [value for value in values if value not in code_of]:
        near = get_close_matches(unknown[0], list(code_of), n=1)
        some = ", ".join(list(code_of)[:5]) + (", .." if len(code_of) > 5 else "")
        hint = f"did you mean {near[0]!r}?" if near else f"values are {some}"
        raise TrainingError(f"the log has no {name} {unknown[0]!r} before its split; {hint}")
    column = [facet.name for facet in tokenizer.facets].index(name)
    return Surface(name, column, values, tuple(code_of[value] for value in values))


def on_surface(surface: Surface | None, events: EventBatch, border_G1: Tensor) -> Tensor:
    """bool [G]: groups that are asked for; of no surface all are."""
    if surface is None:
        return torch.ones(len(border_G1) - 1, dtype=torch.bool)
    code_G = context_of_groups(events, border_G1, (surface.column,))[:, 0]
    return torch.isin(code_G, torch.tensor(surface.codes))
