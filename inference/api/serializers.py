"""Serializers of models, for the OpenAPI document.

Prediction bodies have none: `inference.codecs.decoding` compiles a decoder from each
model's signature, and `inference.api.openapi` describes them.
"""

from typing import Any

from rest_framework import serializers


class VersionSerializer(serializers.Serializer[Any]):
    version = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField())
    deprecated_at = serializers.DateTimeField(allow_null=True)
    sunset_at = serializers.DateTimeField(
        allow_null=True, help_text="From then on, calls that name it get 410."
    )
    use_instead = serializers.CharField(
        allow_null=True, help_text="What to call instead, as a sentence."
    )


class ModelSummarySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    task = serializers.CharField(allow_null=True)
    default_version = serializers.CharField(
        allow_null=True, help_text="Null: callable by version only, or not ready yet."
    )
    versions = VersionSerializer(many=True)


class ModelListSerializer(serializers.Serializer[Any]):
    data = ModelSummarySerializer(many=True)  # type: ignore[assignment]
    next_cursor = serializers.CharField(allow_null=True)


class ModelSerializer(ModelSummarySerializer):
    """A model with the signature of the version that answers by default."""

    explainable = serializers.BooleanField()
    signature = serializers.DictField(allow_null=True)
    rules = serializers.DictField(child=serializers.DictField())
    example = serializers.JSONField()
    limits = serializers.DictField(child=serializers.IntegerField())
