"""A version that would break callers gets no calls, unless a person says why."""

import pytest
from django.contrib.auth.models import Permission

from registry import routes, schema_gate
from registry.models import Route
from registry.past import route_history
from registry.routes import RouteError
from registry.schema_gate import Override
from registry.signals import Callers, callers_wanted
from tests.factories import UserFactory
from tests.factories_registry import (
    ModelVersionFactory,
    RouteFactory,
    breaking_version,
)

pytestmark = pytest.mark.django_db

DIFFERENCES = (
    "Column height: is gone; it was float.",
    "Input input: the shape [-1, 2] becomes [-1, 1].",
    "Label large: is gone; the labels are small, medium.",
)
OVERRIDE = Override("Agreed with all customers. " + "Because of the law. " * 20)
WAYS = {
    "default": routes.make_default,
    "canary": lambda version, **more: routes.start_canary(
        version, weight_percent=10, **more
    ),
}


@pytest.fixture
def route():
    return RouteFactory()


@pytest.fixture
def version(route):
    return breaking_version(route)


@pytest.fixture
def administrator():
    person = UserFactory.create()
    permission = Permission.objects.get(codename="override_schema")
    person.user_permissions.add(permission)
    return person


def names(route):
    route.refresh_from_db()
    return route.default_version, route.canary_version


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("override", [None, Override("  "), OVERRIDE])
def test_a_breaking_version_is_refused_with_every_difference(
    way, override, route, version
):
    before = names(route)

    with pytest.raises(RouteError) as refused:
        WAYS[way](version, by=UserFactory.create(), override=override)

    for difference in DIFFERENCES:
        assert difference in str(refused.value)
    assert names(route) == before
    assert not route.history.filter(history_type="~").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_person_with_the_permission_overrides_with_a_reason(
    way, route, version, administrator
):
    WAYS[way](version, by=administrator, override=OVERRIDE)

    record = Route.history.latest()
    assert version in names(route)
    assert record.history_user == administrator
    # All of it, not its first hundred characters.
    assert record.history_change_reason.endswith(OVERRIDE.reason.strip())


@pytest.mark.parametrize("override", [None, Override("")])
def test_the_permission_without_a_reason_is_not_enough(
    override, version, administrator
):
    with pytest.raises(RouteError, match="Say why"):
        routes.make_default(version, by=administrator, override=override)


def test_the_machine_itself_overrides_only_what_a_person_has_overridden(route, version):
    with pytest.raises(RouteError, match="would break callers"):
        routes.make_default(version, by=None, override=OVERRIDE)

    allowed = frozenset(DIFFERENCES)
    routes.make_default(version, by=None, override=Override("Agreed.", allowed))

    assert names(route)[0] == version


def test_an_override_that_was_given_earlier_holds_for_no_other_differences(
    route, version, administrator
):
    earlier = Override("Agreed.", frozenset(DIFFERENCES[:2]))

    for person in (None, administrator):
        with pytest.raises(RouteError, match="holds for other differences"):
            routes.make_default(version, by=person, override=earlier)

    assert names(route)[0] != version


def test_a_breaking_canary_needs_the_override_again_to_be_promoted(
    route, version, administrator
):
    route = routes.start_canary(
        version, weight_percent=10, by=administrator, override=OVERRIDE
    )

    with pytest.raises(RouteError, match="Column height: is gone"):
        routes.promote_canary(route, by=administrator)
    routes.promote_canary(route, by=administrator, override=OVERRIDE)

    assert names(route) == (version, None)


def test_a_revert_to_a_newer_version_that_breaks_callers_needs_the_permission(
    version, route, administrator
):
    older = route.default_version
    person = UserFactory.create()
    routes.make_default(version, by=administrator, override=OVERRIDE)
    route.refresh_from_db()
    broke = route.history.first().pk
    before = route.history.filter(default_version=older).first().pk

    # The way back is open to everybody.
    route_history.revert(route, to=before, by=person)
    route.refresh_from_db()
    assert route.default_version == older
    with pytest.raises(RouteError, match="You may not override this"):
        route_history.revert(route, to=broke, by=person)
    route_history.revert(route, to=broke, by=administrator)

    route.refresh_from_db()
    assert route.default_version == version


def test_an_override_that_is_not_needed_is_not_noted(route):
    version = ModelVersionFactory(registered_model=route.registered_model)

    routes.make_default(version, by=None, override=OVERRIDE)

    reason = Route.history.latest().history_change_reason
    assert reason == f"v{version.version} became the default"


def test_the_first_default_of_a_model_breaks_nobody(version):
    Route.objects.all().delete()

    routes.make_default(version, by=None)

    assert Route.objects.get().default_version == version


def test_metadata_with_errors_of_the_default_is_not_read(route, version):
    default = route.default_version
    default.metadata, default.metadata_errors = ["of", "any shape"], ["A list."]
    default.save()

    assert schema_gate.contract_of(default).columns == ()
    with pytest.raises(RouteError, match=r"the shape \[-1, 2\] becomes"):
        routes.make_default(version, by=None)


def test_the_refusal_names_who_called_the_model(route, version):
    def who(model, **_):
        assert model == route.registered_model.name
        return Callers(("Acme (key prod)", "Beta (key main)"), 12)

    others = callers_wanted.receivers
    callers_wanted.receivers = []
    callers_wanted.sender_receivers_cache.clear()
    callers_wanted.connect(who)
    try:
        with pytest.raises(RouteError) as refused:
            routes.make_default(version, by=UserFactory.create())
    finally:
        callers_wanted.receivers = others
        callers_wanted.sender_receivers_cache.clear()

    assert (
        "In the last 30 days 12 keys called the model: Acme (key prod), Beta (key "
        "main) and 10 more." in str(refused.value)
    )


def test_without_calls_the_refusal_says_so(version):
    with pytest.raises(RouteError, match="Nobody called the model"):
        routes.make_default(version, by=UserFactory.create())


def optional_note(route, *, required=False):
    """Return a version of the route's model, with an optional column more."""
    column = {"name": "note", "type": "string", "required": required}
    inputs = [{"name": "age", "type": "double"}, column]
    return ModelVersionFactory.create(
        registered_model=route.registered_model,
        signature={"inputs": inputs},
        metadata={"task": "custom"},
    )


def asked(version, changes):
    """Return what is asked of those who know the callers."""
    found = []

    def answer(using, **_):
        found.append(using)
        return Callers()

    others = callers_wanted.receivers
    callers_wanted.receivers = []
    callers_wanted.sender_receivers_cache.clear()
    callers_wanted.connect(answer)
    try:
        schema_gate.callers_of(version, changes)
    finally:
        callers_wanted.receivers = others
        callers_wanted.sender_receivers_cache.clear()
    return found[0]


def test_a_change_of_an_optional_input_asks_only_for_those_who_used_it(route):
    first = optional_note(route)
    strict = optional_note(route, required=True)
    gone = ModelVersionFactory(
        registered_model=route.registered_model,
        signature={"inputs": [{"name": "age", "type": "double"}]},
        metadata={"task": "custom"},
    )

    using = asked(gone, schema_gate.changes_between(first, gone))

    # Callers of the strict version all sent it.
    assert str(strict.version) not in using
    assert using[str(first.version)] == 1
    assert using[str(gone.version)] == 0


def test_a_change_that_may_concern_all_asks_for_all_callers(route):
    first = optional_note(route)
    strict = optional_note(route, required=True)

    assert asked(strict, schema_gate.changes_between(first, strict)) is None
