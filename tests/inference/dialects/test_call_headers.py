from inference.dialects import call_headers
from inference.gateway.grpc.call_head import read_head
from inference.gateway.grpc.methods import Method
from inference.prediction.callers import require_network
from tests.inference.gateway.http2.peer import INFER
from tests.inference.gateway.http2.peer import head as grpc_head
from tests.inference.prediction.test_plan_keys import driver

# A proxy, such as HAProxy, may add a second field instead of extending the first.
HOPS = [
    (b"x-forwarded-for", b"192.0.2.1, 10.1.2.3"),
    (b"x-forwarded-for", b"172.16.0.9"),
]


def caller(head):
    """Check the caller's address for a key that is limited to 10.0.0.0/8."""
    plan = driver(networks=("10.0.0.0/8",), trusted=("172.16.0.0/12",)).plan
    [entry] = [
        plan.tables.find_key(key.digest) for key in plan.tables.as_snapshot().keys
    ]
    require_network(entry, "172.16.0.1", head.forwarded_for, plan.trusted_proxies)
    return True


def test_fields_of_a_list_are_one_list():
    """RFC 9110, section 5.3: values of repeated fields are one list, in their order."""
    assert caller(call_headers.read(HOPS))

    head = call_headers.read(
        [
            (b"accept", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"content-encoding", b"gzip"),
            (b"content-encoding", b"identity"),
            (b"cache-control", b"max-age=60"),
            (b"accept", b"text/html"),
        ]
    )

    assert head.accepted.problem_json
    assert not head.may_be_cached
    assert not head.may_be_stored
    assert head.is_encoded


def test_grpc_reads_them_alike():
    sent = [(name.encode(), value.encode()) for name, value in grpc_head(INFER)]

    read = read_head(sent + HOPS, {INFER.encode(): Method(lambda call, body: None)})

    assert caller(read.facts)


def test_a_content_type_is_read_no_further_than_it_means_something():
    long = b"application/json; padding=" + b"x" * 60_000

    assert call_headers.read([(b"content-type", long)]).other_content_type is None
    assert call_headers.read([(b"content-type", b"text/" + long)]).other_content_type
