"""Many ranks, applied from outside: the model knows nothing of them.

Its files are the way of a step: who is there (`ranks`), what was asked for (`plan`), a model as its ranks train it
(`placed`, `layers`, `tables`), what goes from rank to rank (`exchange`, `softmax`), losses and gradients added up
(`sums`), and what is saved (`shards`).
"""

from training.parallel.placed import Placed, place
from training.parallel.plan import Compiler, Parallelism, Precision, Scoring, Tables, Weights, check_parallelism
from training.parallel.ranks import Ranks, agree, anybody, largest, open_group, own_device, total
from training.parallel.sums import (
    addend_of,
    broadcast,
    global_loss,
    global_means,
    global_weights,
    sum_gradients,
    summed,
)

__all__ = [
    "Compiler",
    "Parallelism",
    "Placed",
    "Precision",
    "Ranks",
    "Scoring",
    "Tables",
    "Weights",
    "addend_of",
    "agree",
    "anybody",
    "broadcast",
    "check_parallelism",
    "global_loss",
    "global_means",
    "global_weights",
    "largest",
    "open_group",
    "own_device",
    "place",
    "sum_gradients",
    "summed",
    "total",
]
