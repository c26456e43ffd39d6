"""Parameters and answers of the account endpoints."""

import datetime
import re
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from accounts.admission.overrides import UNITS
from accounts.usage import billing

_LONGEST = {
    "minute": datetime.timedelta(days=1),
    "hour": datetime.timedelta(days=31),
    "day": datetime.timedelta(days=366),
}
_DEFAULT = {
    "minute": datetime.timedelta(hours=1),
    "hour": datetime.timedelta(days=1),
    "day": datetime.timedelta(days=30),
}


_OFFSET_AFTER_BLANK = re.compile(r"(:[\d.]+) (\d\d(:?\d\d)?)$", re.ASCII)


class DateOrTime(serializers.DateTimeField):
    """A UTC day (`2026-11-01`) or a point in time (`2026-11-01T10:00:00Z`)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            input_formats=["iso-8601", "%Y-%m-%d"],
            default_timezone=datetime.UTC,
            **kwargs,
        )

    def to_internal_value(self, value: Any) -> Any:
        if isinstance(value, str):
            # In a query `+` is read as a blank, which can mean nothing else here.
            value = _OFFSET_AFTER_BLANK.sub(r"\1+\2", value)
        return super().to_internal_value(value)


class QuerySerializer(serializers.Serializer[Any]):
    """Parameters of a query, each with one value.

    DRF ignores an empty value, and takes the last of several. Both hide mistakes.
    """

    def to_internal_value(self, data: Any) -> Any:
        problems = {}
        for name in data:
            if data[name] == "":
                problems[name] = "It must not be empty."
            elif len(data.getlist(name)) > 1:
                problems[name] = "Send it once."
        if problems:
            raise serializers.ValidationError(problems)
        return super().to_internal_value(data)


class UsageQuerySerializer(QuerySerializer):
    """The query of /usage; `from` is included, `to` is not."""

    bucket = serializers.ChoiceField(
        choices=["minute", "hour", "day"],
        default="day",
        help_text="Minutes are kept for a while only; hours and days stay.",
    )
    group_by = serializers.ChoiceField(
        choices=["model", "version", "key"],
        required=False,
        help_text="`version`: by model and version.",
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `from` cannot be the name of an attribute.
        return {
            "from": DateOrTime(
                required=False,
                help_text="Default: 30 days before `to`; by hour one day, by minute"
                " one hour.",
            ),
            "to": DateOrTime(required=False, help_text="Default: now."),
        } | super().get_fields()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError(
                dict.fromkeys(unknown, "There is no such parameter.")
            )
        bucket = attrs["bucket"]
        if attrs.setdefault("to", timezone.now()).year not in billing.YEARS:
            first, last = billing.YEARS[0], billing.YEARS[-1]
            raise serializers.ValidationError(
                {"to": f"It must be of a year from {first} to {last}."}
            )
        attrs.setdefault("from", attrs["to"] - _DEFAULT[bucket])
        length = attrs["to"] - attrs["from"]
        if length <= datetime.timedelta():
            raise serializers.ValidationError({"from": "It must be before `to`."})
        if length > _LONGEST[bucket]:
            days = _LONGEST[bucket].days
            most = f"{days} days" if days > 1 else "one day"
            raise serializers.ValidationError(
                {"from": f"At most {most} can be asked for by {bucket}."}
            )
        return attrs


class _Amount(serializers.CharField):
    """A decimal number as a string, so that it stays exact."""

    def to_representation(self, value: Any) -> str:
        return billing.plain(value)


class UsageBucketSerializer(serializers.Serializer[Any]):
    """Calls of one minute, hour or day, of one model, version or key if grouped so."""

    start = serializers.DateTimeField(default_timezone=datetime.UTC)
    model = serializers.CharField(required=False)
    version = serializers.CharField(required=False)
    key = serializers.CharField(source="key_id", required=False)
    requests = serializers.IntegerField()
    rows = serializers.IntegerField(
        help_text="That were predicted, those of jobs included; refused ones are not."
    )
    charged_requests = serializers.IntegerField()
    charged_rows = serializers.IntegerField()
    compute_ms = serializers.FloatField()
    shap_samples = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]
    cost = _Amount(help_text="Exact, in the currency of your invoices.")
    cost_per_request = _Amount(
        allow_null=True, help_text="Of requests that are charged, to nine decimals."
    )


class UsageAnswerSerializer(serializers.Serializer[Any]):
    # `data` is what the contract calls it; DRF's own attribute keeps its meaning.
    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {"data": UsageBucketSerializer(many=True)}


class RateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    quota = serializers.IntegerField(help_text="Requests per window.")
    window_s = serializers.IntegerField()


class LimitsSerializer(serializers.Serializer[Any]):
    rates = RateSerializer(many=True)
    max_concurrency = serializers.IntegerField(allow_null=True)
    max_predict_rows = serializers.IntegerField()
    max_batch_rows = serializers.IntegerField()
    max_job_rows = serializers.IntegerField()
    max_body_bytes = serializers.IntegerField(
        allow_null=True, help_text="Of one prediction's body. Null: the site's limit."
    )
    max_jobs_in_flight = serializers.IntegerField(allow_null=True)
    max_uploads = serializers.IntegerField(help_text="That have not expired.")
    max_upload_bytes = serializers.IntegerField(
        help_text="Of all uploads that have not expired."
    )


class QuotaSerializer(serializers.Serializer[Any]):
    name = serializers.ChoiceField(choices=["day", "month"])
    unit = serializers.ChoiceField(choices=UNITS)
    limit = serializers.IntegerField()
    used = serializers.IntegerField(help_text="About a second behind.")
    resets_at = serializers.DateTimeField(default_timezone=datetime.UTC)


class KeyLimitsSerializer(serializers.Serializer[Any]):
    """What one key may use of its customer's limits."""

    rates = RateSerializer(many=True)
    max_concurrency = serializers.IntegerField(allow_null=True)
    quotas = QuotaSerializer(many=True)


class KeySerializer(serializers.Serializer[Any]):
    id = serializers.CharField(source="key_id")
    name = serializers.CharField()
    mode = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    models = serializers.ListField(
        source="allowed_models",
        child=serializers.CharField(),
        help_text="Empty: every model.",
    )
    expires_at = serializers.DateTimeField(
        allow_null=True, default_timezone=datetime.UTC
    )
    limits = KeyLimitsSerializer(
        allow_null=True, help_text="Null: it may use all that its customer may."
    )


class MeSerializer(serializers.Serializer[Any]):
    """The caller's own key, plan, limits and quotas."""

    customer = serializers.CharField()
    key = KeySerializer()
    plan = serializers.CharField()
    limits = LimitsSerializer()
    quotas = QuotaSerializer(many=True)
