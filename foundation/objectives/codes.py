"""Loss of semantic IDs: how likely the paths of what came were, made by the decoder or copied from the user's own."""

from __future__ import annotations

import torch
from torch import Tensor


def path_cross_entropy(
    log_made_E: Tensor, copied_E: Tensor, log_yes_E: Tensor, log_no_E: Tensor, weight_E: Tensor
) -> tuple[Tensor, Tensor]:
    """−log of P(made) × no + P(copied) × yes for each target's path, a pointer-generator (See et al.,
    arXiv:1704.04368); (sum, weight).

    log_made_E: log P of the whole path by the decoder. copied_E: the share that the path has among the user's own, 0
    where it has none. log_yes_E, log_no_E: log P that an own item is copied, and that none is; −inf where nobody can.
    """
    there_E = (copied_E > 0) & (log_yes_E > -torch.inf)
    # A gradient of log 0 is no number, even under a mask.
    copied_E, yes_E = torch.where(there_E, copied_E, 1.0), torch.where(there_E, log_yes_E, 0.0)
    made_E = log_made_E + log_no_E
    both_E = torch.logaddexp(made_E, torch.log(copied_E) + yes_E)
    return -(torch.where(there_E, both_E, made_E) * weight_E).sum(), weight_E.sum()
