"""A run directory: what was asked for, and where what comes of it lies.

run/run.json        what was asked: recipe, corpus, split; of a named recipe also what it changes, and how
run/attempts.jsonl  one line each time that training began: when, on what, from which step
run/training.jsonl  one line a step, of the run as it went on: what a crash threw away is not in it
run/tensorboard/    the same for TensorBoard
run/checkpoints/    private to the run; a second call continues from them
run/model/          the model directory
run/training.html   how training went, written at its end
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenization.corpus.corpus import Corpus
from training.distill import Distillation, check_distillation
from training.errors import RunError
from training.finetune import FineTuning, check_fine_tuning
from training.recipes import Name, Recipe, check, named
from training.runs import differences
from training.training_set import Until
from training.update import Update

Origin = Update | FineTuning | Distillation
"""What a run goes on from, or learns from beside the log."""

FORMAT = 1  # of run.json
BEGUN = ("training.jsonl", "checkpoints", "model")
"""What a run has once anything was learned in it; until then it may become another run."""


@dataclass(frozen=True)
class Run:
    """A run directory and what it was asked for. origin: what it goes on from; None: it begins anew, from the log."""

    folder: Path
    corpus: Path
    recipe: Recipe
    until: Until
    origin: Origin | None = None

    @property
    def model(self) -> Path:
        """The model directory."""
        return self.folder / "model"

    @property
    def log(self) -> Path:
        """training.jsonl."""
        return self.folder / "training.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether the model is written."""
        return (self.model / "space.json").exists()

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Read run.json. Raises RunError where the folder is no run."""
        try:
            told = json.loads((Path(folder) / "run.json").read_text())
            recipe = Recipe.from_json(json.dumps(told["recipe"]))
            return cls(Path(folder), Path(told["corpus"]), recipe, Until(told["until"]), _origin(told))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder} is no training run (run.json: {error}); make one with `userfm train`") from error


def start(
    corpus: Corpus,
    folder: Path,
    recipe: Recipe,
    until: Until = Until.VALIDATION,
    name: Name | None = None,
    origin: Origin | None = None,
) -> Run:
    """Make a run directory, or find the same run there again, which may go on under another `parallelism`.

    name: of the recipe that this one comes from, to note what it changes of that. origin: what it goes on from.
    Raises RunError where in the folder a run of another corpus, recipe or split has begun, and whatever `check` raises
    where the recipe makes no run.
    """
    check(recipe)
    _check_origin(origin, recipe)
    asked = {
        "format": FORMAT,
        "corpus": str(corpus.folder.resolve()),
        "tokenizer": corpus.tokenizer.fingerprint,
        "split": asdict(corpus.split),
        "until": until,
        "recipe": json.loads(recipe.to_json()),
        **{name: asdict(origin) if isinstance(origin, kind) else None for name, kind in _ORIGINS.items()},
    }
    path = folder / "run.json"
    if path.exists():
        found = json.loads(path.read_text())
        other = next((key for key in asked if _to_compare(found, key) != _to_compare(asked, key)), None)
        if other is not None and any((folder / name).exists() for name in BEGUN):
            raise RunError(f"{folder} holds a run with another {other}: choose another --out, or --restart")
    folder.mkdir(parents=True, exist_ok=True)
    if name is not None:
        base = json.loads(named(name, corpus).to_json())
        asked |= {"name": name, "changes": differences(base, json.loads(recipe.to_json()))}
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(asked, indent=2))
    fresh.rename(path)
    return Run(folder, corpus.folder, recipe, until, origin)


_ORIGINS: dict[str, type[Origin]] = {"update": Update, "finetune": FineTuning, "distill": Distillation}
"""What each is called in run.json."""


def _origin(told: dict[str, Any]) -> Origin | None:
    for name, kind in _ORIGINS.items():
        if told.get(name):
            return kind.read(told[name])
    return None


def _check_origin(origin: Origin | None, recipe: Recipe) -> None:
    match origin:
        case Update() if recipe.sampling.shards > 1:
            raise RunError("an update learns rows of all users: set `shards=1`")
        case FineTuning():
            check_fine_tuning(origin, recipe)
        case Distillation():
            check_distillation(origin, recipe)


def _to_compare(told: dict[str, Any], key: str) -> Any:
    """How a run is spread over ranks is not what it is."""
    value = json.loads(json.dumps(told.get(key)))
    return {**value, "parallelism": None} if key == "recipe" and isinstance(value, dict) else value
