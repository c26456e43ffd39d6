import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import F

from registry import routes
from registry.models import Route
from registry.routes import RouteError
from registry.signals import registry_changed
from tests.factories_registry import (
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    return User.objects.create(username="grace")


@pytest.fixture
def changes():
    received = []

    def receive(**kwargs):
        # Other apps must be able to write in the same transaction.
        assert transaction.get_connection().in_atomic_block
        received.append(kwargs["sender"])

    registry_changed.connect(receive)
    yield received
    registry_changed.disconnect(receive)


def weights(route):
    route.refresh_from_db()
    return route.default_weight_percent, route.canary_weight_percent


def test_the_first_default_makes_the_route(person, changes):
    version = ModelVersionFactory()

    route = routes.make_default(version, by=person)

    assert Route.objects.get() == route
    assert weights(route) == (100, 0)
    assert route.updated_by == person
    assert Route in changes


def test_a_new_default_keeps_another_canary(person):
    route = RouteFactory(with_canary=True)
    version = ModelVersionFactory(registered_model=route.registered_model)

    routes.make_default(version, by=person)

    assert weights(route) == (90, 10)
    assert route.default_version == version


def test_a_canary_that_becomes_the_default_stops_being_the_canary(person):
    route = RouteFactory(with_canary=True)
    canary = route.canary_version

    routes.make_default(canary, by=person)

    assert weights(route) == (100, 0)
    assert (route.default_version, route.canary_version) == (canary, None)


def test_promoting_makes_the_canary_the_default(person):
    route = RouteFactory(with_canary=True)
    canary = route.canary_version

    routes.promote_canary(route, by=person)

    assert weights(route) == (100, 0)
    assert route.default_version == canary


def test_a_canary_starts_with_its_weight_beside_another(person):
    route = RouteFactory(with_canary=True)
    version = ModelVersionFactory(registered_model=route.registered_model)

    routes.start_canary(version, weight_percent=25, by=person)

    route.refresh_from_db()
    assert route.default_weight_percent == 65
    assert route.canaries == ((route.canary_version, 10), (version, 25))
    assert route.weight_of(version.pk) == 25


def with_canaries(*weights_percent):
    """Return a route whose canaries have these weights."""
    route = RouteFactory()
    for weight in weights_percent:
        version = ModelVersionFactory(registered_model=route.registered_model)
        routes.start_canary(version, weight_percent=weight, by=None)
    route.refresh_from_db()
    return route


def test_weights_that_do_not_fit_together_are_refused_in_words(person):
    route = with_canaries(40, 30)
    first, second = (canary.version for canary in route.canaries)
    third = ModelVersionFactory(registered_model=route.registered_model)
    words = f"v{first.version} 40 % and v{second.version} 60 % are 100 % together"

    with pytest.raises(RouteError, match=words):
        routes.set_canary_weight(route, weight_percent=60, by=person, seen=second.pk)
    with pytest.raises(RouteError, match="99 % at most"):
        routes.start_canary(third, weight_percent=30, by=person)

    route.refresh_from_db()
    assert [canary.weight_percent for canary in route.canaries] == [40, 30]
    routes.start_canary(third, weight_percent=29, by=person)
    assert weights(route) == (1, 40)


def test_a_fifth_canary_is_refused(person):
    route = with_canaries(1, 2, 3, 4)
    fifth = ModelVersionFactory(registered_model=route.registered_model)

    with pytest.raises(RouteError, match="at most 4 canaries"):
        routes.start_canary(fifth, weight_percent=1, by=person)


def test_one_of_several_canaries_has_to_be_named(person):
    route = with_canaries(10, 20)
    first, second = (canary.version for canary in route.canaries)

    for change in (routes.stop_canary, routes.promote_canary):
        with pytest.raises(RouteError, match="Name one of them"):
            change(route, by=person)
    routes.stop_canary(route, by=person, seen=first.pk)

    route.refresh_from_db()
    assert route.canaries == ((second, 20),)
    assert route.canary_version == second
    assert route.default_weight_percent == 80


def test_the_others_keep_their_weights_when_one_is_promoted(person):
    route = with_canaries(10, 20, 30)
    first, second, third = (canary.version for canary in route.canaries)

    routes.promote_canary(route, by=person, seen=second.pk)

    route.refresh_from_db()
    assert route.default_version == second
    assert route.canaries == ((first, 10), (third, 30))
    assert route.default_weight_percent == 60


def test_a_weight_moves_and_a_stopped_canary_leaves_everything_to_the_default(person):
    route = RouteFactory(with_canary=True)

    routes.set_canary_weight(route, weight_percent=50, by=person)
    assert weights(route) == (50, 50)

    routes.stop_canary(route, by=person)
    assert weights(route) == (100, 0)
    assert route.canary_version is None


def test_the_history_tells_who_did_what(person):
    route = RouteFactory(with_canary=True)
    routes.set_canary_weight(route, weight_percent=50, by=person)

    record = route.history.first()

    assert record.history_user == person
    assert record.history_change_reason == "the canary's weight became 50 %"
    assert record.canary_weight_percent == 50
    assert route.history.last().canary_weight_percent == 10


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_outside_0_to_100_is_refused(weight, person):
    route = RouteFactory(with_canary=True)

    with pytest.raises(RouteError, match="from 0 to 100"):
        routes.set_canary_weight(route, weight_percent=weight, by=person)

    assert weights(route) == (90, 10)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"metadata_errors": ["labels: too many."]}, "labels: too many"),
        ({"mlflow_status": "FAILED_REGISTRATION"}, "FAILED_REGISTRATION, not READY"),
        ({"missing_since": "2026-01-01T00:00Z"}, "no longer in MLflow"),
        ({"signature": {}}, "without an input signature"),
    ],
)
def test_a_version_that_cannot_be_served_is_refused(fields, sentence, person):
    version = ModelVersionFactory(**fields)

    with pytest.raises(RouteError, match=sentence):
        routes.make_default(version, by=person)

    assert not Route.objects.exists()


def test_a_canary_needs_a_route(person):
    with pytest.raises(RouteError, match="no default version yet"):
        routes.start_canary(ModelVersionFactory(), weight_percent=10, by=person)


def test_the_default_cannot_be_the_canary(person):
    route = RouteFactory()

    with pytest.raises(RouteError, match="is the default"):
        routes.start_canary(route.default_version, weight_percent=10, by=person)


def test_making_the_default_the_default_again_is_told(person):
    with pytest.raises(RouteError, match="already is the default"):
        routes.make_default(RouteFactory().default_version, by=person)


@pytest.mark.parametrize("change", [routes.stop_canary, routes.promote_canary])
def test_what_needs_a_canary_says_so(change, person):
    with pytest.raises(RouteError, match="has no canary"):
        change(RouteFactory(), by=person)


def test_a_published_version_is_withdrawn_again(person, changes):
    version = ModelVersionFactory()

    routes.publish(version, by=person)
    version.refresh_from_db()
    assert version.published

    routes.withdraw(version, by=person)
    version.refresh_from_db()
    assert not version.published
    assert len(changes) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"default_weight_percent": 91},
        {"default_weight_percent": 0, "canary_weight_percent": 101},
        {"canary_version": None},
        {"canary_2_weight_percent": 5, "default_weight_percent": 85},
        {"canary_2_version": F("canary_version")},
        {"canary_3_version": F("default_version")},
    ],
)
def test_the_database_itself_refuses_weights_that_do_not_add_up(fields):
    route = RouteFactory(with_canary=True)

    with pytest.raises(IntegrityError), transaction.atomic():
        Route.objects.filter(pk=route.pk).update(**fields)


def test_another_models_versions_are_no_business_of_a_route(person):
    route = RouteFactory()
    other = ModelVersionFactory(registered_model=RegisteredModelFactory())

    with pytest.raises(RouteError, match="no default version yet"):
        routes.start_canary(other, weight_percent=10, by=person)

    assert weights(route) == (100, 0)


OPTIONAL = {"name": "zip", "type": "string", "required": False}


def columns(*names, kind="double"):
    return {"inputs": [{"name": name, "type": kind} for name in names]}


WAYS = {
    "default": routes.make_default,
    "canary": lambda version, **more: routes.start_canary(
        version, weight_percent=10, **more
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_version_that_the_fallback_cannot_replace_is_refused(way):
    default = ModelVersionFactory(signature=columns("width"), metadata={})
    model = default.registered_model
    fallback, new = (
        ModelVersionFactory(registered_model=model, signature=signature, metadata={})
        for signature in (
            columns("width"),
            {"inputs": [*columns("width")["inputs"], OPTIONAL]},
        )
    )
    route = RouteFactory(default_version=default, fallback_version=fallback)

    with pytest.raises(RouteError) as refused:
        WAYS[way](new, by=None)

    assert str(refused.value) == (
        f"The route's fallback could not answer for {new}: {fallback} takes another "
        f"input than {new}. They differ in: zip. Give the route another fallback "
        "first, or none."
    )
    Route.objects.update(fallback_version=None)
    WAYS[way](new, by=None)
    route.refresh_from_db()
    assert new in (route.default_version, route.canary_version)


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        (columns("width", "height"), None),
        (columns("width", "depth"), "They differ in: depth, height."),
        (columns("width", "height", kind="string"), "They differ in: height, width."),
        (columns("height", "width"), "in another order"),
        (columns(*"abcdefghijkl"), "and 4 more."),
    ],
)
def test_a_fallback_takes_what_the_default_takes(signature, sentence):
    default = ModelVersionFactory(signature=columns("width", "height"))
    fallback = ModelVersionFactory(
        registered_model=default.registered_model, signature=signature
    )

    problems = routes.problems_of(
        default=default,
        canaries={},
        fallback=fallback,
        changed=("fallback_version",),
        input_rules={},
        batching={},
    )

    assert [problem.field for problem in problems] == ["fallback_version"] * bool(
        sentence
    )
    assert all(sentence in problem.sentence for problem in problems)


@pytest.mark.parametrize(
    ("task", "answer", "refused"),
    [
        ("embedding", {"label": "unknown"}, True),
        ("embedding", [], True),
        ("embedding", [True], True),
        ("embedding", [0.5, 1], False),
        ("regression", {"label": "unknown"}, False),
    ],
)
def test_what_stands_in_for_an_embedding_is_a_vector(task, answer, refused):
    default = ModelVersionFactory(metadata={"task": task})

    problems = routes.problems_of(
        default=default,
        canaries={},
        fallback_answer=answer,
        changed=("fallback_answer",),
        input_rules={},
        batching={},
    )

    assert [problem.field for problem in problems] == ["fallback_answer"] * refused
