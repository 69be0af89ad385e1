"""A model as its ranks train it: a twin of it whose weights may be cut, and whose lessons are one forward pass."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from foundation.learning import losses
from foundation.lesson import Lesson, Loss, Objectives
from foundation.model import FoundationModel
from foundation.teaching import Teaching
from training.parallel.layers import lay_out_layers
from training.parallel.plan import Parallelism, Scoring, Tables, Weights
from training.parallel.ranks import Ranks
from training.parallel.shards import Shards
from training.parallel.softmax import owners_part
from training.parallel.sums import broadcast, sum_gradients
from training.parallel.tables import RowShards, cut_tables

Told = tuple[str, Tensor, Tensor, float]
TABLES = ("model.tower.id.weight", "model.tower.bias.weight")
"""The weights of `Learning` whose gradients are row-sparse."""


class Learning(nn.Module):
    """The losses of a lesson as a module's forward pass: what DDP and FSDP2 hang their hooks on."""

    def __init__(
        self, model: FoundationModel, objectives: Objectives, scoring: Scoring, teaching: Teaching | None = None
    ) -> None:
        super().__init__()
        self.model, self._objectives, self._scoring = model, objectives, scoring
        self._teaching = teaching  # no module: a teacher has nothing to learn, so nothing to be laid out or told

    def forward(self, lesson: Lesson) -> list[Told]:
        """Name, total, weight and share of each loss: in tuples, in which hooks look for tensors."""
        if self._scoring is Scoring.OWNERS:
            table = self.model.tower.id
            assert isinstance(table, RowShards)
            lesson, sums = owners_part(lesson, table.owned)
            found = losses(self.model, lesson, self._objectives, sums)
        else:
            found = losses(self.model, lesson, self._objectives, teaching=self._teaching)
        return [(loss.name, loss.total, loss.weight, loss.share) for loss in found]


@dataclass(frozen=True)
class Placed:
    """What `place` makes of a model.

    model: whose weights move. learn: a lesson's losses. apart: weights whose gradients are each rank's own when the
    backward pass is over, and still to be added up. teaching: by another model, whole on every rank.
    """

    model: FoundationModel
    learn: nn.Module
    apart: list[nn.Parameter]
    shards: Shards
    ranks: Ranks
    teaching: Teaching | None
    _plain: FoundationModel

    def losses(self, lesson: Lesson) -> list[Loss]:
        """The lesson's losses; all ranks take part."""
        return [Loss(*told) for told in self.learn(lesson)]

    def more_to_come(self) -> AbstractContextManager[None]:
        """Around a lesson, forward and backward, that is not the last of its step."""
        # DDP would add up again what was added up before; once a step is enough.
        return self.learn.no_sync() if isinstance(self.learn, DistributedDataParallel) else nullcontext()

    def sum_gradients(self) -> None:
        """Add up over the ranks what is not added up yet."""
        sum_gradients(self.apart, self.ranks)

    def settle(self) -> None:
        """Give the model that was placed what was learned. Of one that was cut rank 0 alone gets it, on the CPU; on the
        others it stays without weights."""
        if self.shards.mesh is None:
            return
        state = self.shards.whole_state(self.model, keep=self.ranks.rank == 0)
        if self.ranks.rank == 0:
            self._plain.load_state_dict(state, assign=True)


def place(
    model: FoundationModel,
    plan: Parallelism,
    objectives: Objectives,
    ranks: Ranks,
    device: torch.device,
    teaching: Teaching | None = None,
) -> Placed:
    """The model on this rank's device, its weights those of rank 0, laid out as the plan says.

    A model that is cut gives its weights away, and is empty until `settle`.
    """
    plan = plan.alone() if ranks.count == 1 else plan
    mesh = None if plan.whole else ranks.mesh(device)
    if mesh is None:
        model.to(device)
    twin = _twin(model)
    if plan.tables is Tables.ROWS:
        cut_tables(twin.tower, ranks, device)
    broadcast(twin.to(device), ranks)
    lay_out_layers(twin.trunk, plan)
    if teaching is not None:
        teaching.teacher.to(device)
    learning = Learning(twin, objectives, plan.scoring, teaching)
    tables = {name: weight for name, weight in learning.named_parameters() if name in TABLES}
    apart = [] if plan.tables is Tables.ROWS else [weight for weight in tables.values() if weight.requires_grad]
    learn: nn.Module = learning
    if plan.weights is Weights.DDP:
        learn = overlapped(learning, list(tables))
    elif plan.weights is Weights.SHARDED:
        assert mesh is not None
        shard(learning, mesh, set(tables.values()))
    else:
        dense = [weight for name, weight in learning.named_parameters() if name not in tables]
        apart += [weight for weight in dense if weight.requires_grad]
    _give_away(model, twin)
    return Placed(twin, learn, apart, Shards.of(twin, mesh), ranks, teaching, model)


def shard(learning: Learning, mesh: DeviceMesh, tables: set[nn.Parameter]) -> None:
    """FSDP2: each layer of the trunk by itself, and everything else together; tables stay as they are.

    Layers are gathered one after another and let go, what is left stays from the forward to the backward pass.
    """
    for block in learning.model.trunk.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(learning, mesh=mesh, ignored_params=tables)
    for module in learning.modules():
        if isinstance(module, FSDPModule):
            # Losses are divided by a global weight already; a sum is also all that gloo knows.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def overlapped(learning: Learning, tables: list[str]) -> DistributedDataParallel:
    """DDP: dense gradients are added up in buckets while the backward pass goes on."""
    # Buffers are what is known of items: the same everywhere, and too much to be told again.
    left_out = [*tables, *(name for name, _ in learning.named_buffers())]
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(learning, left_out)  # type: ignore[no-untyped-call]
    # Weights of what has no share in the loss get no gradient.
    found = DistributedDataParallel(learning, find_unused_parameters=True)
    # Not by its name: DDP would take its annotations for wrong, which are strings.
    found.register_comm_hook(None, lambda _, bucket: _added_up(bucket))
    return found


def _added_up(bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Losses are divided by a global weight already: a sum, where DDP would take the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[list[Tensor]] = work.get_future()
    return future.then(lambda done: done.value()[0])


def _twin(model: FoundationModel) -> FoundationModel:
    """Modules of its own around the same weights."""
    kept = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in kept})


def _give_away(model: FoundationModel, twin: FoundationModel) -> None:
    """Leave the model nothing in the place of weights that the twin does not share with it."""
    own = dict(twin.named_parameters())
    for name, weight in list(model.named_parameters()):
        if own[name] is not weight:
            module, _, last = name.rpartition(".")
            setattr(model.get_submodule(module), last, nn.Parameter(weight.detach().to("meta"), weight.requires_grad))
