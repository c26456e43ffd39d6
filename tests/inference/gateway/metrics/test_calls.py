import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.gateway.metrics.calls import Metrics, of_gateways
from inference.gateway.metrics.families import write
from inference.gateway.metrics.gauges import of_gauges
from inference.installation.ledger_report import Gauge
from inference.prediction.cache import CacheCounts
from tests.accounts.metering.test_spool import event


def parsed(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def text(families):
    return b"".join(write(families)).decode()


def samples(metrics):
    return parsed(text(of_gateways({"gateway": metrics.state()})))


def only(found, name, **labels):
    wanted = {(label, str(value)) for label, value in labels.items()}
    return [v for (n, given), v in found.items() if n == name and wanted <= set(given)]


def test_calls_are_counted_by_what_answered_them():
    metrics = Metrics()
    for version, status in (("1", 200), ("1", 200), ("2", 200), ("1", 503)):
        metrics.observe(event(3, version=version, status=status))

    found = samples(metrics)

    assert only(found, "modelyard_requests_total", version=1, status=200) == [2]
    assert only(found, "modelyard_requests_total", version=1, status=503) == [1]
    assert only(found, "modelyard_rows_total", version=2) == [3]


def test_times_fall_into_cumulative_buckets():
    metrics = Metrics()
    for total_us in (3, 1000, 1001, 10**12):
        metrics.observe(event(1, total_us=total_us))

    found = samples(metrics)

    name = "modelyard_request_duration_seconds"
    assert only(found, f"{name}_bucket", le=0.0005) == [1]
    assert only(found, f"{name}_bucket", le=0.001) == [2]
    assert only(found, f"{name}_bucket", le=0.0025) == [3]
    assert only(found, f"{name}_bucket", le=60) == [3]
    assert only(found, f"{name}_bucket", le="+Inf") == [4]
    assert only(found, f"{name}_count") == [4]


def test_sizes_of_calls_have_buckets_too():
    metrics = Metrics()
    for rows in (0, 1, 100):
        metrics.observe(event(rows))

    found = samples(metrics)

    assert only(found, "modelyard_request_rows_bucket", le=1) == [2]
    assert only(found, "modelyard_request_rows_bucket", le=64) == [2]
    assert only(found, "modelyard_request_rows_bucket", le=128) == [3]


def test_errors_are_counted_by_their_code():
    metrics = Metrics()
    for code in ("", "RATE_LIMITED", "RATE_LIMITED", "DEADLINE_EXCEEDED"):
        metrics.observe(event(1, status=429 if code else 200, code=code))

    found = samples(metrics)

    assert only(found, "modelyard_errors_total", code="RATE_LIMITED") == [2]
    assert only(found, "modelyard_errors_total", code="DEADLINE_EXCEEDED") == [1]
    assert len(only(found, "modelyard_errors_total")) == 2


def test_a_gateway_of_another_version_with_other_buckets_is_left_out_of_histograms():
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.observe(event(1))
    old = other.state()
    old.series[0][1].times.append(0)

    found = parsed(text(of_gateways({"a": one.state(), "old": old})))

    assert only(found, "modelyard_requests_total", gateway="old") == [1]
    name = "modelyard_request_duration_seconds_count"
    assert only(found, name, gateway="a") == [1]
    assert only(found, name, gateway="old") == []


def test_names_of_models_are_escaped():
    metrics = Metrics()
    metrics.observe(event(1, model='a"b\\c\nd'))

    assert only(samples(metrics), "modelyard_requests_total", model='a"b\\c\nd') == [1]


def test_each_gateway_keeps_its_own_counts():
    one, other = Metrics(), Metrics()
    one.cache = CacheCounts(hits=3, misses=2, evictions=1, entries=4, bytes=500)
    other.cache = CacheCounts(hits=1, bytes=100)
    other.lease_failures = {"status 400": 2}

    found = parsed(text(of_gateways({"a": one.state(), "b": other.state()})))

    assert only(found, "modelyard_cache_hits_total", gateway="a") == [3]
    assert only(found, "modelyard_cache_hits_total", gateway="b") == [1]
    assert only(found, "modelyard_cache_entries") == [4, 0]
    assert only(found, "modelyard_cache_bytes") == [500, 100]
    assert only(found, "modelyard_lease_failures_total", reason="status 400") == [2]


@pytest.mark.parametrize("value", [999_999, 1_234_567, 2**53 - 1, 1_790_000_000.25])
def test_no_digit_of_a_number_is_lost(value):
    metrics = Metrics()
    metrics.unauthenticated = int(value)

    counted = only(samples(metrics), "modelyard_unauthenticated_requests_total")
    told = parsed(text(of_gauges([Gauge("snapshot_age_seconds", value)])))

    assert counted == [int(value)]
    assert only(told, "modelyard_snapshot_age_seconds") == [value]


def test_a_family_is_described_once_however_long_it_is():
    metrics = Metrics()
    for number in range(50):
        metrics.observe(event(1, model=f"m{number}"))

    written = text(of_gateways({"a": metrics.state(), "b": metrics.state()}))

    types = [line for line in written.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    found = parsed(written)
    assert len(only(found, "modelyard_request_rows_count", gateway="b")) == 50
    longest = only(found, "modelyard_request_duration_seconds_bucket", le="60")
    assert len(longest) == 100


def test_gauges_of_one_family_are_typed_once():
    gauges = [
        Gauge("engine_up", 1.0, {"engine": "a"}),
        Gauge("ready", 1.0),
        Gauge("engine_up", 0.0, {"engine": "b"}),
    ]

    lines = text(of_gauges(gauges)).splitlines()

    assert [line for line in lines if not line.startswith("# HELP")] == [
        "# TYPE modelyard_engine_up gauge",
        'modelyard_engine_up{engine="a"} 1.0',
        'modelyard_engine_up{engine="b"} 0.0',
        "# TYPE modelyard_ready gauge",
        "modelyard_ready 1.0",
    ]
