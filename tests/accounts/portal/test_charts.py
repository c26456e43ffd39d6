import datetime

import pytest

from accounts.portal import charts

DAY = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
DAYS = [DAY, DAY + datetime.timedelta(1)]


def row(requests, errors, day=DAY):
    return {"start": day, "requests": requests, "errors": errors}


def test_the_busiest_day_is_as_high_as_the_chart():
    busy, idle = charts.daily([row(8, 2)], DAYS).bars

    assert busy.answered_height == charts.HEIGHT * 6 / 8
    assert busy.refused_height == charts.HEIGHT * 2 / 8
    assert busy.refused_y == 0
    assert busy.refused_y + busy.refused_height == busy.answered_y
    assert (idle.answered_height, idle.refused_height) == (0, 0)


def test_no_usage_gives_a_flat_chart():
    chart = charts.daily([], DAYS)

    assert chart.most == 0
    assert chart.busy_days == []


@pytest.mark.parametrize("errors", [0, 1, 5_000, 9_999, 10_000])
def test_bars_stay_inside_the_chart_and_show_even_one_call(errors):
    bar = charts.daily([row(10_000, errors)], DAYS).bars[0]

    assert bar.refused_y >= 0
    assert bar.answered_y + bar.answered_height == pytest.approx(charts.HEIGHT)
    assert (bar.refused_height >= 2) == (errors > 0)
    assert bar.x + bar.width <= charts.WIDTH


def test_the_table_lists_busy_days_newest_first():
    chart = charts.daily([row(1, 0, DAYS[1]), row(2, 2)], DAYS)

    assert [bar.day for bar in chart.busy_days] == [
        DAYS[1].date(),
        DAYS[0].date(),
    ]
