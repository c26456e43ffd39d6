"""The forms of requests and answers, as the OpenAPI document shows them.

Prediction bodies are read by `inference.decoding`, compiled from each model's own
signature; these serializers describe the parts that all models share.
"""

from typing import Any

from rest_framework import serializers


class OptionsSerializer(serializers.Serializer[Any]):
    top_k = serializers.IntegerField(
        required=False, min_value=1, help_text="Also give the k best scores."
    )
    timeout_ms = serializers.IntegerField(
        required=False, min_value=1, help_text="Shortens the deadline."
    )


class BatchOptionsSerializer(OptionsSerializer):
    batch_size = serializers.IntegerField(
        required=False, min_value=1, help_text="Rows per forward pass at most."
    )
    return_errors = serializers.ChoiceField(
        choices=["fail", "individual"],
        required=False,
        default="fail",
        help_text="`individual`: answer the good rows and name the bad ones.",
    )


class ExplainOptionsSerializer(OptionsSerializer):
    level = serializers.ChoiceField(
        choices=["simple", "full"],
        required=False,
        help_text="`simple`: the five largest attributions.",
    )
    method = serializers.CharField(required=False, default="auto")
    samples = serializers.IntegerField(required=False, min_value=1)
    target = serializers.JSONField(
        required=False, help_text="Label or index of the class to explain."
    )
    seed = serializers.IntegerField(required=False, min_value=0, default=0)


class PredictRequestSerializer(serializers.Serializer[Any]):
    instances = serializers.ListField(
        child=serializers.JSONField(),
        min_length=1,
        help_text="Objects of named columns, or arrays; see the model's signature.",
    )
    parameters = serializers.DictField(required=False)
    options = OptionsSerializer(required=False)


class SitePredictRequestSerializer(PredictRequestSerializer):
    model = serializers.CharField(
        required=False, help_text="Absent: the site's default model."
    )


class BatchRequestSerializer(PredictRequestSerializer):
    options = BatchOptionsSerializer(required=False)


class SiteBatchRequestSerializer(BatchRequestSerializer):
    model = serializers.CharField(
        required=False, help_text="Absent: the site's default model."
    )


class ExplainRequestSerializer(PredictRequestSerializer):
    options = ExplainOptionsSerializer(required=False)


class EmbedOptionsSerializer(serializers.Serializer[Any]):
    normalize = serializers.BooleanField(
        required=False, default=False, help_text="Scale each vector to length 1."
    )
    encoding_format = serializers.ChoiceField(
        choices=["float", "base64"],
        required=False,
        default="float",
        help_text="`base64`: float32 numbers in little endian.",
    )
    timeout_ms = serializers.IntegerField(
        required=False, min_value=1, help_text="Shortens the deadline."
    )


class EmbedRequestSerializer(PredictRequestSerializer):
    options = EmbedOptionsSerializer(required=False)  # type: ignore[assignment]


class InvocationsRequestSerializer(serializers.Serializer[Any]):
    """Exactly one of the four formats."""

    dataframe_split = serializers.DictField(
        required=False, help_text="`columns`, `data` and, if you like, `index`."
    )
    dataframe_records = serializers.ListField(
        child=serializers.DictField(), required=False
    )
    instances = serializers.JSONField(required=False)
    inputs = serializers.JSONField(required=False)
    params = serializers.DictField(
        required=False, help_text="Parameters of the signature; others are ignored."
    )


class InvocationsAnswerSerializer(serializers.Serializer[Any]):
    predictions = serializers.JSONField()


class AnsweringModelSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()
    variant = serializers.CharField(required=False)
    alias = serializers.CharField(required=False)


class WarningSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    code = serializers.CharField()


class AttributionSerializer(serializers.Serializer[Any]):
    feature = serializers.CharField()
    value = serializers.JSONField()
    attribution = serializers.FloatField()


class ExplanationSerializer(serializers.Serializer[Any]):
    method = serializers.CharField()
    level = serializers.CharField()
    base_value = serializers.FloatField()
    target = serializers.JSONField()
    samples = serializers.IntegerField()
    features = AttributionSerializer(many=True)
    additivity_residual = serializers.FloatField()


class PredictAnswerSerializer(serializers.Serializer[Any]):
    predictions = serializers.ListField(child=serializers.JSONField())
    model = AnsweringModelSerializer()
    explanations = ExplanationSerializer(many=True, required=False)
    warnings = WarningSerializer(many=True, required=False)
    request_id = serializers.CharField()


class EmbedAnswerSerializer(serializers.Serializer[Any]):
    embeddings = serializers.ListField(
        child=serializers.JSONField(),
        help_text="A list of numbers per instance, or a text in base64.",
    )
    dimension = serializers.IntegerField()
    model = AnsweringModelSerializer()
    warnings = WarningSerializer(many=True, required=False)
    request_id = serializers.CharField()


class RowErrorSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    code = serializers.CharField()
    field = serializers.CharField(required=False)
    issue = serializers.CharField()


class BatchAnswerSerializer(PredictAnswerSerializer):
    errors = RowErrorSerializer(  # type: ignore[assignment]
        many=True, required=False, help_text="With `return_errors: individual`."
    )


class ExplainAnswerSerializer(PredictAnswerSerializer):
    explanations = ExplanationSerializer(many=True)


class VersionSerializer(serializers.Serializer[Any]):
    version = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField())
    deprecated_at = serializers.DateTimeField(allow_null=True)


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

    signature = serializers.DictField(allow_null=True)
    rules = serializers.DictField(child=serializers.DictField())
    example = serializers.JSONField(allow_null=True)
    limits = serializers.DictField(child=serializers.IntegerField())
