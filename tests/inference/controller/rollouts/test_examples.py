"""Inputs that a shadow answered otherwise: kept only as long and as many as allowed."""

from datetime import timedelta

import msgspec
import pytest
from django.utils import timezone

from accounts.customers import changes
from inference.controller.rollouts import examples
from inference.installation import example_files
from inference.installation.example_files import Example
from inference.models import ShadowExample
from registry.models import Route
from tests.factories import CustomerFactory
from tests.factories_registry import RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def route():
    return RouteFactory.create(keeps_examples=True)


@pytest.fixture
def example(route):
    return Example(
        at=timezone.now().timestamp(),
        customer_id=CustomerFactory.create().pk,
        request_id="r",
        model=route.registered_model.name,
        default=1,
        shadow=2,
        body='{"instances": [1]}',
        default_answer="[1]",
        shadow_answer="[2]",
    )


def send(folder, *several):
    for number, each in enumerate(several):
        assert example_files.write(folder, f"x{number}-{each.at}", each)
    examples.take(folder)


def test_an_example_is_kept_once_and_its_file_is_gone(tmp_path, example):
    send(tmp_path, example)
    # The controller was killed before it deleted the file.
    send(tmp_path, example)

    kept = ShadowExample.objects.get()
    assert (kept.body, kept.default_answer, kept.shadow_answer) == (
        '{"instances": [1]}',
        "[1]",
        "[2]",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_route_that_keeps_no_examples_keeps_none(tmp_path, route, example):
    Route.objects.update(keeps_examples=False)

    send(tmp_path, example)

    assert not ShadowExample.objects.exists()


def test_examples_end_when_their_customer_is_archived(tmp_path, example):
    send(tmp_path, example)

    changes.archive(ShadowExample.objects.get().customer)
    examples.delete_old(now=timezone.now())
    # One was still on its way.
    send(tmp_path, msgspec.structs.replace(example, request_id="late"))

    assert not ShadowExample.objects.exists()


def test_examples_end_with_their_customer(tmp_path, example):
    send(tmp_path, example)
    kept = ShadowExample.objects.get()

    kept.customer.delete()
    assert not ShadowExample.objects.exists()

    # One that was still on its way is dropped.
    send(tmp_path, example)
    assert not ShadowExample.objects.exists()


def test_the_newest_hundred_of_a_model_are_kept(tmp_path, example):
    for batch in range(3):
        send(
            tmp_path,
            *(
                msgspec.structs.replace(example, at=example.at + 40 * batch + number)
                for number in range(40)
            ),
        )

    assert ShadowExample.objects.count() == 100
    oldest = ShadowExample.objects.order_by("at").first()
    assert oldest.at.timestamp() == pytest.approx(example.at + 20)


def test_examples_end_after_a_week_and_when_the_route_forbids_them(tmp_path, example):
    old = msgspec.structs.replace(example, at=example.at - 7 * 86_400 - 60)
    send(tmp_path, example, old)

    examples.delete_old(now=timezone.now())
    assert ShadowExample.objects.count() == 1

    examples.delete_old(now=timezone.now() + timedelta(days=7, seconds=1))
    assert not ShadowExample.objects.exists()

    send(tmp_path, example)
    Route.objects.update(keeps_examples=False)
    examples.delete_old(now=timezone.now())
    assert not ShadowExample.objects.exists()


def test_a_file_that_cannot_be_read_is_dropped(tmp_path):
    (tmp_path / "x.json").write_text("{")

    examples.take(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_waiting_examples_are_bounded(tmp_path, example, monkeypatch):
    monkeypatch.setattr(example_files, "MOST_FILES", 2)

    written = [example_files.write(tmp_path, str(n), example) for n in range(3)]

    assert written == [True, True, False]
