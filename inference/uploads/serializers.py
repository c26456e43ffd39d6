"""Serializers of uploads."""

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from inference.codecs.files import uploaded


@extend_schema_serializer(component_name="CreateUpload")
class UploadRequestSerializer(serializers.Serializer):  # type: ignore[type-arg]
    content_type = serializers.ChoiceField(
        choices=sorted(uploaded.CONTENT_TYPES), default="application/json"
    )
    max_bytes = serializers.IntegerField(
        min_value=1,
        max_value=2**50,
        required=False,
        help_text="A smaller limit than the server's own.",
    )


class UploadSerializer(serializers.Serializer):  # type: ignore[type-arg]
    upload_url = serializers.URLField()
    input_uri = serializers.CharField()
    expires_at = serializers.DateTimeField()
    content_type = serializers.CharField()
    max_bytes = serializers.IntegerField()


class StoredUploadSerializer(serializers.Serializer):  # type: ignore[type-arg]
    input_uri = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()
    expires_at = serializers.DateTimeField()
