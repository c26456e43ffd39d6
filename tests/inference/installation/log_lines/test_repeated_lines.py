"""Test which of many equal lines are written, and what is said of the others."""

from inference.installation.log_lines.repeated_lines import RepeatedLines


def written(lines, kind, *, times, at):
    return sum(lines.admits(kind, other="others", now=at) for _ in range(times))


def test_a_flood_of_one_kind_is_written_a_few_times_and_then_counted():
    lines = RepeatedLines(most=20, window_s=10)

    assert written(lines, "refused", times=960, at=0.0) == 20
    assert written(lines, "other", times=1, at=1.0) == 1
    assert lines.sums(now=9.9) == []
    assert lines.sums(now=10.0) == [("refused", 940)]
    assert lines.sums(now=10.1) == []
    assert written(lines, "refused", times=960, at=10.2) == 20


def test_lines_that_come_slowly_are_all_written():
    lines = RepeatedLines(most=20, window_s=10)

    assert all(written(lines, "slow", times=1, at=float(at)) for at in range(0, 600, 2))
    assert lines.rest() == []


def test_lines_stay_counted_until_they_are_summed_up():
    """The window is over, but its sum is not written yet: nothing is lost."""
    lines = RepeatedLines(most=2, window_s=10)

    assert written(lines, "a", times=3, at=0.0) == 2
    assert written(lines, "a", times=4, at=30.0) == 0
    assert lines.rest() == [("a", 5)]


def test_ever_new_kinds_count_as_one():
    lines = RepeatedLines(most=20, window_s=10)

    admitted = sum(
        lines.admits(f"line {number}", other="others", now=0.0)
        for number in range(10_000)
    )

    assert admitted == 199 + 1 + 20
    assert lines.rest() == [("others", 10_000 - admitted)]
    # Kinds that were quiet for a window make room.
    assert lines.admits("new", other="others", now=20.0)
