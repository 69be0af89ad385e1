"""How many floating-point operations a lesson needs, and how many a device could do: model FLOPs utilisation.

Counted is what the model's definition asks for, whatever computes it: a product of [m, k] and [k, n] is 2 m k n
operations, its backward pass twice as many, and nothing that is done again to save memory counts (Chowdhery et al.,
PaLM, arXiv:2204.02311, appendix B; Korthikanti et al., arXiv:2205.05198, section 5 and appendix A, who call it *model*
FLOPs, as against those of the hardware). Unlike there attention counts only the pairs that a token sees: its user's
window, sinks and memory. So the utilisation of a batch of short histories does not profit from its mask.

Left out are sums, norms, softmaxes and gathers, the optimiser, the repeat path, target-aware scores and the decoder of
semantic IDs: where they weigh, the utilisation is a lower bound.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from foundation.attention.sight import memory_blocks, no_blocks, see, sink_ends
from foundation.config import Groups, ModelConfig, Switch
from foundation.jagged import EventBatch, as_sequence, stream_of
from foundation.lesson import Lesson, Objectives
from foundation.objectives.contests import wanted
from foundation.objectives.targets import Targets
from foundation.repeat import FIRST_ITEM

FORWARD_AND_BACKWARD = 3  # a product has two gradients, each a product of its size

# Dense bfloat16 operations a second, of NVIDIA's data sheets (which tell twice as many of sparse matrices). The first
# whose words are part of the device's name counts; a name that is not here is of unknown speed.
PEAKS = (
    ("GB200", 2.5e15),
    ("B200", 2.25e15),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A30", 165e12),
    ("A10", 125e12),
)
_SIDE = 1_024  # of the matrices by which a processor is measured
_TRIES = 5


@dataclass(frozen=True)
class Flops:
    """Operations of a forward pass. trunk: products with weights of its layers. attention: queries by keys, shares by
    values. items: vectors of items. scores: states by candidates, and what leads from states to them."""

    trunk: int
    attention: int
    items: int
    scores: int

    @property
    def step(self) -> int:
        """Forward and backward."""
        return FORWARD_AND_BACKWARD * (self.trunk + self.attention + self.items + self.scores)


def lesson_flops(config: ModelConfig, objectives: Objectives, lesson: Lesson) -> Flops:
    """Operations of one lesson; its tensors may be on any device, and one number each is asked of that."""
    batch, width = lesson.batch, config.width
    return Flops(
        trunk=trunk_flops(config, batch.tokens),
        attention=4 * width * attended_pairs(config, batch),
        items=_item_flops(config, lesson),
        scores=_score_flops(config, objectives, lesson),
    )


def trunk_flops(config: ModelConfig, tokens: int) -> int:
    """Products of the trunk's layers with their weights: to queries, keys and values 3 D², out of attention D², into
    and out of the feed-forward 8 D²; and compressing each token into the slots of memory, where there are any."""
    width = config.width
    compressing = sum(6 * width * config.attention.memory for window in config.windows if window)
    return tokens * (24 * width * width * config.layers + compressing)


def attended_pairs(config: ModelConfig, batch: EventBatch) -> int:
    """Pairs of a token and a key that it sees, over all layers."""
    stream = stream_of(batch if config.groups is Groups.SET else as_sequence(batch))
    border_G1, offset_B1, told = stream.border_G1, stream.offset_B1, config.attention
    blocks = memory_blocks(border_G1, offset_B1, told) if told.memory else no_blocks(offset_B1)
    sink_B = sink_ends(border_G1, offset_B1, told)
    pairs = torch.zeros((), dtype=torch.int64, device=offset_B1.device)
    for window in set(config.windows):
        sight = see(border_G1, offset_B1, sink_B, blocks, window, told, batch.tokens)
        ranges_N2 = torch.cat([sight.window_T2, sight.sinks_T2, sight.slots_T2])
        pairs += config.windows.count(window) * (ranges_N2[:, 1] - ranges_N2[:, 0]).sum()
    return int(pairs)


def _item_flops(config: ModelConfig, lesson: Lesson) -> int:
    """Content of the items that are read into vectors, and the projection of those in histories."""
    width, item = config.width, config.item
    history = _distinct(lesson.batch.facet_TF[:, config.item_column], item.codes)
    content = 2 * width * (item.text_width + item.media_width)
    return history * (content + 2 * width * width) + len(lesson.negatives) * content


def _score_flops(config: ModelConfig, objectives: Objectives, lesson: Lesson) -> int:
    """A request's state by the candidates of its contests: the negatives that all share, its targets, and the user's
    own items where they compete."""
    requests, width, last = len(lesson.requests), config.width, len(lesson.targets) - 1
    now, future = (_against(lesson, target) for target in (lesson.targets[0], lesson.future))
    if config.repeat_path is Switch.ON or objectives.own is Switch.ON:
        now, future = (pairs + own_pairs(config, lesson) for pairs in (now, future))
    stored = width + sum(config.bands)
    told = width if objectives.next or config.candidates.layers else 0
    layers = (config.layers - 1) * bool(objectives.layerwise or objectives.distill) * width
    products = now * (told + stored * bool(objectives.embedding) + config.interests * width + layers)
    products += future * stored * bool(objectives.future)
    products += sum(_against(lesson, target) * width for target in lesson.targets[1:])
    # Horizons, and heads of what else is predicted, are products with weights.
    heads = sum(facet.size * (last + 1) for facet in config.facets for name, _ in config.targets if name == facet.name)
    heads += (last + 1) * (width + sum(dict(config.item.categories)[name] for name in config.category_targets))
    return 2 * (products + requests * width * (heads + config.gap_bins))


def _against(lesson: Lesson, target: Targets) -> int:
    """Pairs of a request and what competes in it: the negatives and the targets."""
    return len(lesson.requests) * len(lesson.negatives) + len(wanted(target).item_E)


def own_pairs(config: ModelConfig, lesson: Lesson) -> int:
    """Pairs of a request and a distinct item that its user met before it."""
    batch, requests = lesson.batch, lesson.requests
    code_T = batch.facet_TF[:, config.item_column]
    place_T = torch.arange(batch.tokens, device=code_T.device)
    _, pair_T = torch.unique(batch.user_T * (int(code_T.max()) + 1) + code_T, return_inverse=True)
    first_N = torch.full_like(place_T, batch.tokens).scatter_reduce(0, pair_T, place_T, "amin")
    first_T = (first_N[pair_T] == place_T) & (code_T >= FIRST_ITEM)
    met_T1 = torch.cat([first_T.new_zeros(1, dtype=torch.int64), first_T.cumsum(0)])
    return int((met_T1[requests.end_R] - met_T1[batch.offset_B1[:-1][requests.user_R]]).sum())


def _distinct(code_T: Tensor, codes: int) -> int:
    """How many codes there are among them; those that came after training read one row."""
    return int(torch.bincount(code_T.clamp(max=codes), minlength=1).count_nonzero())


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that a device is made for; None where nobody knows.

    Of a CUDA device bfloat16, by its name. Of a processor float32 on as many threads as torch has, measured once a
    process, in a tenth of a second.
    """
    if device.type == "cuda":
        return named_peak(torch.cuda.get_device_name(device))
    return _measured(torch.get_num_threads()) if device.type == "cpu" else None


def named_peak(name: str) -> float | None:
    """Of a CUDA device, by its name; None where it is in no table."""
    return next((peak for part, peak in PEAKS if re.search(rf"\b{part}\b", name)), None)


@functools.cache
def _measured(threads: int) -> float:
    """The best of a few products of matrices: what disturbs one only makes it slower. threads: of which it is."""
    one = torch.ones(_SIDE, _SIDE)  # nothing drawn: a run's random numbers stay as they are
    best = float("inf")
    for _ in range(_TRIES):
        begun = time.perf_counter()
        torch.mm(one, one)
        best = min(best, time.perf_counter() - begun)
    return 2 * _SIDE**3 / best
