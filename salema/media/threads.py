"""Work ahead and behind: one thread each, a bounded number of items, errors in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

END = object()


def ahead(items: Iterable, depth: int = 2) -> Iterator:
    """The same items, made in a thread up to `depth` ahead of their use.

    An error in the thread is raised here, after the items before it. To close it stops the thread.
    """
    iterator, thread = iter(items), ThreadPoolExecutor(1)
    try:
        waiting = deque(thread.submit(next, iterator, END) for _ in range(depth + 1))
        while (item := waiting.popleft().result()) is not END:
            waiting.append(thread.submit(next, iterator, END))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


@contextmanager
def behind(function: Callable[..., Any], depth: int = 4) -> Iterator[Callable[..., None]]:
    """Gives a function that calls `function` in a thread, in order, at most `depth` calls behind.

    An error in the thread ends the work: it is raised by one of the next calls or at the end.
    """
    waiting: deque[Future] = deque()

    def call(*arguments: Any) -> None:
        if len(waiting) == depth:
            waiting.popleft().result()
        waiting.append(thread.submit(function, *arguments))

    with ThreadPoolExecutor(1) as thread:
        try:
            yield call
            while waiting:
                waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)
