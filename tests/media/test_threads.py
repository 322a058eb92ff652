"""Threads that work ahead and behind: order, bounds, errors, early ends."""

import threading
import time

import pytest

from salema.media.threads import ahead, behind

PATIENCE = 10.0  # seconds after which a thread that should have moved has not


def until(condition):
    """Wait for something that another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


def counted(count, made, error=None):
    """Numbers from 0 that are noted when they are made; then perhaps an error."""
    for number in range(count):
        made.append(number)
        yield number
    if error is not None:
        raise error


# ---------------------------------------------------------------------- ahead


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_items_come_in_order_and_each_once(depth):
    assert list(ahead(range(30), depth)) == list(range(30))


def test_nothing_and_none_pass_like_any_item():
    assert list(ahead([])) == []
    assert list(ahead([None, False, ()])) == [None, False, ()]


def test_items_are_made_in_another_thread():
    names = list(ahead(threading.current_thread().name for _ in range(3)))
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("depth", [1, 3])
def test_it_looks_ahead_as_far_as_it_may_and_no_further(depth):
    made = []
    numbers = ahead(counted(100, made), depth)
    assert next(numbers) == 0
    most = 1 + depth + 1  # in use, waiting, and in the making
    until(lambda: len(made) == most)
    time.sleep(0.05)
    assert len(made) == most
    assert next(numbers) == 1
    until(lambda: len(made) == most + 1)
    numbers.close()


def test_an_error_crosses_after_the_items_made_before_it():
    done = []
    with pytest.raises(OSError, match="cable out") as raised:
        for number in ahead(counted(4, [], OSError("cable out"))):
            done.append(number)
    assert done == [0, 1, 2, 3]
    assert any(entry.name == "counted" for entry in raised.traceback)  # it says where


def test_an_interruption_crosses_too():
    with pytest.raises(KeyboardInterrupt):
        list(ahead(counted(1, [], KeyboardInterrupt())))


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_early_stops_the_thread_and_makes_nothing_more(taken):
    made, before = [], threading.active_count()
    numbers = ahead(counted(10_000, made))
    for _ in range(taken):
        next(numbers)
    numbers.close()
    assert threading.active_count() == before
    there = len(made)
    time.sleep(0.05)
    assert len(made) == there <= taken + 3


def test_the_thread_ends_with_its_items_and_with_an_error():
    before = threading.active_count()
    list(ahead(range(3)))
    with pytest.raises(ValueError, match="bad"):
        list(ahead(counted(2, [], ValueError("bad"))))
    assert threading.active_count() == before


def test_an_error_in_the_consumer_stops_the_thread():
    before = threading.active_count()
    numbers = ahead(counted(10_000, []))
    with pytest.raises(ZeroDivisionError):
        for number in numbers:
            1 / (number - 2)
    numbers.close()
    assert threading.active_count() == before


# ---------------------------------------------------------------------- behind


def test_calls_run_in_order_in_one_other_thread_and_all_by_the_end():
    seen, threads = [], set()

    def note(first, second):
        threads.add(threading.get_ident())
        seen.append((first, second))

    with behind(note, depth=2) as hand:
        for number in range(20):
            hand(number, -number)
    assert seen == [(number, -number) for number in range(20)]
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_a_call_waits_while_the_thread_is_too_far_behind():
    gate, seen = threading.Event(), []

    def slow(number):
        gate.wait(PATIENCE)
        seen.append(number)

    handed = []

    def hand_over():
        with behind(slow, depth=3) as hand:
            for number in range(10):
                hand(number)
                handed.append(number)

    other = threading.Thread(target=hand_over)
    other.start()
    until(lambda: len(handed) == 3)  # one at work, two waiting
    time.sleep(0.05)
    assert len(handed) == 3 and seen == []
    gate.set()
    other.join(PATIENCE)
    assert seen == list(range(10))


def failing_at(number, seen):
    def call(value):
        if value == number:
            raise OSError("disk full")
        seen.append(value)

    return call


def test_an_error_is_raised_within_depth_calls_and_ends_the_work():
    seen, handed, before = [], [], threading.active_count()
    with pytest.raises(OSError, match="disk full"), behind(failing_at(2, seen), 4) as hand:
        for number in range(1000):
            hand(number)
            handed.append(number)
    assert seen[:2] == [0, 1] and 2 not in seen
    assert len(handed) <= 2 + 4 and len(seen) <= 1 + 2 + 4
    assert threading.active_count() == before


def test_an_error_of_the_last_call_is_raised_at_the_end():
    seen = []
    with pytest.raises(OSError, match="disk full"), behind(failing_at(3, seen)) as hand:
        for number in range(4):
            hand(number)
    assert seen == [0, 1, 2]


def test_an_error_of_the_block_goes_before_the_threads_own():
    before = threading.active_count()
    with pytest.raises(KeyError), behind(failing_at(0, [])) as hand:
        hand(0)
        raise KeyError("mine")
    assert threading.active_count() == before


def test_a_block_that_fails_drops_the_calls_that_wait():
    gate, seen = threading.Event(), []

    def slow(number):
        gate.wait(PATIENCE)
        seen.append(number)

    with pytest.raises(KeyError), behind(slow, 3) as hand:
        for number in range(3):
            hand(number)
        threading.Timer(0.05, gate.set).start()
        raise KeyError
    assert seen in ([0], [0, 1])
