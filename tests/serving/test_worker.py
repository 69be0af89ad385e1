from __future__ import annotations

import asyncio
import threading

import pytest

from serving.errors import Overloaded
from serving.worker import Worker


def test_tasks_run_one_after_another_off_the_loop() -> None:
    async def run() -> list[tuple[int, str]]:
        worker = Worker("test", waiting=8)
        names = await asyncio.gather(*(worker.run(lambda i=i: (i, threading.current_thread().name)) for i in range(8)))
        worker.close()
        return names

    results = asyncio.run(run())
    assert [number for number, _ in results] == list(range(8))
    assert len({name for _, name in results}) == 1
    assert results[0][1].startswith("test")


def test_more_than_can_wait_is_refused_at_once_and_later_accepted_again() -> None:
    async def run() -> None:
        worker, gate = Worker("test", waiting=2), threading.Event()
        held = [asyncio.ensure_future(worker.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests are waiting already"):
            await worker.run(gate.wait)
        gate.set()
        assert await asyncio.gather(*held) == [True, True]
        assert await worker.run(lambda: 1) == 1
        worker.close()

    asyncio.run(run())


def test_a_caller_that_goes_away_takes_its_waiting_task_along() -> None:
    async def run() -> list[str]:
        done: list[str] = []
        worker, gate = Worker("test", waiting=2), threading.Event()
        running = asyncio.ensure_future(worker.run(gate.wait))
        waiting = asyncio.ensure_future(worker.run(lambda: done.append("too late")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        gate.set()
        await running
        await worker.run(lambda: done.append("next"))
        worker.close()
        return done

    assert asyncio.run(run()) == ["next"]


def test_an_error_of_the_task_reaches_its_caller() -> None:
    async def run() -> None:
        worker = Worker("test", waiting=1)
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        worker.close()

    asyncio.run(run())
