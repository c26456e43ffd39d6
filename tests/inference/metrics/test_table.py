import pytest

from inference.metrics.table import METRICS


@pytest.mark.parametrize("measure", METRICS.values(), ids=lambda it: it.name)
def test_a_series_takes_at_most_twenty_lines(measure):
    # With `+Inf`, the sum and the count.
    assert not measure.buckets or len(measure.buckets) + 3 <= 20
    assert list(measure.buckets) == sorted(set(measure.buckets))


@pytest.mark.parametrize("measure", METRICS.values(), ids=lambda it: it.name)
def test_a_metric_is_described_in_a_sentence(measure):
    assert measure.about[0].isupper() or measure.about[0].isdigit()
    assert measure.about.endswith(".")
    assert (measure.kind == "histogram") == bool(measure.buckets)
