"""`modelyard find_call REQUEST_ID`: print the usage events of a recent call."""

import json
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from accounts.metering import spool
from accounts.metering.event import UsageEvent
from inference.controller import ledger
from inference.controller.rollouts import past


class Command(BaseCommand):
    help = (
        "Print the usage events of a request id, oldest first, one JSON object a line,"
        " with the weights and the stage of the rollout that applied."
        f" Raw events are kept for {ledger.KEEP_SEGMENTS.days} days on the machine"
        " whose gateway answered."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("request_id")

    def handle(self, *_: Any, request_id: str, **options: Any) -> None:
        found = sorted(
            spool.find_events(settings.HOME.spool, request_id),
            key=lambda event: event.at,
        )
        if not found:
            raise CommandError(
                f"No call of the last {ledger.KEEP_SEGMENTS.days} days has the request"
                f" id {request_id} on this machine."
            )
        for event in found:
            self.stdout.write(json.dumps(_described(event), ensure_ascii=False))


def _described(event: UsageEvent) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: getattr(event, name) for name in event.__struct_fields__
    }
    facts["at"] = datetime.fromtimestamp(event.at, UTC).isoformat()
    facts["limit"] = event.limit and event.limit.facts()
    facts["dealt"] = event.dealt and msgspec.structs.asdict(event.dealt)
    if event.model:
        facts |= _applied(event.model, datetime.fromtimestamp(event.at, UTC))
    return facts


def _applied(model: str, at: datetime) -> dict[str, Any]:
    """Tell what the route and its rollout said; nothing while the database is away."""
    try:
        return past.facts(model, at)
    except DatabaseError:
        return {}
