"""What an event says of interest in its item: the declared weight of its action (`feedback` of a schema).

A click is no sign of pleasure by itself (Yi et al., Beyond Clicks: Dwell Time for Personalization, RecSys 2014), and a
skip tells as much as a click does (Zhao et al., Recommendations with Negative Feedback, arXiv:1802.06501).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tokenization.codes.vocabulary import FIRST
from tokenization.errors import nearest
from tokenization.tokenizer.facets import ACTIONS
from tokenization.tokenizer.tokenizer import Tokenizer
from training.errors import TrainingError


@dataclass(frozen=True)
class Feedback:
    """Weights of actions. columns: of `facet_TF`, those that say which actions were done; none where all count 1.
    weight_A: float32 by code of the action; codes beyond it, admitted later, weigh 1."""

    columns: tuple[int, ...] = ()
    weight_A: Tensor = field(default_factory=lambda: torch.ones(FIRST))

    def rewards(self, facet_TF: Tensor) -> Tensor:
        """float32 [T]: the weight of each token's action; of one that several events became, the largest of them, since
        interest that was shown in an item isn't taken back by what else was done with it at once."""
        if not self.columns:
            return torch.ones(len(facet_TF))
        code_TA = facet_TF[:, list(self.columns)]
        known_TA = torch.where(code_TA < len(self.weight_A), code_TA, 0)
        # An absent action in the first column is an event without one; in the others, no further event.
        weight_TA = torch.where((code_TA > 0) | (torch.arange(code_TA.shape[1]) == 0), self.weight_A[known_TA], 0.0)
        return weight_TA.amax(1)


def feedback_of(tokenizer: Tokenizer, facets: Sequence[str]) -> Feedback:
    """The declared weights, for tokens with these columns. Raises TrainingError for an action that is misspelt."""
    declared = tokenizer.schema.feedback
    if not declared:
        return Feedback()
    vocabulary = tokenizer.vocabularies["action"]
    names = vocabulary.ids.cast(pa.string()).to_pylist()
    for name in declared:
        # One that is merely absent happens after the split only.
        if name not in names and difflib.get_close_matches(name, names, n=1):
            raise TrainingError(f"feedback: no action is called {name!r}; {nearest(name, names)}")
    weight_A = np.ones(FIRST + len(names), np.float32)
    weight_A[FIRST:] = [declared.get(name, 1.0) for name in names]
    # Where pairs merge, one action of a token stands in `action`, and all of them in these columns.
    told = [name for name in ACTIONS if name in facets] or ["action"]
    return Feedback(tuple(list(facets).index(name) for name in told), torch.from_numpy(weight_A))
