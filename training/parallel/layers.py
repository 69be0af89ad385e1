"""How the trunk's layers compute: in bfloat16, compiled, or again in the backward pass instead of from memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from foundation.config import Switch
from foundation.transformer import Block, Trunk
from training.parallel.plan import Compiler, Parallelism, Precision

Forward = Callable[..., Tensor]


def lay_out_layers(trunk: Trunk, plan: Parallelism) -> None:
    """Let the layers of a trunk compute as the plan says; their weights, names and hooks stay as they are."""
    for block in trunk.blocks:
        assert isinstance(block, Block)
        if plan.compile is not Compiler.OFF:
            _compile(block, plan.compile)
        forward: Forward = block.forward
        if plan.precision is Precision.BFLOAT16:
            forward = partial(_in_bfloat16, forward)
        if plan.recompute is Switch.ON:
            forward = partial(_recomputed, forward)
        if forward is not block.forward:
            # In the place of the method, so that hooks (FSDP2 gathers weights in one) run around it.
            setattr(block, "forward", forward)  # noqa: B010  mypy takes no method for a variable


def _compile(block: Block, compiler: Compiler) -> None:
    """What lies before attention, and what lies behind: products and what is done to each token.

    Attention stays out: its layout is another closure every step, which would be compiled anew, and its backends bring
    kernels of their own. Numbers of tokens are dynamic, or every batch would be.
    """
    for name in ("projected", "finished"):
        compiled = torch.compile(getattr(block, name), backend=str(compiler), dynamic=True, fullgraph=True)
        setattr(block, name, compiled)


def _in_bfloat16(forward: Forward, x_TD: Tensor, *others: Any) -> Tensor:
    """Autocast inside a layer: products in bfloat16, what is passed on from layer to layer in float32."""
    with torch.autocast(x_TD.device.type, torch.bfloat16):
        return forward(x_TD, *others).float()


def _recomputed(forward: Forward, *given: Any) -> Tensor:
    """Of what the layer computes only the result is held."""
    found: Tensor = checkpoint(forward, *given, use_reentrant=False)
    return found
