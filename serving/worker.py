"""Computing beside the event loop, bounded: what does not fit is refused at once instead of waiting forever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from serving.errors import Overloaded

T = TypeVar("T")


class Worker:
    """One thread that does one task after another.

    One, because torch and BLAS already spread a task over the cores. At most `waiting` tasks are held, the
    running one included.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._free = threading.BoundedSemaphore(waiting)
        self._waiting = waiting

    async def run(self, task: Callable[[], T]) -> T:
        """The result of `task`. A caller that goes away takes its task along unless it has started.

        Raises Overloaded when the queue is full.
        """
        if not self._free.acquire(blocking=False):
            raise Overloaded(f"{self._waiting} requests are waiting already; try again in a moment")
        future = self._pool.submit(task)
        future.add_done_callback(self._release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread after the task it is at; those still waiting are cancelled."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _release(self, _: Future[T]) -> None:
        self._free.release()
