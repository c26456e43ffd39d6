"""The page behind the bell: what a person was told, and whether they get mail, too."""

from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from inference.following import inbox
from inference.models import Message

_ON_A_PAGE = 50


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the person's messages, the newest first."""
    user: Any = request.user
    found = inbox.messages_of(user)
    context = {
        **admin.site.each_context(request),
        "title": "Messages",
        "shown": Paginator(found, _ON_A_PAGE).get_page(request.GET.get("page")),
        "unread": inbox.unread(user),
        "newest": found.order_by().aggregate(newest=Max("pk"))["newest"] or "",
        "follows": inbox.followed_by(user),
        "by_mail": inbox.wants_mail(user),
    }
    return render(request, "config/messages.html", context)


@require_POST
def follow_link(request: HttpRequest, message_id: int) -> HttpResponse:
    """Mark one message as read, and open what it is about."""
    user: Any = request.user
    own = inbox.messages_of(user).filter(pk=message_id)
    message = get_object_or_404(own)
    inbox.mark_read(own, now=timezone.now())
    return HttpResponseRedirect(_about(message))


@require_POST
def read_all(request: HttpRequest) -> HttpResponse:
    """Mark all messages as read that the page showed or that came before."""
    user: Any = request.user
    newest = request.POST.get("newest", "")
    seen = inbox.messages_of(user)
    if newest.isdecimal():
        # One that came since the page was drawn stays unread.
        seen = seen.filter(pk__lte=int(newest[:18]))
    inbox.mark_read(seen, now=timezone.now())
    return redirect("messages")


@require_POST
def by_mail(request: HttpRequest) -> HttpResponse:
    """Set whether the person gets messages by e-mail, too."""
    user: Any = request.user
    wanted = request.POST.get("wanted") == "yes"
    if wanted and not user.email:
        messages.error(request, "Your account has no e-mail address. Ask an operator.")
        return redirect("messages")
    inbox.set_mail(user, wanted=wanted)
    done = f"Messages are mailed to {user.email}, too." if wanted else "No more mail."
    messages.success(request, done)
    return redirect("messages")


def _about(message: Message) -> str:
    if message.rollout_id is not None:
        return reverse("admin:inference_rollout_change", args=[message.rollout_id])
    if message.version_id is not None:
        page = reverse("admin:registry_modelversion_change", args=[message.version_id])
        return f"{page}#why"
    model = message.registered_model_id
    return reverse("admin:registry_registeredmodel_change", args=[model])
