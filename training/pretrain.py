"""The loop on Ray Train: a run directory in, a trained model in it out (training/run.py)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from foundation import pretrained
from foundation.card import Told, new_card
from foundation.low_rank import merge
from foundation.model import FoundationModel
from foundation.space import Space
from tokenization.corpus.corpus import Corpus
from training import attempts, checkpoint, stopping
from training.beginning import begin
from training.distill import Distillation, teacher_of
from training.errors import Stopped, TrainingError
from training.finetune import FineTuning, directions_of, name_of
from training.loop import train
from training.parallel import Ranks, open_group, own_device
from training.progress import Progress, StepRecord
from training.run import Run
from training.stopping import Wish
from training.training_report import write_training_report
from training.update import Update, save_grown

UNNUMBERED = 1  # version of a space that no store has given one yet
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Workers:
    """Processes that train, each with a GPU where there is one.

    most: so many where there is room for them. least: so many must there be; the run begins, and goes on after losing
    some, with what there is from there to `most`. failures: of workers or of their machines that a run survives, each
    from its newest checkpoint on. address: of a running Ray cluster that shares the run's folder; None starts one on
    this machine.
    """

    most: int = 1
    least: int = 0
    failures: int = 3
    address: str | None = None

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 <= self.least <= self.most:
            raise TrainingError(
                f"{self.least} to {self.most} workers make no run: take one at the least, and no more than at most"
            )


ONE = Workers()


def pretrain(
    run: Run,
    workers: Workers = ONE,
    on_step: Callable[[StepRecord], None] = lambda record: None,
) -> Space:
    """Train a run to its end on Ray Train and write its model; a finished run is returned as it is.

    on_step is called here, in the driver, as the run's log grows. Raises TrainingError with the cause where workers
    failed too often, and Stopped where this process was asked to stop (SIGTERM).
    """
    if run.finished:
        return Space.from_json((run.model / "space.json").read_text())
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from tokenization.job.cluster import session

    stopping.take_back(run.folder)
    with session(workers.address), stopping.on_sigterm() as stop:
        wanted = (workers.least, workers.most) if 0 < workers.least < workers.most else workers.most
        gpu = on_gpus()
        trainer = TorchTrainer(
            _work,
            train_loop_config={"folder": str(run.folder.resolve())},
            scaling_config=ScalingConfig(
                num_workers=wanted,  # type: ignore[arg-type]  # typed as before workers could come and go
                use_gpu=gpu,
                # A share of a CPU: workers that claim every CPU would starve whatever else runs on Ray.
                resources_per_worker={"CPU": 0.5, **({"GPU": 1} if gpu else {})},
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=str(run.folder.resolve()),
                failure_config=FailureConfig(max_failures=workers.failures),
            ),
        )
        _fit_watched(trainer, run, on_step, stop)
    return _space(run)


def on_gpus() -> bool:
    """Whether workers of the Ray cluster that is connected to have a GPU each; the driver's machine may have none."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0)) >= 1  # type: ignore[no-untyped-call]


def pretrain_bare(run: Run, on_step: Callable[[StepRecord], None] = lambda record: None) -> Space:
    """The same in this process, without Ray; joins a process group that is open, or that torchrun's environment
    describes. Raises Stopped where the process was asked to stop (SIGTERM)."""
    with stopping.on_sigterm() as stop:
        return _train_here(run, open_group(own_device()), own_device(), on_step, stop)


def _train_here(
    run: Run, ranks: Ranks, device: torch.device, on_step: Callable[[StepRecord], None], stop: Wish
) -> Space:
    corpus = Corpus.open(run.corpus)
    began = begin(run, corpus, ranks)
    with _log(run, ranks) as write:
        if ranks.rank == 0:
            attempts.note(run.folder, checkpoint.newest_step(run.checkpoints), device, ranks.count)

        def logged(record: StepRecord) -> None:
            write(record)
            on_step(record)

        progress = train(
            began.model,
            began.training_set,
            began.recipe,
            run.checkpoints,
            ranks,
            logged,
            device,
            stop,
            began.teaching,
        )
    if progress.stopped:
        raise _stopped(run)
    if ranks.rank != 0:
        return Space(corpus.tokenizer.schema.name, UNNUMBERED, "", 0, 0.0)
    _write_model(run, began.model, corpus, progress, began.training_set.end)
    write_training_report(run.folder)
    return Space.from_json((run.model / "space.json").read_text())


def _write_model(run: Run, model: FoundationModel, corpus: Corpus, progress: Progress, as_of: float) -> None:
    told = _told(run, corpus, progress)
    learned = f"{told.data[0]}; {told.training[0]}"
    match run.origin:
        case Update() as update:
            save_grown(update.base, model, corpus, run.model, learned, as_of)
            return
        case FineTuning() as tuning:
            merge(model)
            what = f"{name_of(tuning)}; {learned}"
            save_grown(tuning.base, model, corpus, run.model, what, as_of, directions_of(tuning))
            return
    card = new_card(model, corpus.tokenizer, told)
    pretrained.save(model, corpus.tokenizer, run.model, corpus.tokenizer.schema.name, UNNUMBERED, as_of, card)


def _work(config: dict[str, Any]) -> None:
    """What each Ray worker runs."""
    from ray.train import get_context
    from ray.train.torch import get_device

    torch.set_num_threads(threads_of(os.cpu_count() or 1, get_context().get_local_world_size()))
    run = Run.open(config["folder"])
    try:
        _train_here(run, Ranks.joined(), get_device(), lambda record: None, stopping.passed_on(run.folder))
    except Stopped:
        return  # what is no failure must not be taken for one, and tried again


@contextmanager
def _log(run: Run, ranks: Ranks) -> Iterator[Callable[[StepRecord], None]]:
    """training.jsonl and TensorBoard of rank 0, flushed line by line so that a driver can follow.

    Steps after the newest checkpoint are taken out of both: the run does them again.
    """
    if ranks.rank != 0:
        yield lambda record: None
        return
    from torch.utils.tensorboard import SummaryWriter

    step = checkpoint.newest_step(run.checkpoints)
    _cut_back(run.log, step)
    with run.log.open("a", buffering=1) as lines:
        board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)

        def write(record: StepRecord) -> None:
            lines.write(record.to_line() + "\n")
            for name, value in record.scalars().items():
                board.add_scalar(name, value, record.step)

        try:
            yield write
        finally:
            board.close()


def _cut_back(log: Path, step: int) -> None:
    """Drop the records after `step`, and a line that a crash left unfinished.

    The shorter log takes the place of the longer one: whoever follows it sees another file, not one cut under its feet.
    """
    if not log.exists():
        return
    lines = log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        fresh = log.with_suffix(".tmp")
        fresh.write_bytes(b"".join(kept))
        fresh.rename(log)


def _space(run: Run) -> Space:
    """What a run that ended has made. Raises Stopped where it ended before its time, as it was asked to."""
    path = run.model / "space.json"
    if not path.exists():
        raise _stopped(run)
    return Space.from_json(path.read_text())


def _stopped(run: Run) -> Stopped:
    step = checkpoint.newest_step(run.checkpoints)
    return Stopped(f"{run.folder} was asked to stop and did after step {step:,}; the same command goes on from there")


def _fit_watched(trainer: Any, run: Run, on_step: Callable[[StepRecord], None], stop: Wish) -> None:
    """Run `fit` in a thread and follow the log that rank 0 writes; a wish to stop goes on to the workers."""
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  handed to the caller below
            failure.append(error)

    step = checkpoint.newest_step(run.checkpoints)
    _cut_back(run.log, step)  # rank 0 does the same, but only after what it does again might have been told from here
    log = _Tail(run.log, step)
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if stop():
            stopping.pass_on(run.folder)
        for record in log.new_records():
            on_step(record)
    if failure:
        cause = str(failure[0]).strip().splitlines() or [type(failure[0]).__name__]
        raise TrainingError(f"training stopped: {cause[-1]}") from failure[0]


class _Tail:
    """The records of a log after `step`, each step once, also where workers that failed do some of them again."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step
        self.place = 0
        self.file_id = 0

    def new_records(self) -> Iterator[StepRecord]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            if (file_id := os.fstat(file.fileno()).st_ino) != self.file_id:  # new, or cut back
                self.file_id, self.place = file_id, 0
            file.seek(self.place)
            for line in file:
                if line.endswith(b"\n"):
                    self.place += len(line)
                    record = StepRecord(**json.loads(line))
                    if record.step > self.step:
                        self.step = record.step
                        yield record


def threads_of(cores: int, workers: int) -> int:
    """Threads of each of so many workers on one machine. One core is left for Ray, the driver and the system: the
    threads of an operation wait for one another, so one of them that has to share its core holds up all."""
    return max((cores - 1) // workers, 1)


def _told(run: Run, corpus: Corpus, progress: Progress) -> Told:
    """What the model card says of this run."""
    split = {name: value for name, value in asdict(corpus.split).items() if value is not None}
    summary = corpus.summary
    return Told(
        data=[
            f"{summary['events']:,} events of {summary['users']:,} users, {summary['items']:,} items",
            f"split: {', '.join(f'{name} {value}' for name, value in split.items())}",
            f"learned until: {run.until}",
        ],
        training=[
            f"{progress.step:,} steps, {progress.tokens:,} tokens, {progress.seconds:.0f} s",
            *([f"taught by {teacher_of(run.origin).origin}"] if isinstance(run.origin, Distillation) else []),
            f"seed {run.recipe.seed}; the whole recipe stands in run.json of the run",
            f"finished {time.strftime('%Y-%m-%d', time.gmtime())}",
        ],
    )
