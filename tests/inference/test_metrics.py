from prometheus_client.parser import text_string_to_metric_families

from inference.cache import CacheCounts
from inference.metrics import Metrics
from tests.inference.test_spool import event


def parsed(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(metrics, **gauges):
    return parsed(metrics.render(gauges))


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
    for total_us in (3, 1000, 10**12):
        metrics.observe(event(1, total_us=total_us))

    found = samples(metrics)

    name = "modelyard_request_duration_seconds"
    assert only(found, f"{name}_bucket", le=2e-06) == [0]
    assert only(found, f"{name}_bucket", le=4e-06) == [1]
    assert only(found, f"{name}_bucket", le=0.001024) == [2]
    assert only(found, f"{name}_bucket", le="+Inf") == [3]
    assert only(found, f"{name}_count") == [3]


def test_sizes_of_calls_have_buckets_too():
    metrics = Metrics()
    for rows in (0, 1, 100):
        metrics.observe(event(rows))

    found = samples(metrics)

    assert only(found, "modelyard_request_rows_bucket", le=0) == [1]
    assert only(found, "modelyard_request_rows_bucket", le=1) == [2]
    assert only(found, "modelyard_request_rows_bucket", le=127) == [3]


def test_names_of_models_are_escaped():
    metrics = Metrics()
    metrics.observe(event(1, model='a"b\\c\nd'))

    assert only(samples(metrics), "modelyard_requests_total", model='a"b\\c\nd') == [1]


def test_gauges_are_told():
    assert only(samples(Metrics(), ready=1.0), "modelyard_ready") == [1]


def test_the_caches_of_several_processes_are_counted_together():
    one, other = Metrics(), Metrics()
    one.cache = CacheCounts(hits=3, misses=2, evictions=1, entries=4, bytes=500)
    other.cache = CacheCounts(hits=1, bytes=100)

    one.add(other.state())

    text = one.render()
    assert "\nmodelyard_cache_hits_total 4\n" in text
    assert "\nmodelyard_cache_misses_total 2\n" in text
    assert "\nmodelyard_cache_evictions_total 1\n" in text
    assert "\nmodelyard_cache_entries 4\n" in text
    assert "\nmodelyard_cache_bytes 600\n" in text


def test_gauges_of_one_family_are_typed_once():
    gauges = {'engine_up{engine="a"}': 1.0, "ready": 1.0, 'engine_up{engine="b"}': 0.0}

    lines = Metrics().render(gauges).splitlines()

    assert lines[-5:] == [
        "# TYPE modelyard_engine_up gauge",
        'modelyard_engine_up{engine="a"} 1',
        'modelyard_engine_up{engine="b"} 0',
        "# TYPE modelyard_ready gauge",
        "modelyard_ready 1",
    ]
