"""Look at the broker: whether it answers, and whether somebody reads its queue."""

from config.checks import impatient, presence
from config.checks.finding import Finding, fault, first_line, well
from config.monitoring import broker

TITLE = "Broker"
# Beat sends about twenty messages a minute.
_MANY = 60

UNREACHABLE = fault(
    "broker-unreachable",
    "The broker does not answer: {reason}.",
    cost="Jobs wait, models are not read from MLflow, and usage is not added up. "
    "Predictions go on.",
    mend="sudo systemctl restart rabbitmq-server  # or correct CELERY_BROKER_URL",
)
UNREAD = fault(
    "queue-unread",
    "Messages that nobody reads wait in the broker: {count}.",
    cost="Jobs wait, models are not read from MLflow, and usage is not added up.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep worker",
)
PROBLEMS = (UNREACHABLE, UNREAD)


def look() -> list[Finding]:
    try:
        # No queue: no worker has made it yet.
        waiting = broker.waiting_messages(timeout_s=impatient.TIMEOUT_S) or 0
    except Exception as error:  # each transport has its own
        return [UNREACHABLE.found(reason=first_line(error))]
    return judge(waiting, running=not presence.not_running())


def judge(waiting: int, *, running: bool) -> list[Finding]:
    if running and waiting > _MANY:
        return [UNREAD.found(count=waiting)]
    return [well(f"It answers; {waiting} messages wait.")]
