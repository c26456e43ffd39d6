"""Follow models: by a button, or by changing a route."""

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db.models import Max
from django.utils import timezone

from inference.models import Follow
from registry.changes import Person
from registry.models import RegisteredModel


def follow(model: RegisteredModel, user: User) -> None:
    """Tell the person of what happens to the model from now on."""
    Follow.objects.update_or_create(
        user=user, registered_model=model, defaults={"wanted": True, **_from_now(model)}
    )


def unfollow(model: RegisteredModel, user: User) -> None:
    """Tell the person no more, also if they change the model's route."""
    Follow.objects.update_or_create(
        user=user,
        registered_model=model,
        defaults={"wanted": False},
        create_defaults={"wanted": False, **_from_now(model)},
    )


def is_following(model: RegisteredModel, user: User) -> bool:
    return Follow.objects.filter(
        registered_model=model, user=user, wanted=True
    ).exists()


def follow_what_changed(names: Iterable[str], *, by: Person) -> None:
    """Let the person who changed the routes of these models follow them.

    Who stopped following a model is not made to follow it again.
    """
    if not isinstance(by, User):
        return
    for model in RegisteredModel.objects.filter(name__in=names).exclude(
        follows__user=by
    ):
        Follow.objects.get_or_create(
            user=by, registered_model=model, defaults=_from_now(model)
        )


def _from_now(model: RegisteredModel) -> dict[str, object]:
    newest = model.versions.aggregate(newest=Max("version"))["newest"]
    return {"since": timezone.now(), "newest_version": newest or 0}
