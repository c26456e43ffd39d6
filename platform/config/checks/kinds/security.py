"""Look at settings that weaken the installation, with Django's own warnings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from config.checks.finding import Finding, fault, first_line, or_well, warning
from config.processes import secret_key
from inference.engine import settings as engine_settings
from inference.gateway import settings as gateway_settings

TITLE = "Settings"
# Django's own measure, in security.W009.
_LEAST_LENGTH, _LEAST_DIFFERENT = 50, 5
# They have findings of their own: SECRET_KEY, DEBUG, ALLOWED_HOSTS.
_TOLD = {"security.W009", "security.W018", "security.W020"}
# Others look at the code, which is the same everywhere and takes seconds to import, or
# at the sandbox, which has a finding of its own.
_LOOKED_AT = ("django.core.checks.security.", "accounts.", "registry.")

REFUSED = fault(
    "settings-refused",
    "Gateways or engines refuse their settings: {reason}.",
    cost="`serve` does not start.",
    mend="Correct the setting that the sentence names; docs/settings.md lists all.",
)
DEBUG_ON = fault(
    "debug-on",
    "DEBUG is on.",
    cost="Error pages show settings and code to everybody.",
    mend="DEBUG=false",
)
WEAK_KEY = fault(
    "secret-key-weak",
    "SECRET_KEY is short or simple.",
    cost="Who guesses it can sign in as anybody.",
    mend="SECRET_KEY=$(openssl rand -hex 32)  # or leave it out: the home has its own",
)
KEY_LOST = fault(
    "secret-key-lost",
    "The secret key is lost: this home has served before, and {path} is not there.",
    cost="`serve` does not start; pages and signed links end in errors.",
    mend="Put it back from an encrypted backup, or set SECRET_KEY as before. To do "
    "without it (everybody is signed out): sudo modelyard new_secret_key",
)
ANY_HOST = warning(
    "any-host",
    "ALLOWED_HOSTS lets every name in.",
    cost="Links in mails may lead to a stranger's site.",
    mend="ALLOWED_HOSTS={host}",
)
HOST_UNKNOWN = fault(
    "host-unknown",
    "ALLOWED_HOSTS lacks {host}, the name in MODELYARD_PUBLIC_URL.",
    cost="Every page at the public URL is answered by 400.",
    mend="ALLOWED_HOSTS={host}",
)
NO_HTTPS = warning(
    "https-off",
    "HTTPS is off, but {where}.",
    cost="Passwords and keys travel in the clear.",
    mend="HTTPS=true  # with a proxy that ends TLS",
)
DJANGO = warning(
    "django-check",
    "Django warns: {message} ({id})",
    cost="Django's documentation of {id} says what it means.",
    mend="python manage.py check --deploy",
)
PROBLEMS = (
    REFUSED,
    DEBUG_ON,
    WEAK_KEY,
    KEY_LOST,
    ANY_HOST,
    HOST_UNKNOWN,
    NO_HTTPS,
    DJANGO,
)


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    debug: bool = False
    # Empty if there is none, or if it is not for this user.
    secret_key: str = ""
    # Where it should be, if it is lost.
    lost_key: str = ""
    allowed_hosts: tuple[str, ...] = ()
    public_url: str = ""
    # The address on which gateways listen.
    listens_on: str = "127.0.0.1"
    https: bool = False
    messages: tuple[checks.CheckMessage, ...] = ()
    # Why gateways or engines cannot start with these settings.
    refused: str = ""


def look() -> list[Finding]:
    messages = [
        message
        for check in checks.registry.registry.get_checks(settings.HTTPS)
        if check.__module__.startswith(_LOOKED_AT)
        for message in check(app_configs=None, databases=[])
    ]
    home, key = settings.HOME, secret_key.in_use()
    lost = secret_key.is_lost(home)
    return judge(
        SettingsFacts(
            debug=settings.DEBUG,
            secret_key=key,
            lost_key=str(home.secret_key) if not key and lost else "",
            allowed_hosts=tuple(settings.ALLOWED_HOSTS),
            public_url=settings.MODELYARD_PUBLIC_URL,
            listens_on=settings.MODELYARD_HOST,
            https=settings.HTTPS,
            messages=tuple(messages),
            refused=_why_refused(),
        )
    )


def judge(facts: SettingsFacts) -> list[Finding]:
    found = []
    if facts.refused:
        found.append(REFUSED.found(reason=facts.refused))
    if facts.debug:
        found.append(DEBUG_ON.found())
    key = facts.secret_key
    if facts.lost_key:
        found.append(KEY_LOST.found(path=facts.lost_key))
    if key and (len(key) < _LEAST_LENGTH or len(set(key)) < _LEAST_DIFFERENT):
        found.append(WEAK_KEY.found())
    public = urlsplit(facts.public_url)
    host = public.hostname or ""
    if "*" in facts.allowed_hosts:
        found.append(ANY_HOST.found(host=host))
    elif not validate_host(f"[{host}]" if ":" in host else host, facts.allowed_hosts):
        found.append(HOST_UNKNOWN.found(host=host))
    if not facts.https and (where := _exposed(facts)):
        found.append(NO_HTTPS.found(where=where))
    found += _of_django(facts.messages)
    return or_well(found, "They leave nothing open.")


def _why_refused() -> str:
    environment = {**os.environ, "MODELYARD_PROCESS": ""}
    try:
        gateway_settings.from_environment(environment)
        engine_settings.from_environment(environment)
    except ValueError as error:
        return first_line(error)
    return ""


def _exposed(facts: SettingsFacts) -> str:
    """Say why others may reach this installation; empty: only this machine can."""
    if urlsplit(facts.public_url).scheme == "https":
        return "MODELYARD_PUBLIC_URL begins with https"
    if not _is_loopback(facts.listens_on):
        return f"MODELYARD_HOST={facts.listens_on} can be reached from other machines"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_django(messages: Sequence[checks.CheckMessage]) -> list[Finding]:
    return [
        DJANGO.found(message=first_line(it.msg) + ".", id=it.id)
        for it in messages
        if it.level >= checks.WARNING and not it.is_silenced() and it.id not in _TOLD
    ]
