"""Registered models, their versions and aliases, and the routes to them."""

from collections.abc import Sequence

from django.conf import settings
from django.core.validators import (
    MaxValueValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from simple_history.models import HistoricalRecords

from registry.shares import canaries, constraints
from registry.shares.canaries import Canary


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
    # Reasons are kept whole: the usual field ends after 100 characters.
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
    params = models.JSONField(
        default=dict,
        db_default={},
        blank=True,
        help_text="Parameters of its training run.",
    )
    trained_by = models.CharField(
        max_length=255,
        blank=True,
        help_text="Whose training run it was, for MLflow.",
        db_default="",
    )
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


class RolloutPlan(models.Model):
    """A named plan by which canaries become defaults; see `rules/rollout_plans.py`."""

    name = models.CharField(max_length=100, unique=True)
    plan = models.JSONField(
        default=dict,
        blank=True,
        help_text='What differs from the usual plan, e.g. {"stages": '
        '[{"weight_percent": 5, "least_minutes": 10, "least_calls": 100}], '
        '"last_step": "second_person"}.',
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


def default_fallback_on() -> list[str]:
    return ["OVERLOADED", "MODEL_UNAVAILABLE", "INFERENCE_TIMEOUT"]


def _further_canary() -> "models.ForeignKey[ModelVersion | None]":
    return models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )


class Route(models.Model):
    """What a caller addresses: a default version and up to four canaries.

    These are the *desired* variants; `inference` serves them once the engines have
    loaded them. All weights are in one row so that a database constraint can keep
    their sum at 100. `registry/shares/canaries.py` reads and writes the canaries.
    """

    # Its fields that name versions.
    VERSIONS = (
        "default_version",
        *canaries.VERSIONS,
        "fallback_version",
        "shadow_version",
    )

    class CacheScope(models.TextChoices):
        CUSTOMER = "customer", "each customer has its own"
        EVERYONE = "everyone", "shared by all customers"

    class Sticky(models.TextChoices):
        OFF = "off", "no: exact shares of all calls"
        KEY = "key", "by API key"
        HEADER = "header", "by the header X-Sticky-Key"

    class AliasFollows(models.TextChoices):
        OFF = "off", "neither moves the other"
        PROMOTION = "promotion", "promoting moves the alias"
        ALIAS = "alias", "moving the alias promotes"
        BOTH = "both", "both: each moves the other"

    class AliasStarts(models.TextChoices):
        DEFAULT = "default", "the version becomes the default at once"
        ROLLOUT = "rollout", "a rollout by the route's plan starts"

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
        related_name="+",
        null=True,
        blank=True,
    )
    canary_weight_percent = models.PositiveSmallIntegerField(default=0)
    canary_2_version = _further_canary()
    canary_2_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    canary_3_version = _further_canary()
    canary_3_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    canary_4_version = _further_canary()
    canary_4_weight_percent = models.PositiveSmallIntegerField(default=0, db_default=0)
    sticky = models.CharField(
        "callers keep their version",
        max_length=8,
        choices=Sticky.choices,
        default=Sticky.OFF,
        db_default=Sticky.OFF,
        help_text="While weights stay as they are. Rollouts then count keys instead of "
        "calls, and need more of them. Calls with X-Sticky-Key keep their version in "
        "any case; only by the header do they count as evidence.",
    )
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
    rollout_plan = models.ForeignKey(
        RolloutPlan,
        on_delete=models.PROTECT,
        related_name="routes",
        null=True,
        blank=True,
        help_text="How its canaries become the default. Empty: the usual plan.",
    )
    alias = models.CharField(
        max_length=255,
        blank=True,
        validators=[RegexValidator(r"^(?!latest$|[vV]\d+$)[\w-]+$")],
        help_text="The alias in MLflow that names its default, e.g. champion.",
        db_default="",
    )
    alias_follows = models.CharField(
        "alias and default",
        max_length=16,
        choices=AliasFollows.choices,
        default=AliasFollows.OFF,
        db_default=AliasFollows.OFF,
        help_text="From the next change on.",
    )
    alias_starts = models.CharField(
        "when the alias was moved",
        max_length=16,
        choices=AliasStarts.choices,
        default=AliasStarts.DEFAULT,
        db_default=AliasStarts.DEFAULT,
        help_text="Only if moving the alias promotes.",
    )
    shadow_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        related_name="shadow_in",
        null=True,
        blank=True,
        help_text="Gets copies of predict calls after the default has answered them, "
        "and answers nobody. Not charged.",
    )
    shadow_percent = models.PositiveSmallIntegerField(
        "share of the shadow (%)",
        default=0,
        db_default=0,
        validators=[MaxValueValidator(100)],
        help_text="So many percent of the default's predict calls are copied.",
    )
    shadow_tolerance_percent = models.FloatField(
        "tolerance (%)",
        default=1.0,
        db_default=1.0,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
        help_text="Numbers of the shadow that differ by no more than this are the "
        "same answer. Labels have to be equal.",
    )
    keeps_examples = models.BooleanField(
        "keep examples",
        default=False,
        db_default=False,
        help_text="Keep up to 100 inputs of callers that the shadow answered "
        "otherwise, each for at most 7 days.",
    )
    updated_at = models.DateTimeField(auto_now=True)
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    # Reasons are kept whole: the usual field ends after 100 characters.
    history = HistoricalRecords()

    class Meta:
        ordering = ["registered_model__name"]
        permissions = [
            ("override_schema", "Can give calls to a version that breaks callers")
        ]
        constraints = [
            models.CheckConstraint(
                condition=constraints.weights_sum_to_100(),
                name="registry_route_weights_sum_to_100",
            ),
            models.CheckConstraint(
                condition=constraints.no_weight_without_canary(),
                name="registry_route_no_weight_without_canary",
            ),
            models.CheckConstraint(
                condition=constraints.versions_differ(),
                name="registry_route_versions_differ",
            ),
            models.CheckConstraint(
                condition=Q(shadow_version__isnull=True)
                | ~Q(shadow_version=F("default_version")),
                name="registry_route_shadow_differs_from_default",
            ),
            models.CheckConstraint(
                condition=Q(shadow_percent=0)
                | Q(shadow_version__isnull=False, shadow_percent__lte=100),
                name="registry_route_shadow_share_of_a_shadow",
            ),
            models.CheckConstraint(
                condition=Q(cache_ttl_s__lte=86_400),
                name="registry_route_cache_ttl_at_most_a_day",
            ),
            models.CheckConstraint(
                condition=Q(alias_follows="off") | ~Q(alias=""),
                name="registry_route_follows_a_named_alias",
            ),
        ]

    def __str__(self) -> str:
        return f"route {self.registered_model.name}"

    @property
    def canaries(self) -> tuple[Canary[ModelVersion], ...]:
        return canaries.of(self)

    def set_canaries(self, chosen: Sequence[Canary[ModelVersion]]) -> None:
        for name, value in canaries.columns(chosen).items():
            setattr(self, name, value)

    def weight_of(self, version_id: int) -> int | None:
        """Return the weight of a canary; None if the version is none of them."""
        return dict(canaries.of(self, suffix="_id")).get(version_id)


class AliasState(models.Model):
    """Where the alias of a route stands in MLflow, and where it has to stand."""

    route = models.OneToOneField(
        Route, on_delete=models.CASCADE, related_name="alias_state"
    )
    # Where it stood when that was last dealt with; None: nowhere.
    seen_version = models.PositiveIntegerField(null=True, blank=True)
    # Where it still has to be set in MLflow; None: nowhere.
    wanted_version = models.PositiveIntegerField(null=True, blank=True)
    problem = models.TextField(blank=True)
    # Grows with each writing of the fields above.
    revision = models.PositiveBigIntegerField(default=0)
    # One process at a time moves it.
    claimed_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"alias of {self.route}"


class Deprecation(models.Model):
    """The announced end of a model, or of one version of it."""

    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="deprecations"
    )
    version = models.ForeignKey(
        ModelVersion,
        on_delete=models.CASCADE,
        related_name="deprecations",
        null=True,
        blank=True,
        help_text="It ends for those who call it by its number or an alias; the route "
        "goes on. Empty: the whole model ends.",
    )
    deprecated_at = models.DateTimeField(
        default=timezone.now, help_text="From then on, callers should use another."
    )
    ends_at = models.DateTimeField(help_text="From then on, calls get 410.")
    use_instead = models.CharField(
        max_length=500,
        help_text="A sentence for callers, e.g. Use version 4, which takes the same "
        "input.",
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["ends_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["registered_model"],
                condition=Q(version=None),
                name="registry_one_deprecation_of_a_model",
            ),
            models.UniqueConstraint(
                fields=["version"], name="registry_one_deprecation_of_a_version"
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gte=F("deprecated_at")),
                name="registry_deprecation_ends_after_it_begins",
            ),
        ]

    def __str__(self) -> str:
        named = self.registered_model if self.version is None else self.version
        return f"end of {named}"
