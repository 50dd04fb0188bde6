"""Drawing in the background: what is requested comes first, and two threads do not mix."""

import io
import threading
import time

import matplotlib.pyplot as plt
import pytest

from embvar_kit.explorers import rendering


def test_results_are_computed_in_the_background_the_one_requested_first():
    order, shown = [], []
    begun, gate = threading.Event(), threading.Event()

    def compute(key):
        begun.set()
        assert threading.current_thread() is not threading.main_thread()
        assert gate.wait(10)
        order.append(key)
        return key * 10

    prefetcher = rendering.Prefetcher(compute, lambda key, result: shown.append((key, result)))
    assert not prefetcher.request(1, [2, 3])
    assert begun.wait(10)
    assert not prefetcher.request(5, [4])  # 2 and 3 are cancelled; 1 is being computed
    gate.set()
    assert prefetcher.wait(10)
    assert order == [1, 5, 4]
    assert shown == [(5, 50)]  # 1 is no longer requested
    assert prefetcher.request(4) and shown[-1] == (4, 40) and prefetcher.computed == 3


def test_an_error_is_reported_and_the_next_results_are_computed():
    told = []

    def compute(key):
        if key == 1:
            raise ValueError("no such picture")
        return key

    prefetcher = rendering.Prefetcher(compute, lambda *_: None, told.append)
    prefetcher.request(1, [2])
    assert prefetcher.wait(10)
    assert [str(error) for error in told] == ["no such picture"]
    assert 2 in prefetcher and 1 not in prefetcher


def test_the_oldest_results_are_dropped():
    prefetcher = rendering.Prefetcher(lambda key: key, lambda *_: None, keep=3)
    for key in range(5):
        prefetcher.request(key)
        assert prefetcher.wait(10)
    assert [key in prefetcher for key in range(5)] == [False, False, True, True, True]


@pytest.mark.slow
def test_formulas_of_two_threads_do_not_mix():
    """matplotlib's own parser is shared by all threads and keeps state while it parses."""
    text = r"$\sum_t \frac{n_t}{n} \sqrt{V_W^{%d}}$"

    def draw(number):
        blitted = rendering.BlittedFigure(3, 1)
        blitted.figure.text(0.1, 0.4, text % number)
        return blitted.png()

    expected = {number: draw(number) for number in range(100, 112)}
    stop, failures = threading.Event(), []

    def cell():
        at = 0
        while not stop.is_set():
            at += 1
            figure = plt.Figure(figsize=(3, 1))
            figure.text(0.1, 0.4, rf"$\frac{{{at}}}{{\alpha_{{{at}}}}}$")
            try:
                figure.savefig(io.BytesIO())
            except Exception as error:
                failures.append(error)

    other = threading.Thread(target=cell)
    other.start()
    try:
        started = time.monotonic()
        while time.monotonic() - started < 2:
            for number, png in expected.items():
                assert draw(number) == png
    finally:
        stop.set()
        other.join()
    assert not failures


def test_a_result_that_cannot_be_shown_is_reported_and_the_next_are_computed():
    told, shown = [], []

    def show(key, result):
        if key == 1:
            raise ZeroDivisionError("no share of nothing")
        shown.append(key)

    prefetcher = rendering.Prefetcher(lambda key: key, show, told.append)
    prefetcher.request(1)
    assert prefetcher.wait(10)
    assert [str(error) for error in told] == ["no share of nothing"]
    prefetcher.request(2)
    assert prefetcher.wait(10) and shown == [2]
