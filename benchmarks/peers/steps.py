"""Training steps of a peer's SASRec, timed: run in the peer's own environment, it lives until its input ends.

    python -P steps.py TASK.json

TASK.json names the `system` (rectools or replay), `events` (Parquet: user_id, item_id, position; all that is learned),
`width`, `blocks`, `heads`, `dropout`, `length` and `threads`. The first line out says how many `events` a pass has and
how many `items`. Then each line in, {"rows": of a batch, "events": to learn at least}, is answered by one out,
{"events": learned, "seconds": taken}. An event is a position that is no padding and has a target.

The model, its data and its optimiser are the peer's own, and so is the step; the loop around it is bare: no trainer,
no logger, no callback. Batches are made before the clock starts. This file imports nothing of userfm.
"""

import json
import sys
import time
import warnings
from itertools import chain, repeat
from pathlib import Path

import pandas as pd
import torch

FEWEST_ROWS = 8  # that are encoded together


class RecTools:
    """Softmax over the catalogue, as `SASRecModel.fit` builds it; the loader is the preparator's."""

    def __init__(self, task: dict) -> None:
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import SASRecModel

        events = pd.read_parquet(task["events"]).rename(columns={"position": Columns.Datetime}).assign(weight=1.0)
        events[Columns.Datetime] = pd.to_datetime(events[Columns.Datetime], unit="s")
        self._model = SASRecModel(
            n_blocks=task["blocks"],
            n_heads=task["heads"],
            n_factors=task["width"],
            dropout_rate=task["dropout"],
            session_max_len=task["length"],
            loss="softmax",
        )
        self._model._build_model_from_dataset(Dataset.construct(events))
        self.module = self._model.lightning_model
        self.module.on_train_start()
        self.items = self._model.data_preparator.item_id_map.size - 1  # padding is one

    def batches(self, rows: int):
        """A pass over all users."""
        self._model.data_preparator.batch_size = rows
        return iter(self._model.data_preparator.get_dataloader_train())

    def loss(self, batch: dict) -> torch.Tensor:
        """The peer's own training step."""
        return self.module.training_step(batch, 0)

    def events(self, batch: dict) -> int:
        """Targets that are no padding."""
        return int((batch["y"] != 0).sum())


class RePlay:
    """`SasRec.from_params` with its cross-entropy over the catalogue, its Parquet loader and its transforms.

    Of RePlay's two implementations that is the one that is not deprecated. Rows of like lengths are encoded together by
    RePlay's own `LengthBucketedQueryEncoder`, which changes nothing that is learned and is a little faster.
    """

    def __init__(self, task: dict) -> None:
        from replay.data import FeatureHint, FeatureSource, FeatureType
        from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
        from replay.nn.lightning import LightningModule
        from replay.nn.sequential import SasRec
        from replay.nn.sequential.length_bucket import LengthBucketedQueryEncoder
        from replay.nn.transform.template import make_default_sasrec_transforms

        events = pd.read_parquet(task["events"]).sort_values(["user_id", "position"])
        events["item_id"], names = events["item_id"].factorize()
        self.items = len(names)
        self._path = Path(task["events"]).with_name("replay.parquet")
        events.groupby("user_id", as_index=False)["item_id"].agg(list).to_parquet(self._path)
        item = TensorFeatureInfo(
            "item_id",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            embedding_dim=task["width"],
            padding_value=self.items,
            cardinality=self.items,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
        schema = TensorSchema([item])
        model = SasRec.from_params(
            schema,
            embedding_dim=task["width"],
            num_heads=task["heads"],
            num_blocks=task["blocks"],
            max_sequence_length=task["length"],
            dropout=task["dropout"],
        )
        self._encoder = LengthBucketedQueryEncoder(model.body.encoder, bucket_size=FEWEST_ROWS)
        model.body.encoder = self._encoder
        self.module = LightningModule(model)
        self._data, self._transforms = ParquetModule, make_default_sasrec_transforms(schema)
        self._shapes = {"train": {"item_id": {"shape": task["length"] + 1, "padding": self.items}}}

    def batches(self, rows: int):
        """A pass over all users."""
        data = self._data(rows, self._shapes, self._transforms, train_path=str(self._path))
        data.setup("fit")
        return map(data.compiled_transforms["train"], data.train_dataloader())

    def loss(self, batch: dict) -> torch.Tensor:
        """What the module's training step does, less that it asks a trainer for the rate, to log it."""
        self._encoder.bucket_size = max(len(batch["padding_mask"]) // 4, FEWEST_ROWS)
        return self.module(batch)["loss"]

    def events(self, batch: dict) -> int:
        """Targets that are no padding, of positions that are none."""
        return int((batch["target_padding_mask"].squeeze(-1) & batch["padding_mask"]).sum())


SYSTEMS = {"rectools": RecTools, "replay": RePlay}


def endless(system, rows: int):
    """Pass after pass."""
    return chain.from_iterable(map(system.batches, repeat(rows)))


def main(task: dict) -> None:
    """Answer turns until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    system = SYSTEMS[task["system"]](task)
    system.module.log = lambda *told, **more: None  # there is no trainer to log to
    system.module.train()
    optimiser, streams = system.module.configure_optimizers(), {}
    whole = {"events": sum(map(system.events, system.batches(256))), "items": system.items}
    print(json.dumps(whole), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        stream = streams.setdefault(asked["rows"], endless(system, asked["rows"]))
        held, events = [], 0
        while events < asked["events"]:
            held.append(next(stream))
            events += system.events(held[-1])
        start = time.perf_counter()
        for batch in held:
            optimiser.zero_grad()
            system.loss(batch).backward()
            optimiser.step()
        turn = {"events": events, "seconds": time.perf_counter() - start}
        print(json.dumps(turn), file=answers, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(json.loads(Path(sys.argv[1]).read_text()))
