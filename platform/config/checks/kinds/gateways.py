"""Look at the gateways: whether they answer, and what keeps them from it."""

from collections.abc import Sequence

from django.conf import settings

from config.checks import presence
from config.checks.finding import Finding, fault, or_well, warning
from config.processes import before_start
from config.processes.before_start import Port
from inference.gateway.operators.reports import GatewayReport
from inference.gateway.settings import gateway_names

TITLE = "Gateways"
# The share of requests above which the sender is a proxy, and no caller who plays.
_MANY = 0.1
_SHOWN = 5

STOPPED = fault(
    "stopped",
    "Modelyard does not run here: no gateway answers.",
    cost="Nothing is predicted, and nobody sees a page.",
    mend="sudo systemctl start modelyard",
)
PORT_TAKEN = fault(
    "port-taken",
    "Port {number} on {host} is taken by another program.",
    cost="Modelyard does not start.",
    mend="sudo ss -ltnp 'sport = :{number}'  # stop it, or change {setting}",
)
AWAY = warning(
    "gateway-away",
    "These gateways do not answer: {names}.",
    cost="The others answer all calls. Without them, nothing is predicted.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep gateway",
)
NOT_READY = fault(
    "not-ready",
    "No model can answer: {names}.",
    cost="Every prediction is answered by 503 MODEL_UNAVAILABLE.",
    mend="curl -sS http://{operators}/readyz",
)
WAITING = warning(
    "model-waits",
    "Some models cannot answer now: {names}.",
    cost="Calls to them are answered by 503 MODEL_UNAVAILABLE.",
    mend="curl -sS http://{operators}/readyz",
)
SPOOL_FAILING = fault(
    "usage-not-written",
    "Usage cannot be written to {folder}.",
    cost="Nothing is predicted, because no answer may leave without its usage.",
    mend="sudo df -h {folder}",
)
LEASES_FAILING = fault(
    "quotas-not-lent",
    "Gateways get no units of quotas from the process `internal`.",
    cost="Calls of customers with quotas are refused once 5 % more are spent.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep lease_refused",
)
UNTRUSTED_PROXY = warning(
    "proxy-not-trusted",
    "{percent:.0f} % of all requests for pages come with X-Forwarded-For from "
    "addresses that are not trusted, the last one from {address}.",
    cost="All visitors behind it count as one address: they share ten sign-ins a "
    "minute, and networks of keys refuse everybody.",
    mend="MODELYARD_TRUSTED_PROXIES={address}  # if that is your proxy",
)
PROBLEMS = (
    STOPPED,
    PORT_TAKEN,
    AWAY,
    NOT_READY,
    WAITING,
    SPOOL_FAILING,
    LEASES_FAILING,
    UNTRUSTED_PROXY,
)


def look() -> list[Finding]:
    reports = presence.gateway_reports()
    stopped = not reports and presence.supervisor() is None
    return judge(
        reports,
        taken=before_start.taken(before_start.ports()) if stopped else (),
        expected=gateway_names(settings.MODELYARD_GATEWAYS),
        operators=f"127.0.0.1:{settings.MODELYARD_OPERATOR_PORT}",
        spool=str(settings.HOME.spool),
    )


def judge(
    reports: Sequence[GatewayReport],
    *,
    expected: Sequence[str],
    taken: Sequence[Port] = (),
    operators: str = "",
    spool: str = "",
) -> list[Finding]:
    if not reports:
        ports = (PORT_TAKEN.found(**port._asdict()) for port in taken)
        return [STOPPED.found(), *ports]
    found = []
    away = [name for name in expected if name not in {it.name for it in reports}]
    if away:
        found.append(AWAY.found(names=", ".join(away)))
    waiting = sorted({name for report in reports for name in report.waiting_for})
    failing = {
        gauge.name for report in reports for gauge in report.gauges if gauge.value
    }
    if "spool_failing" in failing:
        found.append(SPOOL_FAILING.found(folder=spool))
    elif not all(report.ready for report in reports):
        found.append(NOT_READY.found(names=_some(waiting), operators=operators))
    elif waiting:
        found.append(WAITING.found(names=_some(waiting), operators=operators))
    if "leases_failing" in failing:
        found.append(LEASES_FAILING.found())
    relayed = sum(report.relayed for report in reports)
    distrusted = sum(report.distrusted for report in reports)
    if relayed and distrusted > _MANY * relayed:
        address = next(it.distrusted_peer for it in reports if it.distrusted)
        percent = 100 * distrusted / relayed
        found.append(UNTRUSTED_PROXY.found(percent=percent, address=address))
    answer = "1 answers" if len(reports) == 1 else f"{len(reports)} answer"
    return or_well(found, f"{answer}, and every model can be called.")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN] or ["no snapshot has come yet"]) + more
