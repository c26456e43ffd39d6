"""Tell staff how a model's route divided its calls: who set which weight when, why."""

from datetime import UTC
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.serializers import DateOrTime, QuerySerializer
from inference.controller.rollouts import past
from inference.errors.api_error import ApiError, ErrorCode
from registry.models import RegisteredModel
from registry.past import route_history

_PAGE = 100


class MayViewRoutes(BasePermission):
    """Admit people who are signed in to the admin and may see routes there."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        user = request.user
        if user is None or not user.is_authenticated:
            raise ApiError(
                ErrorCode.UNAUTHENTICATED,
                "This address is for staff: sign in to the admin first.",
            )
        if not (user.is_staff and user.has_perm("registry.view_route")):
            raise PermissionDenied
        return True


class _HistoryQuery(QuerySerializer):
    at = DateOrTime(required=False)
    cursor = serializers.IntegerField(required=False, min_value=1, max_value=2**62)


class ModelHistoryView(APIView):
    authentication_classes = (SessionAuthentication,)
    permission_classes = (MayViewRoutes,)
    throttle_classes = ()

    # The public document describes what customers may call.
    @extend_schema(exclude=True)
    def get(self, request: Request, model: str) -> Response:
        """List the states of the route, newest first; with `at`, from that one on."""
        query = _HistoryQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        found = RegisteredModel.objects.filter(name=model).first()
        if found is None:
            raise ApiError(ErrorCode.NOT_FOUND, "There is no such model.")
        at = query.validated_data.get("at")
        states = route_history.timeline(
            found,
            until=at,
            before=query.validated_data.get("cursor"),
            most=_PAGE + 1,
        )
        shown = states[:_PAGE]
        more = len(states) > _PAGE
        answer: dict[str, Any] = {
            "data": [past.facts_of(state) for state in shown],
            "next_cursor": str(shown[-1].record_id) if more else None,
        }
        if at is not None:
            answer["at"] = at.astimezone(UTC).isoformat()
            answer |= past.rollouts_facts(past.rollouts_at(model, at))
        return Response(answer)
