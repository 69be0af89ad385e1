"""The subgraph in somebody else's training: their optimiser, DDP and FSDP over two processes that talk over gloo.

Whatever spreads it, one step gives the gradients of one process with all users.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from foundation.errors import ModelError
from foundation.subgraph import Subgraph

ROOT = Path(__file__).parents[2]
WAYS = ("ddp", "ddp-partly", "fsdp", "fsdp-partly")

# What a stranger writes; `trained` also runs in this process.
STRANGER = '''
import torch
from torch import nn

class Churn(nn.Module):
    def __init__(self, users):
        super().__init__()
        self.users = users
        torch.manual_seed(5)
        self.head = nn.Linear(users.space.width, 1)

    def forward(self, batch):
        return self.head(self.users(batch)).squeeze(1)

def step(churn, batch):
    """The mean over users of a loss, its gradients, and a step of a plain AdamW."""
    optimiser = torch.optim.AdamW(churn.parameters(), lr=1e-3)
    loss = (churn(batch) - 1).square().mean()
    loss.backward()
    whole = lambda one: one.full_tensor() if hasattr(one, "full_tensor") else one
    found = {name: whole(weight.grad).clone() for name, weight in churn.named_parameters() if weight.requires_grad}
    optimiser.step()
    return found
'''

WORKER = (
    STRANGER
    + """
import sys
import pyarrow.parquet as pq
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from foundation.errors import ModelError
from foundation.subgraph import Subgraph

rank, folder, model = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

def spread(churn, way):
    if way.startswith("ddp"):
        return DistributedDataParallel(churn)
    mesh = init_device_mesh("cpu", (2,))
    for block in churn.users.model.trunk.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(churn, mesh=mesh)

def refusal(users):
    try:
        users.save_pretrained(f"{folder}/sharded-{rank}")
    except ModelError as error:
        return str(error)

found = {}
for way in sys.argv[4:]:
    users = Subgraph.from_pretrained(model)
    users = users.trainable_from(-1) if way.endswith("partly") else users.trainable()
    tokens = users.tokenizer.transform(pq.read_table(f"{folder}/events.parquet"))
    half = tokens.num_rows // 2
    gradients = step(spread(Churn(users), way), users.pack(tokens.slice(rank * half, half))[1])
    gradients = {name.removeprefix("module."): gradient for name, gradient in gradients.items()}
    found[way] = {"gradients": gradients, "said": refusal(users) if way.startswith("fsdp") else ""}
if rank == 0:
    torch.save(found, f"{folder}/found.pt")
dist.destroy_process_group()
"""
)


def alone(subgraph: Subgraph, tokens: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    found: dict[str, Any] = {}
    exec(STRANGER, found)  # noqa: S102
    churn = found["Churn"](subgraph)
    return churn, found["step"](churn, subgraph.pack(tokens)[1])


@pytest.fixture(scope="module")
def spread(folder: Path, kiosk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What rank 0 of two processes found in each way."""
    place = tmp_path_factory.mktemp("spread")
    pq.write_table(kiosk.events, place / "events.parquet")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(place), str(folder), *WAYS],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    found: dict[str, Any] = torch.load(place / "found.pt")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_give_the_gradients_of_one(folder: Path, kiosk, spread: dict[str, Any], way: str) -> None:
    found = spread[way]
    subgraph = Subgraph.from_pretrained(folder)
    subgraph = subgraph.trainable_from(-1) if way.endswith("partly") else subgraph.trainable()
    _, expected = alone(subgraph, subgraph.tokenizer.transform(kiosk.events))
    assert found["gradients"].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    if way.startswith("fsdp"):
        assert "is spread over processes: gather all of them into a Subgraph of one process" in found["said"]


def test_a_plain_optimiser_moves_what_learns_and_nothing_else(folder: Path, kiosk) -> None:
    before = dict(Subgraph.from_pretrained(folder).named_parameters())
    for subgraph in (
        Subgraph.from_pretrained(folder),
        Subgraph.from_pretrained(folder).trainable_pooling(),
        Subgraph.from_pretrained(folder).trainable(),
    ):
        learning = {name for name, weight in subgraph.named_parameters() if weight.requires_grad}
        _, gradients = alone(subgraph, subgraph.tokenizer.transform(kiosk.events))
        moved = {name for name, weight in subgraph.named_parameters() if not torch.equal(weight, before[name])}
        assert moved == learning
        assert {name.removeprefix("users.") for name in gradients if name.startswith("users.")} == learning


def test_sparse_tables_are_for_who_asks(folder: Path, kiosk) -> None:
    subgraph = Subgraph.from_pretrained(folder).trainable().sparse_tables()
    _, batch = subgraph.tokenize(kiosk.events)
    subgraph(batch).sum().backward()
    gradients = {name: weight.grad for name, weight in subgraph.named_parameters() if weight.grad is not None}
    assert [name for name, gradient in gradients.items() if gradient.is_sparse] == ["model.tower.id.weight"]


def test_a_layer_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="the trunk has 2 layers, 0 to 1, none is 2"):
        Subgraph.from_pretrained(folder).trainable_from(2)
