from __future__ import annotations

import torch

from foundation.objectives.facets import facet_cross_entropy


def test_absent_facets_count_nothing() -> None:
    logit_RC = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    row, code = torch.tensor([0, 0, 1]), torch.tensor([3, 0, 0])
    total, weight = facet_cross_entropy(logit_RC, row, code, torch.tensor([0.5, 9.0, 9.0]))
    torch.testing.assert_close(total, -0.5 * torch.log_softmax(logit_RC, 1)[0, 3])
    assert weight == 0.5
    total.backward()
    assert logit_RC.grad is not None
    assert not logit_RC.grad[1].any()
