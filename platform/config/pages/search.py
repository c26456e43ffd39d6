"""The admin's search: pages, customers, keys, models, versions, jobs and calls."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Model, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

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
    if _may_view(request, Customer):
        calls = Refusal.objects.filter(request_id=term).select_related("customer")
        for call in calls.order_by("-at")[:_SHOWN]:
            title = f"{call.status} {call.code} at {call.at:%Y-%m-%d %H:%M:%S} UTC"
            yield _found(call.customer, title, _call(request, call))


def _call(request: HttpRequest, call: Refusal) -> str:
    """Tell whose call it was, which version it met, and which weights applied."""
    text = f"Call of {call.customer}"
    if call.model:
        text += f", {call.model}"
        text += f" v{call.version}" if call.version else ""
    if call.model and _may_view(request, Route):
        applied = past.in_words(call.model, call.at)
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
