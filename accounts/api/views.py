"""Show callers their own key, plan, limits and usage."""

from datetime import datetime
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.admission.limits import Quota
from accounts.api.authentication import HasScope
from accounts.api.serializers import (
    MeSerializer,
    UsageAnswerSerializer,
    UsageQuerySerializer,
)
from accounts.customers import plans
from accounts.models import ApiKey
from accounts.usage import billing, reading

_GROUPS = {"model": ["model"], "version": ["model", "version"], "key": ["key_id"]}


class MeView(APIView):
    @extend_schema(
        operation_id="getMe",
        summary="Your key, plan, limits and quotas",
        tags=["account"],
        responses=MeSerializer,
    )
    def get(self, request: Request) -> Response:
        key = cast(ApiKey, request.auth)
        customer = key.customer
        limits = plans.limits_of(customer)
        own = plans.key_limits_of(key.limited_as, limits)
        now = timezone.now()
        facts = {
            "key_id": key.key_id,
            "name": key.name,
            "mode": key.mode,
            "scopes": key.scopes,
            "allowed_models": key.allowed_models,
            "expires_at": key.expires_at,
            "limits": own
            and {
                "rates": own.rates,
                "max_concurrency": own.max_concurrency,
                "quotas": _quotas(
                    customer.pk, own.quotas, now, key_id=key.quota_key_id
                ),
            },
        }
        answer = MeSerializer(
            {
                "customer": customer.name,
                "key": facts,
                "plan": limits.plan,
                "limits": limits,
                "quotas": _quotas(customer.pk, limits.quotas, now),
            }
        )
        return Response(answer.data)


def _quotas(
    customer_id: int, quotas: tuple[Quota, ...], now: datetime, *, key_id: str = ""
) -> list[dict[str, Any]]:
    """Return how much of each quota is used; with `key_id`, by that key."""
    found = []
    for quota in quotas:
        used, resets_at = reading.quota_used(
            customer_id, quota=quota.name, unit=quota.unit, now=now, key_id=key_id
        )
        found.append(
            {
                "name": quota.name,
                "unit": quota.unit,
                "limit": quota.limit,
                "used": used,
                "resets_at": resets_at,
            }
        )
    return found


class UsageView(APIView):
    permission_classes = [IsAuthenticated, HasScope]
    required_scope = "usage"

    @extend_schema(
        operation_id="getUsage",
        summary="Your usage per minute, hour or day, and what it costs",
        tags=["account"],
        parameters=[UsageQuerySerializer],
        responses=UsageAnswerSerializer,
    )
    def get(self, request: Request) -> Response:
        query = UsageQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        data = billing.over_time(
            cast(ApiKey, request.auth).customer,
            asked["from"],
            asked["to"],
            asked["bucket"],
            *_GROUPS.get(asked.get("group_by", ""), ()),
        )
        return Response(UsageAnswerSerializer({"data": data}).data)
