import msgspec
import pytest

from accounts.admission import key_format
from accounts.admission.limits import KeyLimits, Limits, Rate
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.snapshot.contents import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    Delta,
    Snapshot,
)
from inference.snapshot.tables import MissedDelta, Tables
from registry.routing import Variant

KEY = key_format.generate("live")
SIGNATURE = Signature(layout=Layout.TABLE, columns=(Column(name="x"),))


def published(**changes):
    fields = {
        "sequence": 1,
        "published_at": 0.0,
        "models": (
            CallableModel(
                name="m",
                versions=(CallableVersion(version=1, signature=SIGNATURE),),
                variants=(Variant(version=1, role="default", weight_percent=100),),
            ),
        ),
        "keys": (
            AccessKey(
                key_id=KEY.key_id,
                digest=KEY.digest,
                customer_id=7,
                scopes=("predict",),
            ),
        ),
        "customers": (customer(5),),
    }
    return Snapshot(**(fields | changes))


def customer(rate):
    return AccessCustomer(
        customer_id=7, limits=Limits(plan="p", rates=(Rate("burst", rate, 3600),))
    )


def test_key_is_found_by_its_digest():
    tables = Tables(published())

    assert tables.find_key(KEY.digest).key.customer_id == 7
    assert tables.find_key(b"other") is None


def test_each_of_many_keys_is_found_with_its_customer():
    keys = [other_key(customer_id=number, models=("m",)) for number in range(1000)]
    customers = tuple(
        AccessCustomer(customer_id=number, limits=Limits(plan=f"{number}", rates=()))
        for number in range(0, 1000, 2)
    )
    tables = Tables(published(keys=tuple(keys), customers=customers))

    for key in keys:
        found = tables.find_key(key.digest)
        if key.customer_id % 2:
            assert found is None
        else:
            assert found.key == key
            assert found.admission.limits.plan == f"{key.customer_id}"
    for digest in (bytes(32), b"\xff" * 32, keys[0].digest[:-1] + b"?"):
        assert tables.find_key(digest) is None


def test_a_snapshot_that_changes_nothing_holds_no_model_twice():
    tables = Tables(published())
    model = tables.models["m"].model

    tables.replace(published(models=(msgspec.structs.replace(model),)))

    assert tables.as_snapshot().models[0] is tables.models["m"].model is model


def test_revoked_key_is_gone_with_the_next_snapshot():
    tables = Tables(published())
    assert tables.find_key(KEY.digest)

    tables.replace(published(keys=()))

    assert tables.find_key(KEY.digest) is None


def test_changed_key_has_its_new_scopes():
    tables = Tables(published())
    tables.find_key(KEY.digest)
    [key] = published().keys

    tables.replace(published(keys=(msgspec.structs.replace(key, scopes=("jobs",)),)))

    assert tables.find_key(KEY.digest).scopes == {"jobs"}


def test_key_of_a_customer_who_is_gone_is_unknown():
    tables = Tables(published())
    tables.find_key(KEY.digest)

    tables.replace(published(customers=()))

    assert tables.find_key(KEY.digest) is None


def test_counts_are_kept_over_snapshots_and_new_limits():
    tables = Tables(published())
    for _ in range(4):
        assert tables.find_key(KEY.digest).admission.enter(10.0) is None

    tables.replace(published(sequence=2, customers=(customer(6),)))

    admission = tables.find_key(KEY.digest).admission
    assert [admission.enter(10.0) is None for _ in range(3)] == [True, True, False]


def test_two_keys_of_a_customer_share_its_counts():
    other = key_format.generate("live")
    [key] = published().keys
    second = msgspec.structs.replace(key, key_id=other.key_id, digest=other.digest)
    tables = Tables(published(keys=(key, second)))

    assert (
        tables.find_key(KEY.digest).admission is tables.find_key(other.digest).admission
    )


def test_a_rotated_key_and_its_heir_share_their_own_counts():
    [key] = published().keys
    key = msgspec.structs.replace(key, limits=KeyLimits(rates=(Rate("r", 3, 3600),)))
    other = key_format.generate("live")
    heir = msgspec.structs.replace(
        key, key_id=other.key_id, digest=other.digest, quota_key_id=key.key_id
    )
    tables = Tables(published(keys=(heir, key)))
    old, new = tables.find_key(KEY.digest), tables.find_key(other.digest)

    entered = [entry.admission.enter(10.0) is None for entry in (old, new) * 2]

    assert entered == [True, True, True, False]
    assert len(tables.admissions.everyone()) == 2


def test_unchanged_version_keeps_its_decoder():
    tables = Tables(published())
    before = tables.models["m"].named("1").tools()
    [model] = published().models

    changed = msgspec.structs.replace(model, description="new")
    tables.replace(published(models=(changed,)))

    after = tables.models["m"].named("1").tools()
    assert (before[0] is after[0], before[1] is after[1]) == (True, True)


def test_changed_signature_or_threshold_is_compiled_anew():
    tables = Tables(published())
    before = tables.models["m"].named("1").tools()
    [model] = published().models

    changed = msgspec.structs.replace(model, low_confidence_below=0.5)
    tables.replace(published(models=(changed,)))

    assert tables.models["m"].named("1").tools() is not before


def test_model_that_is_gone_is_not_found():
    tables = Tables(published())

    tables.replace(published(models=()))

    assert tables.models == {}


def test_engines_are_known_by_name():
    assert Tables(published()).engines == {}


def test_remembered_token_is_forgotten_with_its_snapshot():
    tables = Tables(published())
    entry = tables.find_key(KEY.digest)
    tables.remember_token(b"token", entry)
    assert tables.known_token(b"token") is entry

    tables.replace(published())

    assert tables.known_token(b"token") is None


def test_tokens_that_are_remembered_are_bounded():
    tables = Tables(published())
    entry = tables.find_key(KEY.digest)

    for number in range(25_000):
        tables.remember_token(b"%d" % number, entry)

    known = [n for n in range(25_000) if tables.known_token(b"%d" % n) is not None]
    assert 0 < len(known) <= 10_000


def test_a_number_names_its_version_though_an_alias_of_another_is_called_so():
    versions = (
        CallableVersion(version=2, signature=SIGNATURE),
        CallableVersion(version=1, signature=SIGNATURE, aliases=("2", "best")),
    )
    tables = Tables(published(models=(CallableModel(name="m", versions=versions),)))

    model = tables.models["m"]

    assert model.named("2").version == "2"
    assert model.named("best").version == model.named("1").version == "1"


def parts(*, keys, base=0, sequence=1):
    """Return a delta in parts of one key each."""
    customers = published().customers
    return [
        Delta(
            sequence=sequence,
            base=base,
            part=number,
            last=number == len(keys) - 1,
            keys=(key,),
            customers=customers if number == 0 else (),
        )
        for number, key in enumerate(keys)
    ]


def other_key(**changes):
    new = key_format.generate("live")
    [key] = published().keys
    changes |= {"key_id": new.key_id, "digest": new.digest}
    return msgspec.structs.replace(key, **changes)


def test_a_whole_snapshot_holds_when_its_last_part_has_come():
    tables = Tables(published())
    new = [other_key(), other_key()]
    first, second = parts(keys=new, sequence=2)

    tables.take(first)

    assert tables.find_key(KEY.digest) is not None
    assert tables.find_key(new[0].digest) is None
    tables.take(second)
    assert tables.find_key(KEY.digest) is None
    assert all(tables.find_key(key.digest) is not None for key in new)
    assert tables.sequence == 2


def test_a_delta_that_builds_on_another_snapshot_is_refused():
    tables = Tables(published())

    with pytest.raises(MissedDelta):
        tables.take(Delta(sequence=4, base=3, gone_keys=(KEY.digest,)))

    assert tables.find_key(KEY.digest) is not None
    assert tables.sequence == 1


@pytest.mark.parametrize("base", [0, 1])
def test_a_delta_that_lacks_a_part_is_refused_with_what_follows(base):
    tables = Tables(published())
    keys = [other_key() for _ in range(4)]
    first, _, third, fourth = parts(keys=keys, base=base, sequence=2)

    tables.take(first)
    for part in (third, fourth):
        with pytest.raises(MissedDelta):
            tables.take(part)

    assert tables.sequence == 1
    tables.replace(published(sequence=3))
    assert tables.sequence == 3


def test_a_snapshot_that_follows_one_cut_short_takes_nothing_of_it():
    tables = Tables(published())
    cut_short, _ = parts(keys=[other_key(), other_key()], sequence=2)
    tables.take(cut_short)

    tables.replace(published(sequence=3))

    assert len(tables.as_snapshot().keys) == 1
