"""The admin's sidebar and environment label."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import reverse

from accounts.customers import personal_keys
from config.pages import check

# Title of the group → (model, title, Material icon) of each entry.
_NAVIGATION: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Models": (
        ("registry.RegisteredModel", "Registered models", "deployed_code"),
        ("registry.ModelVersion", "Model versions", "deployed_code_history"),
        ("registry.Route", "Routes", "alt_route"),
        ("inference.Rollout", "Rollouts", "rocket_launch"),
        ("registry.RolloutPlan", "Rollout plans", "stairs"),
        ("registry.Deprecation", "Deprecations", "event_busy"),
        ("registry.RegistrySync", "Registry sync", "sync"),
    ),
    "Traffic": (
        ("accounts.Usage", "Usage by minute", "bar_chart"),
        ("accounts.UsageHour", "Usage by hour", "schedule"),
        ("accounts.UsageDay", "Usage by day", "calendar_month"),
        ("inference.PredictionJob", "Prediction jobs", "pending_actions"),
        ("inference.Upload", "Uploads", "upload_file"),
    ),
    "Accounts": (
        ("accounts.Customer", "Customers", "domain"),
        ("accounts.Plan", "Plans", "sell"),
        ("accounts.Price", "Prices", "payments"),
        ("accounts.Statement", "Statements", "receipt_long"),
        ("accounts.ApiKey", "API keys", "key"),
        ("accounts.LimitEvent", "Warnings", "notification_important"),
        ("accounts.Suspicion", "Suspicions", "report"),
        ("accounts.QuotaCounter", "Quota counters", "data_usage"),
    ),
    "Operations": (
        ("inference.Host", "Hosts", "dns"),
        ("inference.Engine", "Engines", "memory"),
        ("inference.VersionEvent", "Version events", "history"),
        ("inference.ModelEnvironment", "Environments", "package_2"),
    ),
    "People": (
        ("auth.User", "Users", "person"),
        ("auth.Group", "Groups", "group"),
        ("axes.AccessAttempt", "Failed logins", "gpp_maybe"),
    ),
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the sidebar's entries that the person may see."""
    groups: list[dict[str, Any]] = [
        {
            "items": [
                {
                    "title": "Dashboard",
                    "icon": "dashboard",
                    "link": reverse("admin:index"),
                },
                {"title": "API docs", "icon": "api", "link": reverse("docs")},
            ]
        }
    ]
    for title, entries in _NAVIGATION.items():
        items = [item for entry in entries if (item := _item(request, *entry))]
        if title == "Operations" and request.user.has_perm(check.PERMISSION):
            link = reverse("check")
            items.append({"title": "Check", "icon": "fact_check", "link": link})
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def account_links(request: HttpRequest) -> list[dict[str, str]]:
    """Return the links of the person's own menu."""
    links = []
    if personal_keys.may_hold(request.user):
        links.append({"title": "My key", "link": reverse("my-key")})
    if isinstance(request.user, User) and request.user.has_usable_password():
        link = reverse("admin:password_change")
        links.append({"title": "Change password", "link": link})
    return links


def _item(
    request: HttpRequest, label: str, title: str, icon: str
) -> dict[str, Any] | None:
    """Return a link to a model's list; None if there is none or it may not be seen."""
    app_label, model_name = label.split(".")
    if app_label not in apps.app_configs:
        return None
    model = apps.get_model(app_label, model_name)
    model_admin = admin.site._registry.get(model)
    if model_admin is None or not model_admin.has_view_or_change_permission(request):
        return None
    link = reverse(f"admin:{app_label}_{model_name.lower()}_changelist")
    return {"title": title, "icon": icon, "link": link}


def environment(request: HttpRequest) -> list[str]:
    """Return the header's label, which tells production from other installations."""
    colour = "danger" if settings.MODELYARD_ENVIRONMENT == "production" else "info"
    return [settings.MODELYARD_ENVIRONMENT, colour]
