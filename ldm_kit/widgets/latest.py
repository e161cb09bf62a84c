"""Only the newest request is worked on: what a slider asks for is awaited, superseded, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

Steps = Callable[[], Generator[None, None, None]]


class Latest:
    """Run one piece of work at a time, the newest; wait a moment first, in case a newer one comes.

    Parameters
    ----------
    delay : float
        Seconds of silence before work begins. Each new request begins the wait anew.
    pause : float
        Seconds between two steps, in which the kernel reads its messages: a newer request, a Cancel.

    Notes
    -----
    Work is a generator: it may be stopped wherever it yields, and is closed there, so that a `finally` tidies
    up. All happens on the event loop of the thread that asks (a kernel's own), so that nothing needs a lock,
    and a notebook's cell never meets half of a step. Without a running loop, as in a plain script, there is
    nobody to come back to later: work is done at once.

    Examples
    --------
    >>> done = []
    >>> def steps():
    ...     yield
    ...     done.append("worked")
    >>> Latest().ask(steps)
    >>> done
    ['worked']
    """

    def __init__(self, delay: float = 0.15, pause: float = 0.002) -> None:
        self.delay, self.pause = delay, pause
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is waiting or being worked on."""
        return self._timer is not None or (self._task is not None and not self._task.done())

    def ask(self, steps: Steps) -> None:
        """Work on this, and on nothing that was asked for before."""
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for _ in steps():
                pass
            return
        self._timer = loop.call_later(self.delay, self._begin, loop, steps)

    def cancel(self) -> None:
        """Forget what is waiting, and stop what is being worked on at its next step."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def idle(self) -> None:
        """Wait until nothing is left to do."""
        while self.busy:
            await asyncio.sleep(0.005)

    def _begin(self, loop: asyncio.AbstractEventLoop, steps: Steps) -> None:
        self._timer = None
        self._task = loop.create_task(self._work(steps))

    async def _work(self, steps: Steps) -> None:
        running = steps()
        try:
            for _ in running:
                await asyncio.sleep(self.pause)
        finally:
            running.close()
