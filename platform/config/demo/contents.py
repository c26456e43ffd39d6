"""The demo: its routes, users, plans and keys, and examples of calls."""

import json
import os
import secrets
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User

from accounts.admission.limits import SCOPES
from accounts.customers import api_keys
from accounts.models import Customer, Plan
from registry import artifacts, changes, routes
from registry import sync as registry_sync
from registry.models import ModelVersion, RegisteredModel, Route

Say = Callable[[str], None]

# examples/<name with underscores>.py trains each model.
MODELS = ("breast-cancer", "diabetes", "digits", "language", "sentences", "writer")
_VERSIONS = {"breast-cancer": 3}
_CANARY_WEIGHT_PERCENT = 10
# The engine refuses code in artifacts of models that are not trusted. The examples of
# this checkout made these.
_TRUSTED = frozenset({"language", "sentences", "writer"})
_ADMIN = "admin"
# A longer body goes into a file, which keeps the command readable.
_LONGEST_PASTED_BODY = 200
_PLANS = (
    {
        "name": "Free",
        "description": "To try things out.",
        "burst_requests": 5,
        "sustained_requests": 60,
        "daily_quota": 200,
        "monthly_quota": 2_000,
        "max_job_rows": 10_000,
    },
    {
        "name": "Team",
        "description": "For an application with some users.",
        "burst_requests": 20,
        "sustained_requests": 300,
        "daily_quota": 20_000,
        "monthly_quota": 400_000,
    },
    {
        "name": "Benchmark",
        "description": "Every limit is enforced and none is met.",
        "burst_requests": 2_000_000_000,
        "sustained_requests": 2_000_000_000,
        "daily_quota": 10**15,
        "monthly_quota": 10**16,
        "max_predict_rows": 1_000,
        "max_batch_rows": 10_000,
    },
)
_STAFF = {
    "dana": "data scientists",
    "alex": "account managers",
    "olga": "operators",
}


class SetUpFailed(Exception):
    """The demo could not be set up; the text tells the user of `make run` why."""


class NotAnswering(Exception):
    """The demo's own call failed; the text is the error."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command that people can paste, and its answer."""

    title: str
    command: str
    answer: Any


@dataclass(frozen=True, slots=True)
class DemoCard:
    facts: str
    examples: tuple[Example, ...]


def is_registered(name: str) -> bool:
    """Return whether an earlier run trained and copied all versions of the model."""
    return ModelVersion.objects.filter(
        registered_model__name=name
    ).count() >= _VERSIONS.get(name, 1)


def needs_sync() -> bool:
    return not all(is_registered(name) for name in MODELS)


def sync(_say: Say) -> str:
    _synchronise()
    return (
        f"{ModelVersion.objects.count()} versions of "
        f"{RegisteredModel.objects.count()} models"
    )


def needs_routes() -> bool:
    return (
        Route.objects.filter(registered_model__name__in=MODELS).count() < len(MODELS)
        or not RegisteredModel.objects.filter(site_default=True).exists()
        # New in the demo since the last run; a model that lost its trust is public.
        or RegisteredModel.objects.filter(
            name__in=_TRUSTED, trusted=False, public=False
        ).exists()
        or not all(map(artifacts.is_cached, artifacts.wanted()))
    )


def set_routes(_say: Say) -> str:
    """Set a default for every model, and a canary and published version for one.

    Only models of the demo's own examples are trusted.
    """
    admin = User.objects.get(username=_ADMIN)
    for model in RegisteredModel.objects.filter(name__in=MODELS):
        if not Route.objects.filter(registered_model=model).exists():
            newest = model.versions.order_by("-version").first()
            assert newest is not None  # MLflow registers a model by its first version
            routes.make_default(newest, by=admin)
        if not model.public:
            model.public = True
            model.trusted = model.name in _TRUSTED
            changes.save(model, by=admin, reason="part of the demo")
    first = RegisteredModel.objects.get(name="breast-cancer")
    if not RegisteredModel.objects.filter(site_default=True).exists():
        routes.start_canary(
            first.aliases.get(name="challenger").version,
            weight_percent=_CANARY_WEIGHT_PERCENT,
            by=admin,
        )
        routes.publish(first.versions.get(version=1), by=admin)
        # Last: the next run takes it as a sign that all of this was done.
        changes.make_site_default(first, by=admin)
    _synchronise()
    return f"breast-cancer sends {_CANARY_WEIGHT_PERCENT} % to its challenger"


def _synchronise() -> None:
    outcome = registry_sync.synchronise(artifacts.connect())
    if outcome.error:
        raise SetUpFailed(f"The models could not be read: {outcome.error}")
    if outcome.not_fetched:
        raise SetUpFailed(
            f"Artifacts could not be fetched: {', '.join(outcome.not_fetched)}"
        )


def needs_people() -> bool:
    """Return whether demo.json is missing, outdated or names a key that fails."""
    facts = read_facts()
    tokens = [facts.get("api_key", ""), facts.get("bench_api_key", "")]
    return (
        facts.get("base_url") != settings.MODELYARD_PUBLIC_URL
        or facts.get("grpc_target") != _grpc_target()
        or facts.get("mlflow_tracking_uri") != settings.MLFLOW_TRACKING_URI
        or facts.get("staff", {}).keys() != _STAFF.keys()
        or not facts.get("models", {}).keys() >= set(MODELS)
        or not all(_works(token) for token in tokens)
        or not User.objects.filter(username=facts.get("admin_user")).exists()
    )


def create_people(_say: Say) -> str:
    """Create the demo's users, plans, customers and keys; write demo.json.

    The database holds only digests, so passwords and keys that demo.json lacks are
    created again.
    """
    known = read_facts()
    plans = {
        values["name"]: Plan.objects.get_or_create(
            name=values["name"], defaults=values
        )[0]
        for values in _PLANS
    }
    admin, admin_password = _user(_ADMIN, known.get("admin_password"), staff=True)
    if not admin.is_superuser:
        admin.is_superuser = True
        admin.save(update_fields=["is_superuser"])
    staff = {}
    for username, group in _STAFF.items():
        password = known.get("staff", {}).get(username)
        user, staff[username] = _user(username, password, staff=True)
        user.groups.add(Group.objects.get(name=group))
    member, member_password = _user("customer", known.get("customer_password"))
    customer, _ = Customer.objects.get_or_create(
        name="Example Clinic",
        defaults={"plan": plans["Team"], "contact_email": "clinic@example.com"},
    )
    customer.members.add(member)
    bench, _ = Customer.objects.get_or_create(
        name="Benchmark", defaults={"plan": plans["Benchmark"]}
    )
    _write_facts(
        {
            "base_url": settings.MODELYARD_PUBLIC_URL,
            "grpc_target": _grpc_target(),
            "admin_url": f"{settings.MODELYARD_PUBLIC_URL}/admin/",
            "admin_user": admin.username,
            "admin_password": admin_password,
            "api_key": _token(customer, "Demo", known.get("api_key")),
            "bench_api_key": _token(bench, "Benchmark", known.get("bench_api_key")),
            "metrics_url": f"http://{settings.MODELYARD_HOST}:"
            f"{settings.MODELYARD_OPERATOR_PORT}/metrics",
            "customer_user": member.username,
            "customer_password": member_password,
            "staff": staff,
            "mlflow_tracking_uri": settings.MLFLOW_TRACKING_URI,
            "models": {name: {"instances": _instances(name)} for name in MODELS},
        }
    )
    return "admin, dana, alex, olga; customer Example Clinic"


def _user(
    username: str, known_password: str | None, *, staff: bool = False
) -> tuple[User, str]:
    """Return the user and a valid password."""
    user, _ = User.objects.get_or_create(
        username=username, defaults={"is_staff": staff}
    )
    if known_password and user.check_password(known_password):
        return user, known_password
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return user, password


def _token(customer: Customer, name: str, known: str | None) -> str:
    if known and _works(known):
        return known
    return api_keys.issue(customer, name=name, scopes=SCOPES).token


def _works(token: str) -> bool:
    return api_keys.recognise(token) is not None


def _instances(name: str) -> list[Any]:
    """Return two rows of the newest version's input example."""
    newest = ModelVersion.objects.filter(registered_model__name=name).first()
    return newest.input_example[:2] if newest and newest.input_example else []


def _grpc_target() -> str | None:
    """Return the address for gRPC clients on this machine; None if gRPC is off."""
    port: int = settings.MODELYARD_GRPC_PORT
    host = settings.MODELYARD_HOST
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"{host}:{port}" if port else None


def read_facts() -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(settings.HOME.demo.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return facts


def _write_facts(facts: dict[str, Any]) -> None:
    path: Path = settings.HOME.demo
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(facts, file, indent=2)
    partial.replace(path)


def for_staff() -> dict[str, Any] | None:
    """Return facts about the demo for the dashboard; None if this is not a demo."""
    facts = read_facts()
    if "mlflow_tracking_uri" not in facts:
        return None
    return {
        "tracking_uri": facts["mlflow_tracking_uri"],
        "staff": [{"name": name, "group": group} for name, group in _STAFF.items()],
        "facts": settings.HOME.demo,
    }


def card() -> DemoCard:
    """Describe the running demo, with calls made just now; may raise NotAnswering."""
    facts = read_facts()
    url = facts["base_url"]
    admin = f"{facts['admin_user']} / {facts['admin_password']}"
    staff = "\n".join(
        f"         {name} / {facts['staff'][name]}, one of the {group}"
        for name, group in _STAFF.items()
    )
    customer = f"{facts['customer_user']} / {facts['customer_password']}"
    return DemoCard(
        facts=(
            f"Docs     {url}/docs/      try every operation with a key\n"
            f"Admin    {facts['admin_url']}     {admin}\n{staff}\n"
            f"Portal   {url}/portal/    {customer}, a customer\n"
            f"API      {url}/api/v1/\n"
            f"gRPC     {facts['grpc_target'] or 'off'}\n"
            f"Metrics  {facts['metrics_url']}\n"
            f"MLflow   {facts['mlflow_tracking_uri']}\n"
            "Guides   docs/README.md, and what to try first: README.md\n"
            f"All of this, and keys for scripts: {settings.HOME.demo}"
        ),
        examples=(
            _example(facts, "language", "Which language is this?"),
            _example(facts, "breast-cancer", "A row of 30 named columns"),
        ),
    )


def _example(facts: dict[str, Any], model: str, title: str) -> Example:
    """Make a call and return its command and answer; a long body goes into a file."""
    shortest = min(facts["models"][model]["instances"], key=lambda row: len(str(row)))
    body = json.dumps({"instances": [shortest]}, ensure_ascii=False)
    url = f"{facts['base_url']}/api/v1/models/{model}/predict"
    data = shlex.quote(body)
    if len(body) > _LONGEST_PASTED_BODY:
        path = settings.HOME.root / "requests" / f"{model}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)
        # An absolute path, because the shell may be in any folder.
        data = shlex.quote(f"@{path.resolve()}")
    command = (
        f"curl -s {url} -H 'Authorization: Bearer {facts['api_key']}' "
        f"-H 'Content-Type: application/json' -d {data}"
    )
    return Example(title, command, _call(url, facts["api_key"], body))


def _call(url: str, token: str, body: str) -> Any:
    request = urllib.request.Request(
        url,
        data=body.encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise NotAnswering(error.read().decode(errors="replace")) from error
    except (urllib.error.URLError, OSError) as error:
        raise NotAnswering(str(error)) from error
