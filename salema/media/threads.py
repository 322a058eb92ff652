"""Work in threads: bounded queues, and errors that reach the caller."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

END = object()


def ahead(items: Iterable, depth: int = 2) -> Iterator:
    """The same items, made in a thread up to `depth` ahead of their use.

    An error in the thread is raised here, after the items before it. To close it stops the thread.
    """
    box: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            with suppress(queue.Full):
                box.put((item, error), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            if all(map(put, items)):  # until it is stopped
                put(END)
        except BaseException as error:
            put(END, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (found := box.get())[0] is not END:
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        stopped.set()
        thread.join()


class Behind:
    """Calls a function in a thread, in order, at most `depth` calls behind.

    It is a context manager. An error in the thread is raised by the next call or at the end.
    """

    def __init__(self, function: Callable[..., Any], depth: int = 4) -> None:
        self._function = function
        self._box: queue.Queue = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (arguments := self._box.get()) is not END:
            if self._error is None:
                try:
                    self._function(*arguments)
                except BaseException as error:
                    self._error = error

    def __call__(self, *arguments: object) -> None:
        """Hand one call over; waits while the thread is `depth` calls behind."""
        if self._error is not None:
            raise self._error
        self._box.put(arguments)

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        self._box.put(END)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error
