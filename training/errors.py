"""What a user of training and evaluation can mend. Every message is one sentence that names the thing and the
mend."""

from __future__ import annotations

from tokenization.errors import UserfmError


class TrainingError(UserfmError):
    """Base of everything that goes wrong between a corpus and a judged run."""


class RunError(TrainingError):
    """A folder is no run, or not one that can be resumed, judged or published as asked."""


class EvaluationError(TrainingError):
    """A figure can't be computed as asked: another split, nobody to judge, a scorer that breaks its
    promise."""


class Stopped(Exception):
    """A run was asked to stop, and kept all that it had done: no error, the same call goes on from there."""
