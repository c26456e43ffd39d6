"""The admin's search: pages, customers, keys, models, versions, jobs and calls."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Model, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from accounts.metering import spool
from accounts.metering.event import UsageEvent
from accounts.models import ApiKey, Customer, Refusal
from config.pages.navigation import navigation
from inference.controller.rollouts import past
from inference.models import PredictionJob
from registry.models import ModelVersion, RegisteredModel, Route

# Results of each kind; people find others by typing more.
_SHOWN = 5
_LONGEST = 200
# A whole token finds its key; the secret part is ignored.
_TOKEN = re.compile(r"\w+_(?:live|test)_([0-9A-Za-z]+)_\w*", re.ASCII)
# A request id that we gave begins with the boot id of the process that answered.
_OUR_REQUEST_ID = re.compile(r"req_(site-[0-9a-f]{32}|[0-9a-f]{16})[0-9a-f]{8,}")
_VERSION = re.compile(r"(.+?)\s+v?(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Found:
    title: str
    description: str
    link: str


def search(request: HttpRequest) -> HttpResponse:
    """Return results that the person may see, as HTML."""
    term = request.GET.get("s", "").strip()[:_LONGEST]
    if not term:
        return HttpResponse()
    found = [*_pages(request, term), *_rows(request, term)]
    response = render(
        request, "config/search_results.html", {"results": found, "term": term}
    )
    # Tells the search field's script to select the first result.
    response.headers["HX-Trigger"] = "search"
    return response


def _pages(request: HttpRequest, term: str) -> Iterator[Found]:
    for group in navigation(request):
        for item in group["items"]:
            if term.lower() in item["title"].lower():
                yield Found(item["title"], group.get("title", "Admin"), item["link"])


def _rows(request: HttpRequest, term: str) -> Iterator[Found]:
    if _may_view(request, Customer):
        named = Q(name__icontains=term) | Q(contact_email__icontains=term)
        for customer in Customer.objects.filter(named)[:_SHOWN]:
            yield _found(customer, customer.name, "Customer")
    if _may_view(request, ApiKey):
        token = _TOKEN.fullmatch(term)
        named = Q(key_id__icontains=token[1] if token else term)
        if not token:
            named |= Q(name__icontains=term)
        keys = ApiKey.objects.filter(named).select_related("customer")
        for key in keys[:_SHOWN]:
            yield _found(key, str(key), f"API key of {key.customer}")
    if _may_view(request, RegisteredModel):
        for model in RegisteredModel.objects.filter(name__icontains=term)[:_SHOWN]:
            yield _found(model, model.name, "Registered model")
    if _may_view(request, ModelVersion):
        yield from _versions(term)
    if _may_view(request, PredictionJob):
        jobs = PredictionJob.objects.filter(pk=term).select_related("customer")
        for job in jobs:
            yield _found(job, job.pk, f"Job of {job.customer}, {job.status}")
    yield from _calls(request, term)


def _calls(request: HttpRequest, term: str) -> Iterator[Found]:
    """Find calls by their request id: recent ones with it, else refusals.

    Only the processes that answered know of calls that were not refused, so these are
    found by ids that we gave: a search through all that was called would take long.
    """
    ours = _OUR_REQUEST_ID.fullmatch(term)
    recent: list[UsageEvent] = []
    if ours and (_may_view(request, Customer) or _may_view(request, Route)):
        found = spool.find_events(settings.HOME.spool, term, boot_id=ours[1])
        recent = list(islice(found, _SHOWN))
    for event in recent:
        at = datetime.fromtimestamp(event.at, UTC)
        customer = Customer.objects.filter(pk=event.customer_id).first()
        version = ModelVersion.objects.filter(
            registered_model__name=event.model, version=int(event.version or 0)
        ).first()
        shown = customer if _may_view(request, Customer) else version
        if shown is None:
            continue
        title = f"{event.status} {event.code}".strip()
        words = _call(
            request, customer, event.model, event.version, at, variant=event.variant
        )
        yield _found(shown, f"{title} at {at:%Y-%m-%d %H:%M:%S} UTC", words)
    if recent or not _may_view(request, Customer):
        return
    calls = Refusal.objects.filter(request_id=term).select_related("customer")
    for call in calls.order_by("-at")[:_SHOWN]:
        title = f"{call.status} {call.code} at {call.at:%Y-%m-%d %H:%M:%S} UTC"
        words = _call(request, call.customer, call.model, call.version, call.at)
        yield _found(call.customer, title, words)


def _call(
    request: HttpRequest,
    customer: Customer | None,
    model: str,
    version: str,
    at: datetime,
    *,
    variant: str = "",
) -> str:
    """Tell whose call it was, which version it met, and which weights applied."""
    whose = customer if _may_view(request, Customer) else None
    text = "Call" if whose is None else f"Call of {whose}"
    if model:
        text += f", {model}"
        text += f" v{version}" if version else ""
        text += f" ({variant})" if variant else ""
    if model and _may_view(request, Route):
        applied = past.in_words(model, at)
        text += f"; then {applied}" if applied else ""
    return text


def _versions(term: str) -> Iterator[Found]:
    numbered = _VERSION.fullmatch(term)
    if numbered is None:
        return
    versions = ModelVersion.objects.filter(
        registered_model__name__icontains=numbered[1], version=int(numbered[2])
    ).select_related("registered_model")
    for version in versions[:_SHOWN]:
        yield _found(version, str(version), "Model version")


def _may_view(request: HttpRequest, model: type[Model]) -> bool:
    registered = admin.site._registry.get(model)
    return registered is not None and registered.has_view_or_change_permission(request)


def _found(row: Any, title: str, description: str) -> Found:
    options = row._meta
    url = reverse(
        f"admin:{options.app_label}_{options.model_name}_change", args=(row.pk,)
    )
    return Found(title, description, url)
