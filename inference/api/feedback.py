"""Take feedback on calls, one instance or many."""

from collections.abc import Mapping
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.authentication import HasScope
from accounts.models import ApiKey
from inference.api.openapi.shared_schemas import json_body, reference
from inference.errors.api_error import ApiError
from inference.errors.problems import problem, with_facts
from inference.feedback import items, storing
from inference.feedback.items import MOST_ITEMS, Item
from inference.feedback.storing import Kept
from inference.metrics.counts import HERE


class FeedbackView(APIView):
    permission_classes = [IsAuthenticated, HasScope]
    required_scope = "feedback"

    @extend_schema(
        operation_id="sendFeedback",
        summary="Say how good an answer was",
        description='Of one instance, or of up to 100 as `{"feedback": [...]}`, which '
        "are answered one by one. Until seven days after the call; the same again "
        "changes nothing, something else replaces it.",
        request=json_body("FeedbackRequest", "FeedbackListRequest"),
        responses={
            (status, "application/json"): {
                "oneOf": [reference("FeedbackAnswer"), reference("FeedbackListAnswer")]
            }
            for status in (200, 202)
        },
        examples=[
            OpenApiExample(
                "A score",
                value={"request_id": "req_01J8ZK3V5N7Q", "score": 0.9},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request) -> Response:
        key, body, now = cast(ApiKey, request.auth), request.data, timezone.now()
        if isinstance(body, Mapping) and "feedback" in body:
            given = _listed(body)
            storing.spend(key.customer_id, len(given), now=now)
            with storing.given_back(key.customer_id, len(given), now=now):
                results, status = _answer_each(key, given, now=now)
            return Response({"data": results}, status=status)
        storing.spend(key.customer_id, 1, now=now)
        with storing.given_back(key.customer_id, 1, now=now):
            [kept] = storing.keep(key, [_read(body)], now=now)
        if isinstance(kept, ApiError):
            raise kept
        return Response(_facts(kept), status=202 if kept.is_new else 200)


def _listed(body: Mapping[str, Any]) -> list[Any]:
    given = body["feedback"]
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_ITEMS:
        issue = f"must be a list of 1 to {MOST_ITEMS} objects"
        raise with_facts([problem("feedback", issue)])
    unknown = body.keys() - {"feedback"}
    if unknown:
        raise with_facts([problem(str(name), "is not known here") for name in unknown])
    return given


def _read(value: Any) -> Item:
    try:
        return items.read(value)
    except ApiError:
        HERE.add("feedback", "invalid")
        raise


def _answer_each(
    key: ApiKey, given: list[Any], *, now: Any
) -> tuple[list[dict[str, Any]], int]:
    """Keep what can be kept, and say of each of the others why not."""
    read: list[Item | ApiError] = []
    for value in given:
        try:
            read.append(_read(value))
        except ApiError as error:
            read.append(error)
    kept = iter(storing.keep(key, [it for it in read if isinstance(it, Item)], now=now))
    results, status = [], 200
    for value, each in zip(given, read, strict=True):
        outcome = next(kept) if isinstance(each, Item) else each
        if isinstance(outcome, Kept):
            results.append(_facts(outcome))
            status = 202 if outcome.is_new else status
        else:
            results.append(_named(value) | {"error": _error(outcome)})
    return results, status


def _facts(kept: Kept) -> dict[str, Any]:
    model = {"name": kept.event.model, "version": kept.event.version}
    item = kept.item
    return {"request_id": item.request_id, "index": item.index, "model": model}


def _named(value: Any) -> dict[str, Any]:
    """Return what names an item, as far as it was given in the right form."""
    named = value if isinstance(value, Mapping) else {}
    request_id, index = named.get("request_id"), named.get("index", 0)
    return {
        "request_id": request_id if isinstance(request_id, str) else None,
        "index": index if type(index) is int else None,
    }


def _error(error: ApiError) -> dict[str, str]:
    return {"code": str(error.code), "message": error.message}
