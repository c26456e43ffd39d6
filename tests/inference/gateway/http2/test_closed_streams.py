"""Frames that a client may still send for streams that we have ended."""

from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.http2.closed_streams import Leftovers
from inference.gateway.http2.limits import MAX_STREAMS

WINDOW = 100


def test_data_passes_as_far_as_the_window_goes():
    leftovers = Leftovers()
    leftovers.add(1, WINDOW)

    assert leftovers.take(1, WINDOW - 1, ended=False)
    assert not leftovers.take(1, 2, ended=False)
    assert leftovers.take(1, 1, ended=False)
    assert not leftovers.take(1, 1, ended=True)


def test_data_that_is_empty_passes_as_an_end_only():
    leftovers = Leftovers()
    leftovers.add(1, WINDOW)

    assert not leftovers.take(1, 0, ended=False)
    assert leftovers.take(1, 0, ended=True)
    assert not leftovers.take(1, 0, ended=True)


def test_nothing_passes_behind_the_end():
    leftovers = Leftovers()
    leftovers.add(1, WINDOW)

    assert leftovers.end(1)
    assert not leftovers.end(1)
    assert not leftovers.take(1, 1, ended=False)


STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "learn", "send", "end"]), st.integers(0, 2**32)),
    min_size=1,
    max_size=60,
)


@given(STEPS, st.integers(1, MAX_STREAMS))
def test_whoever_keeps_to_the_rules_makes_no_noise(steps, at_once):
    leftovers = Leftovers()
    # What the client may still send on each stream. We have ended them all, and it
    # reads this in their order.
    windows, last = {}, -1

    for step, number in steps:
        if step == "open":
            while len(windows) < at_once:
                last += 2
                windows[last] = WINDOW
                leftovers.add(last, WINDOW)
        elif step == "learn":
            for stream_id in list(windows)[: number % (len(windows) + 1)]:
                del windows[stream_id]
        else:
            open_ones = [each for each, window in windows.items() if window]
            if not open_ones:
                continue
            stream_id = open_ones[number % len(open_ones)]
            size = min(windows[stream_id], 1 + number % WINDOW)
            ended = step == "end"
            assert leftovers.take(stream_id, size, ended=ended)
            windows[stream_id] = 0 if ended else windows[stream_id] - size
