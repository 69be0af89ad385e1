"""RecTools' SASRec and eSASRec, run in an environment of their own: a list for every user out.

    python sasrec.py TASK.json

TASK.json names `events` (Parquet: user_id, item_id, position; all that may be read), `asked` (Parquet: user_id),
`lists` (Parquet out: user_id, item_id, rank from 1), `told` (JSON lines out, one an epoch), `settings`, `seed`, and,
where the best epoch is to be found, `held` (Parquet: user_id, item_id; the item that each user took next). This file
imports nothing of userfm: the environment has other versions of everything.

eSASRec (Tikhonovich et al., arXiv:2508.06450) is SASRec with LiGR layers and sampled softmax. Sources of the settings:
Kang & McAuley, arXiv:1808.09781; Petrov & Macdonald, gSASRec, arXiv:2308.07192.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

LAYERS = {"sasrec": SASRecTransformerLayers, "ligr": LiGRLayers}
DEPTH = 100


def trainer() -> lightning.Trainer:
    """Epochs are counted by the caller; nothing is drawn or logged."""
    return lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="auto",
        devices=1,
    )


def model_of(settings: dict) -> SASRecModel:
    """settings: layers, blocks, heads, width, dropout, length, loss, negatives, gbce_t, rate, batch."""
    return SASRecModel(
        n_blocks=settings["blocks"],
        n_heads=settings["heads"],
        n_factors=settings["width"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["length"],
        loss=settings["loss"],
        n_negatives=settings["negatives"],
        gbce_t=settings["gbce_t"],
        lr=settings["rate"],
        batch_size=settings["batch"],
        transformer_layers_type=LAYERS[settings["layers"]],
        get_trainer_func=trainer,
    )


def lists_of(model: SASRecModel, dataset: Dataset, asked: np.ndarray) -> pd.DataFrame:
    """The first items of every user, those that were met filtered out."""
    found = model.recommend(users=asked, dataset=dataset, k=DEPTH, filter_viewed=True)
    return found[[Columns.User, Columns.Item, Columns.Rank]]


def ndcg(lists: pd.DataFrame, held: pd.DataFrame) -> float:
    """NDCG@10 of one item each."""
    hit = lists.merge(held, on=["user_id", "item_id"])
    rank = hit[hit["rank"] <= 10]["rank"].to_numpy()
    return float((1 / np.log2(rank + 1)).sum() / len(held))


def main(task: dict) -> None:
    """Train epoch by epoch, to a number of epochs, of seconds, or until validation has not risen for so many looks."""
    settings = task["settings"]
    torch.set_num_threads(task["threads"])
    lightning.seed_everything(task["seed"], workers=True, verbose=False)
    events = pd.read_parquet(task["events"])
    # An order is all that is known: positions stand as so many seconds.
    events = events.rename(columns={"position": Columns.Datetime}).assign(weight=1.0)
    events[Columns.Datetime] = pd.to_datetime(events[Columns.Datetime], unit="s")
    dataset = Dataset.construct(events)
    asked = pd.read_parquet(task["asked"])["user_id"].to_numpy()
    held = pd.read_parquet(task["held"]) if task.get("held") else None
    model, best, since, seconds = model_of(settings), -1.0, 0, 0.0
    with Path(task["told"]).open("w") as told:
        for epoch in range(1, task["epochs"] + 1):
            start = time.process_time() if task["clock"] == "processor" else time.perf_counter()
            model.fit_partial(dataset, min_epochs=1, max_epochs=1)
            seconds += (time.process_time() if task["clock"] == "processor" else time.perf_counter()) - start
            over = seconds >= task["seconds"] or epoch == task["epochs"]
            figure = None
            if held is not None and (over or epoch % task["look"] == 0):
                lists = lists_of(model, dataset, asked)
                figure = ndcg(lists, held)
                since = 0 if figure > best else since + 1
                if figure > best:
                    best = figure
                    lists.to_parquet(task["lists"])
            told.write(json.dumps({"epoch": epoch, "seconds": seconds, "ndcg@10": figure}) + "\n")
            told.flush()
            if over or since >= task["patience"]:
                break
    if held is None:
        lists_of(model, dataset, asked).to_parquet(task["lists"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(json.loads(Path(sys.argv[1]).read_text()))
