"""Find what happened to models that people follow, and tell each fact once."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Min

from inference.models import (
    Follow,
    MailWish,
    Message,
    Rollout,
    RolloutEvent,
    VersionCondition,
    VersionEvent,
)
from registry.models import ModelVersion, RegisteredModel

KEPT = timedelta(days=90)
# Facts of each kind in one look; the next look tells the others.
_AT_ONCE = 200
_SEE = "registry.view_registeredmodel"
_ENDS = {
    "promoted": "was promoted",
    "rolled back": "was rolled back",
    "paused": "is paused",
    "waits for approval": "waits for a second person",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a model."""

    key: str
    kind: Message.Kind
    text: str
    at: datetime
    model: RegisteredModel
    version: ModelVersion | None = None
    rollout: Rollout | None = None


def look(*, now: datetime) -> None:
    """Tell followers what happened since the last look."""
    _pass_over_old_events(now=now)
    _tell_new_versions(now=now)
    _tell_version_events(now=now)
    _tell_rollout_events(now=now)


def forget(*, now: datetime) -> None:
    """Delete old messages."""
    Message.objects.filter(at__lt=now - KEPT).delete()


def tell(fact: Fact, people: Iterable[User]) -> None:
    """Leave a message for each of these people, unless they have it already."""
    people = list(people)
    wishes = MailWish.objects.filter(user__in=people)
    by_mail = set(wishes.values_list("user_id", flat=True))
    Message.objects.bulk_create(
        [
            Message(
                user=person,
                key=fact.key,
                kind=fact.kind,
                registered_model=fact.model,
                version=fact.version,
                rollout=fact.rollout,
                text=fact.text,
                at=fact.at,
                mail_at=fact.at if person.pk in by_mail else None,
            )
            for person in people
        ],
        ignore_conflicts=True,
    )


def _pass_over_old_events(*, now: datetime) -> None:
    """Mark what happened before anybody followed a model as told, all at once.

    An installation that learns to follow has years of events.
    """
    follows = Follow.objects.filter(wanted=True)
    first = follows.aggregate(first=Min("since"))["first"]
    for untold in (VersionEvent.objects.untold(), RolloutEvent.objects.untold()):
        old = untold if first is None else untold.filter(at__lt=first)
        old.update(told_at=now)


def _tell_new_versions(*, now: datetime) -> None:
    behind = Follow.objects.filter(
        wanted=True, registered_model__versions__version__gt=F("newest_version")
    )
    for follow in behind.select_related("user", "registered_model").distinct():
        newer = list(
            ModelVersion.objects.filter(
                registered_model=follow.registered_model,
                version__gt=follow.newest_version,
            ).order_by("version")
        )
        oldest, newest = newer[0].version, newer[-1]
        name = follow.registered_model.name
        text = f"{name} has a new version: v{newest.version}."
        if len(newer) > 1:
            text = (
                f"{name} has {len(newer)} new versions: v{oldest} to v{newest.version}."
            )
        fact = Fact(
            # The same number may be registered again.
            key=f"new version {newest.pk} {newest.registered_at.isoformat()}",
            kind=Message.Kind.NEW_VERSION,
            text=text,
            at=now,
            model=follow.registered_model,
            version=newest,
        )
        with transaction.atomic():
            tell(fact, _who_may_see([follow.user]))
            Follow.objects.filter(pk=follow.pk).update(newest_version=newest.version)


def _tell_version_events(*, now: datetime) -> None:
    """Tell of loads that failed and of quarantines, and mark these events as told."""
    events = list(VersionEvent.objects.untold().order_by("at", "pk")[:_AT_ONCE])
    found = ModelVersion.objects.filter(
        registered_model__name__in={event.model for event in events},
        version__in={event.version for event in events},
    ).select_related("registered_model")
    versions = {(row.registered_model.name, row.version): row for row in found}
    for event in events:
        version = versions.get((event.model, event.version))
        with transaction.atomic():
            if version is not None:
                fact = _of_version_event(event, version)
                tell(fact, _followers(version.registered_model, at=event.at))
            VersionEvent.objects.filter(pk=event.pk).update(told_at=now)


def _of_version_event(event: VersionEvent, version: ModelVersion) -> Fact:
    if event.kind == VersionEvent.Kind.QUARANTINED:
        kind, key = Message.Kind.QUARANTINED, f"quarantine {event.pk}"
        text = f"{version} is quarantined. {event.text}"
    else:
        kind, key = Message.Kind.LOAD_FAILED, _failed_load_of(version)
        text = f"{version} could not be loaded. {event.text}"
    return Fact(
        key=key,
        kind=kind,
        text=text,
        at=event.at,
        model=version.registered_model,
        version=version,
    )


def _failed_load_of(version: ModelVersion) -> str:
    """Return a key that stays until the version changes, or a person acts on it."""
    condition = VersionCondition.objects.filter(
        model=version.registered_model.name, version=version.version
    ).first()
    asked_at = None if condition is None else condition.load_again_at
    form = version.artifact_digest[:16], version.environment[:16]
    asked = "" if asked_at is None else asked_at.isoformat()
    return f"failed load {version.pk} {' '.join(form)} {asked}".rstrip()


def _tell_rollout_events(*, now: datetime) -> None:
    """Tell of rollouts that ended or need a person, and mark these events as told."""
    events = RolloutEvent.objects.untold().select_related(
        "rollout__registered_model", "rollout__version__registered_model"
    )
    for event in events.order_by("at", "pk")[:_AT_ONCE]:
        rollout = event.rollout
        with transaction.atomic():
            if event.action in _ENDS:
                fact = Fact(
                    key=f"rollout event {event.pk}",
                    kind=Message.Kind.ROLLOUT,
                    text=f"The rollout of {rollout.version} {_ENDS[event.action]}. "
                    f"{event.reason}".rstrip(),
                    at=event.at,
                    model=rollout.registered_model,
                    version=rollout.version,
                    rollout=rollout,
                )
                followers = _followers(rollout.registered_model, at=event.at)
                # Who did it knows.
                tell(fact, (it for it in followers if it.pk != event.by_id))
            RolloutEvent.objects.filter(pk=event.pk).update(told_at=now)


def _followers(model: RegisteredModel, *, at: datetime) -> list[User]:
    """Return the people who followed the model at that time and may see it now."""
    people = User.objects.filter(
        follows__registered_model=model,
        follows__wanted=True,
        follows__since__lte=at,
    )
    return _who_may_see(people)


def _who_may_see(people: Iterable[User]) -> list[User]:
    return [it for it in people if it.is_active and it.is_staff and it.has_perm(_SEE)]
