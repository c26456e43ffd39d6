"""Ask the administrators to trust a model, so that its author's code may run."""

from collections.abc import Iterable
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from inference.following import telling
from inference.models import Message, TrustRequest
from registry.models import RegisteredModel
from registry.routes import RouteError

TRUST = "registry.trust_registeredmodel"


def ask(model: RegisteredModel, *, by: User, now: datetime) -> TrustRequest:
    """Tell the administrators that somebody needs the model; once until it is trusted.

    Raises RouteError if it is trusted already.
    """
    if model.trusted:
        raise RouteError(f"{model} is trusted already.")
    with transaction.atomic():
        request, is_new = TrustRequest.objects.get_or_create(
            registered_model=model, defaults={"asked_by": by, "asked_at": now}
        )
        if is_new:
            fact = telling.Fact(
                key=f"trust request {request.pk}",
                kind=Message.Kind.TRUST,
                text=f"{by} asks you to trust {model}, so that its code may run.",
                at=now,
                model=model,
            )
            telling.tell(fact, administrators())
    return request


def request_of(model: RegisteredModel) -> TrustRequest | None:
    """Return the request that waits for an administrator; None: nobody asked."""
    requests = TrustRequest.objects.select_related("asked_by")
    return requests.filter(
        registered_model=model, registered_model__trusted=False
    ).first()


def end_requests(names: Iterable[str]) -> None:
    """Forget the requests of those of these models that are trusted now."""
    TrustRequest.objects.filter(
        registered_model__name__in=names, registered_model__trusted=True
    ).delete()


def administrators() -> Iterable[User]:
    """Return the people who may trust a model."""
    backend = "django.contrib.auth.backends.ModelBackend"
    return User.objects.with_perm(TRUST, backend=backend).filter(
        is_active=True, is_staff=True
    )
