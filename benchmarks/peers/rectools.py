"""RecTools' SASRec family as a peer: the log as it reads it, and its lists.

`sasrec.py` is what runs in there. Whatever was trained is kept under a name made of its task, so that a series that was
cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.lists import Lists, held_out, of_table
from tokenization.corpus.corpus import Corpus
from training.holdout import Holdout, Part
from training.rows import list_values

HERE = Path(__file__).parent
SCRIPT = HERE / "sasrec.py"


@dataclass(frozen=True)
class Settings:
    """What RecTools' SASRec is told.

    layers: sasrec, or ligr as in eSASRec. loss: softmax, sampled_softmax, gBCE or BCE. length: of the histories.
    """

    layers: str = "sasrec"
    blocks: int = 2
    heads: int = 2
    width: int = 64
    dropout: float = 0.2
    length: int = 200
    loss: str = "softmax"
    negatives: int = 256
    gbce_t: float = 0.75
    rate: float = 1e-3
    batch: int = 128


@dataclass(frozen=True)
class Course:
    """How long it learns: so many epochs or seconds (of processor time, or of the clock on the wall), whichever is over
    first. look: epochs from one look at validation to the next, patience: looks without a rise that end the course."""

    epochs: int
    seconds: float = 1e9
    clock: str = "processor"
    look: int = 1
    patience: int = 1_000_000
    threads: int = 1


@dataclass(frozen=True)
class Trained:
    """lists: of the best epoch, or of the last where validation was not looked at. epochs: (epoch, seconds, NDCG@10 on
    validation or None)."""

    lists: Lists
    epochs: tuple[tuple[int, float, float | None], ...]

    @property
    def best(self) -> tuple[int, float, float]:
        """The epoch with the best NDCG@10 on validation."""
        return max(self.looks, key=lambda one: one[2])

    @property
    def looks(self) -> list[tuple[int, float, float]]:
        """The epochs after which validation was looked at."""
        return [(epoch, seconds, found) for epoch, seconds, found in self.epochs if found is not None]


def train(
    python: Path, corpus: Corpus, part: Part, settings: Settings, course: Course, seed: int, cache: Path
) -> Trained:
    """Train on everything before a part; on the validation part, keep the lists of the epoch that does best there.

    Raises RuntimeError with the end of its output where the peer fails.
    """
    task: dict[str, Any] = {**asdict(course), "settings": asdict(settings), "seed": seed}
    told = [json.dumps(task, sort_keys=True), corpus.tokenizer.fingerprint, part, SCRIPT.read_text(encoding="utf-8")]
    name = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    folder, holdout = cache / f"rectools-{name}", held_out(corpus, part)
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_events(corpus, holdout, folder)
        task |= {name: str(folder / f"{name}.parquet") for name in ("events", "asked", "lists")}
        task |= {"told": str(folder / "told.jsonl")}
        if part is Part.VALIDATION:
            task |= {"held": str(folder / "held.parquet")}
        (folder / "task.json").write_text(json.dumps(task, indent=1))
        # -P: beside the script lies this file, which has the name of the package that it imports.
        command = [str(python), "-P", str(SCRIPT), str(folder / "task.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"RecTools failed on {folder / 'task.json'}: {done.stderr[-2000:]}")
        (folder / "done").touch()
    lines = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
    lists = of_table(pq.read_table(folder / "lists.parquet"), holdout.user_ids, corpus.tokenizer.items.ids)
    return Trained(lists, tuple((line["epoch"], line["seconds"], line["ndcg@10"]) for line in lines))


def _write_events(corpus: Corpus, holdout: Holdout, folder: Path) -> None:
    """What the requests may read, as a long table: just what the model reads and learns from."""
    requests = holdout.requests(0, len(holdout))
    code_T, offset = list_values(requests.history[corpus.tokenizer.schema.candidates])
    time_T, _ = list_values(requests.history["time"])
    ids = corpus.tokenizer.items.ids
    user_T = requests.user_ids.take(pa.array(np.repeat(np.arange(len(requests)), np.diff(offset))))
    events = {"user_id": user_T, "item_id": ids.decode(code_T), "position": pa.array(time_T.astype(np.int64))}
    pq.write_table(pa.table(events), folder / "events.parquet")
    pq.write_table(pa.table({"user_id": holdout.user_ids}), folder / "asked.parquet")
    truth = holdout.truth
    held = {"user_id": holdout.user_ids.take(pa.array(truth.users)), "item_id": ids.decode(truth.codes)}
    pq.write_table(pa.table(held), folder / "held.parquet")
