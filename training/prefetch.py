"""Lessons made ahead of the step that learns them, off the training thread.

NumPy and torch let go of the interpreter while they compute, so one thread makes the next lessons while the step runs;
they come in the order and with the values that they would have without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Made = TypeVar("Made")
AHEAD = 2  # lessons: one for the next step, one for whatever takes longer than a step to make


class Prefetched(Generic[Made]):
    """An iterator whose next values are being made. What making them raises is raised by the `next` that asks for them.

    Close it (or leave its `with`) to stop its thread; values that nobody asked for are dropped.
    """

    def __init__(self, values: Iterator[Made], ahead: int = AHEAD) -> None:
        self._values = values
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lessons")
        self._waiting: deque[Future[Made]] = deque(self._thread.submit(next, values) for _ in range(ahead))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Made:
        if not self._waiting:
            raise StopIteration
        try:
            made = self._waiting.popleft().result()
        except StopIteration:
            self.close()
            raise
        self._waiting.append(self._thread.submit(next, self._values))
        return made

    def close(self) -> None:
        """Stop; waits for the value that is being made."""
        self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
