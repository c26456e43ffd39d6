"""Registered models, their versions and aliases, and the routes to them."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from simple_history.models import HistoricalRecords


class RegistrySync(models.Model):
    """The single row about the last synchronisation with MLflow."""

    tracking_uri = models.CharField(max_length=500, blank=True)
    attempted_at = models.DateTimeField(null=True, blank=True)
    succeeded_at = models.DateTimeField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    error = models.TextField(blank=True)
    running_since = models.DateTimeField(
        null=True, blank=True, help_text="Set while one synchronisation runs."
    )
    running_on = models.CharField(
        max_length=500, blank=True, help_text="The machine and folder of the last one."
    )

    class Meta:
        verbose_name = "registry sync"
        verbose_name_plural = "registry sync"
        constraints = [
            models.CheckConstraint(condition=Q(pk=1), name="registry_sync_is_one_row")
        ]

    def __str__(self) -> str:
        return f"sync with {self.tracking_uri}"


class RegisteredModel(models.Model):
    """A name with versions, as in MLflow."""

    name = models.CharField(max_length=255, unique=True)
    description = models.TextField(blank=True)
    tags = models.JSONField(default=dict, blank=True)
    trusted = models.BooleanField(
        default=False,
        help_text="Let the engine load artifacts of this model that execute code "
        "(pickle, Python functions). Only for models whose authors you trust.",
    )
    public = models.BooleanField(
        default=False, help_text="Show the model in the docs to anonymous readers."
    )
    site_default = models.BooleanField(
        default=False, help_text="Answers POST /api/v1/predict when no model is named."
    )
    network = models.BooleanField(
        default=False,
        help_text="Let versions that ask for it open network connections while they "
        "load and predict. Without this, their processes have no network.",
    )
    process = models.JSONField(
        default=dict,
        blank=True,
        help_text='How its processes are run: {"isolation": "own", "replicas": 2, '
        '"max_run_s": 60, "memory_mb": 2000, "recycle_after_calls": 100000}. '
        "Empty: as each version's metadata says.",
    )
    missing_since = models.DateTimeField(
        null=True, blank=True, help_text="When the model disappeared from MLflow."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]
        permissions = [
            ("trust_registeredmodel", "Can let a model's artifacts execute code")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["site_default"],
                condition=Q(site_default=True),
                name="registry_one_site_default",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One immutable artifact with a signature."""

    class ArtifactState(models.TextChoices):
        REMOTE = "remote", "in MLflow only"
        READY = "ready", "in the local cache"
        FAILED = "failed", "could not be fetched"

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="versions"
    )
    version = models.PositiveIntegerField()
    description = models.TextField(blank=True)
    source = models.CharField(max_length=1000, help_text="Artifact URI in MLflow.")
    run_id = models.CharField(max_length=64, blank=True)
    mlflow_status = models.CharField(max_length=32, blank=True)
    registered_at = models.DateTimeField(help_text="When MLflow registered it.")
    tags = models.JSONField(default=dict, blank=True)
    metrics = models.JSONField(default=dict, blank=True)
    flavors = models.JSONField(
        default=list, blank=True, help_text="Names of the MLflow flavors, sorted."
    )
    signature = models.JSONField(
        default=dict, blank=True, help_text="MLflow signature: inputs, outputs, params."
    )
    metadata = models.JSONField(
        default=dict, blank=True, help_text="The `modelyard` part of the metadata."
    )
    metadata_errors = models.JSONField(default=list, blank=True)
    input_example = models.JSONField(
        null=True,
        blank=True,
        help_text="A few instances, in the form that `instances` of a request has.",
    )
    published = models.BooleanField(
        default=False, help_text="Callable by version even when no route names it."
    )
    artifact_state = models.CharField(
        max_length=16, choices=ArtifactState.choices, default=ArtifactState.REMOTE
    )
    artifact_digest = models.CharField(
        max_length=64, blank=True, help_text="Name of its folder in the artifact cache."
    )
    artifact_error = models.TextField(blank=True)
    requirements = models.JSONField(
        default=list,
        blank=True,
        help_text="Packages that it asks for, as lines for pip.",
    )
    python_version = models.CharField(
        max_length=32, blank=True, help_text="The Python that it was logged with."
    )
    environment = models.CharField(
        max_length=64,
        default="base",
        help_text="The environment that its process runs in: base, or a digest.",
    )
    environment_fit = models.JSONField(
        default=dict,
        blank=True,
        help_text="How its requirements compare with that environment.",
    )
    serving_problem = models.TextField(
        blank=True,
        help_text="Why it cannot answer until somebody acts, as the controller found.",
    )
    missing_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["registered_model", "-version"]
        # The admin lists the newest first.
        indexes = [
            models.Index(fields=["-registered_at"], name="registry_version_newest")
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["registered_model", "version"],
                name="registry_version_unique_in_model",
            )
        ]

    def __str__(self) -> str:
        return f"{self.registered_model.name} v{self.version}"


class Alias(models.Model):
    """A movable name for a version, e.g. `champion`."""

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="aliases"
    )
    name = models.CharField(max_length=255)
    version = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, related_name="aliases"
    )

    class Meta:
        verbose_name_plural = "aliases"
        ordering = ["registered_model", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["registered_model", "name"],
                name="registry_alias_unique_in_model",
            )
        ]

    def __str__(self) -> str:
        return self.name


def default_fallback_on() -> list[str]:
    return ["OVERLOADED", "MODEL_UNAVAILABLE", "INFERENCE_TIMEOUT"]


class Route(models.Model):
    """What a caller addresses: a default version and perhaps a canary.

    These are the *desired* variants; `inference` serves them once the engines have
    loaded them. Both weights are in one row so that a database constraint can keep
    their sum at 100.
    """

    class CacheScope(models.TextChoices):
        CUSTOMER = "customer", "each customer has its own"
        EVERYONE = "everyone", "shared by all customers"

    registered_model = models.OneToOneField(
        RegisteredModel, on_delete=models.CASCADE, related_name="route"
    )
    enabled = models.BooleanField(default=True)
    default_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="default_in"
    )
    default_weight_percent = models.PositiveSmallIntegerField(default=100)
    canary_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        related_name="canary_in",
        null=True,
        blank=True,
    )
    canary_weight_percent = models.PositiveSmallIntegerField(default=0)
    low_confidence_below = models.FloatField(
        null=True,
        blank=True,
        help_text="Flags predictions whose score is lower. Empty: the model's own.",
    )
    input_rules = models.JSONField(
        default=dict,
        blank=True,
        help_text='Per column: {"worst area": {"min": 0, "max": 5000}}. Empty: the '
        "model's own.",
    )
    batching = models.JSONField(
        default=dict,
        blank=True,
        help_text='How batches form: {"max_wait_ms": 2, "max_batch_rows": 64, '
        '"max_batch_bytes": 1000000}, within the engine\'s own bounds. Takes effect '
        "within seconds, without loading anything again. Empty: the model's own.",
    )
    replicas = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(64)],
        help_text="Processes that hold each of its versions at the same time, as far "
        "as memory allows. Empty: the version's own.",
    )
    cache_ttl_s = models.PositiveIntegerField(
        "cache for (seconds)",
        default=0,
        validators=[MaxValueValidator(86_400)],
        help_text="Gateways answer the same input again from memory for so long. 0: "
        "off. Versions whose metadata says that they are not deterministic are never "
        "cached.",
    )
    cache_scope = models.CharField(
        max_length=10,
        choices=CacheScope.choices,
        default=CacheScope.CUSTOMER,
        help_text="Shared by all customers, a quick answer tells one of them that "
        "another asked the same.",
    )
    fallback_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        related_name="fallback_in",
        null=True,
        blank=True,
        help_text="Answers instead when the version in charge cannot, marked as such. "
        "It stays loaded and takes the same input.",
    )
    fallback_answer = models.JSONField(
        null=True,
        blank=True,
        help_text="Given as the prediction of every instance when nothing else can "
        'answer, e.g. {"label": "unknown"}. Not charged. Empty: none.',
    )
    fallback_on = models.JSONField(
        default=default_fallback_on,
        blank=True,
        help_text="The errors that a fallback stands in for: OVERLOADED, "
        "MODEL_UNAVAILABLE, INFERENCE_TIMEOUT, MODEL_ERROR.",
    )
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["registered_model__name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(default_weight_percent=100 - F("canary_weight_percent")),
                name="registry_route_weights_sum_to_100",
            ),
            models.CheckConstraint(
                condition=Q(canary_weight_percent__lte=100),
                name="registry_route_canary_weight_at_most_100",
            ),
            models.CheckConstraint(
                condition=Q(canary_version__isnull=False) | Q(canary_weight_percent=0),
                name="registry_route_no_weight_without_canary",
            ),
            models.CheckConstraint(
                condition=Q(canary_version__isnull=True)
                | ~Q(canary_version=F("default_version")),
                name="registry_route_canary_differs_from_default",
            ),
            models.CheckConstraint(
                condition=Q(cache_ttl_s__lte=86_400),
                name="registry_route_cache_ttl_at_most_a_day",
            ),
        ]

    def __str__(self) -> str:
        return f"route {self.registered_model.name}"
