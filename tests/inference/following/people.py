"""People of the admin who follow models."""

from django.contrib.auth.models import Group

from inference.following import followers
from tests.factories import UserFactory


def scientist(name="grace", *, follows=None, **facts):
    person = UserFactory(username=name, is_staff=True, **facts)
    person.groups.add(Group.objects.get(name="data scientists"))
    if follows is not None:
        followers.follow(follows, person)
    return person


def told(person):
    """Return what a person was told, the oldest first."""
    texts = person.messages.order_by("pk").values_list("text", flat=True)
    return list(texts)
