"""What can go wrong with a model and be mended by whoever uses it."""

from __future__ import annotations

from tokenization.errors import UserfmError


class ModelError(UserfmError):
    """A model directory, configuration or input that the model can't take; the message names the mend."""


class UnsupportedAttention(ModelError):
    """An attention backend was asked for something that it declares it can't do."""
