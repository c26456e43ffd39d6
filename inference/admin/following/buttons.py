"""Let people follow a model, and ask the administrators to trust it."""

from typing import Any, cast

from django import forms
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from inference.conditions.reading import needs_trust
from inference.following import followers, trust
from registry.admin.dialogs import answer, dialog
from registry.admin.lookup import get_or_404
from registry.models import ModelVersion, RegisteredModel

# Versions whose need for trust is looked at, the newest first.
_LOOKED_AT = 10


def may_ask(model: RegisteredModel, user: Any) -> bool:
    """Return whether it helps that this person asks for trust in this model."""
    if model.trusted or user.has_perm(trust.TRUST) or trust.request_of(model):
        return False
    newest = model.versions.select_related("registered_model").order_by("-version")
    return any(needs_trust(version) for version in newest[:_LOOKED_AT])


def page_of(found: ModelVersion | RegisteredModel) -> str:
    name = found._meta.model_name
    return reverse(f"admin:registry_{name}_change", args=[found.pk])


class AskForTrust:
    """Offer "Ask for trust" on the page of a model or of a version."""

    @action(
        description="Ask for trust",
        icon="verified_user",
        permissions=["move_route"],
        dialog=dialog(
            "Ask the administrators to trust this model?",
            text="It runs its author's code, so somebody must trust it first. They get "
            "a message with a link to the model.",
            submit="Ask for trust",
        ),
    )
    def ask_for_trust(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        found = get_or_404(self, request, object_id)
        model = found.registered_model if isinstance(found, ModelVersion) else found
        user = cast(User, request.user)
        return answer(
            request,
            lambda: trust.ask(model, by=user, now=timezone.now()),
            done=f"The administrators were asked to trust {model}.",
            otherwise=page_of(found),
        )


class FollowModel:
    """Offer "Follow" or "Unfollow" on the page of a model."""

    def has_follow_permission(self, request: HttpRequest, *_: Any) -> bool:
        return request.user.has_perm("registry.view_registeredmodel")

    @action(
        description="Follow",
        icon="notifications",
        permissions=["follow"],
        dialog=dialog(
            "Be told what happens to this model?",
            text="You get a message of new versions, failed loads, quarantines, and "
            "rollouts that end or pause.",
            submit="Follow",
        ),
    )
    def follow(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        model = get_or_404(self, request, object_id)
        user = cast(User, request.user)
        return answer(
            request,
            lambda: followers.follow(model, user),
            done=f"You follow {model}.",
            otherwise=page_of(model),
        )

    @action(
        description="Unfollow",
        icon="notifications_off",
        permissions=["follow"],
        dialog=dialog(
            "Get no more messages of this model?",
            text="You are not told either if you change its route.",
            submit="Unfollow",
        ),
    )
    def unfollow(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        model = get_or_404(self, request, object_id)
        user = cast(User, request.user)
        return answer(
            request,
            lambda: followers.unfollow(model, user),
            done=f"You do not follow {model} any more.",
            otherwise=page_of(model),
        )
