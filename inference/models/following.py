"""Who follows models, what people are told, and requests for trust."""

from django.conf import settings
from django.db import models

from inference.models.rollouts import Rollout
from registry.models import ModelVersion, RegisteredModel


class Follow(models.Model):
    """Whether a person wants to be told of a model."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="follows"
    )
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="follows"
    )
    # False: the person stopped, so a change of the route makes no follower again.
    wanted = models.BooleanField(default=True)
    since = models.DateTimeField()
    # The newest version that the person knows of.
    newest_version = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "registered_model"], name="inference_follow_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user} follows {self.registered_model}"


class Message(models.Model):
    """One fact that one person is told, once."""

    class Kind(models.TextChoices):
        NEW_VERSION = "new_version", "new version"
        LOAD_FAILED = "load_failed", "could not be loaded"
        QUARANTINED = "quarantined", "quarantined"
        ROLLOUT = "rollout", "rollout"
        TRUST = "trust", "asks for trust"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="messages"
    )
    # Equal facts have equal keys.
    key = models.CharField(max_length=150)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    registered_model = models.ForeignKey(
        RegisteredModel, on_delete=models.CASCADE, related_name="+"
    )
    version = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, null=True, related_name="+"
    )
    rollout = models.ForeignKey(
        Rollout, on_delete=models.CASCADE, null=True, related_name="+"
    )
    text = models.TextField()
    at = models.DateTimeField()
    read_at = models.DateTimeField(null=True)
    # When to try to mail it next; None: it was mailed, or nobody wants that.
    mail_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "key"], name="inference_message_once"
            )
        ]
        indexes = [
            models.Index(fields=["user", "-at"], name="inference_message_newest"),
            models.Index(
                fields=["mail_at"],
                condition=models.Q(mail_at__isnull=False),
                name="inference_message_to_mail",
            ),
            models.Index(fields=["at"], name="inference_message_oldest"),
        ]

    def __str__(self) -> str:
        return self.text


class MailWish(models.Model):
    """A person who gets messages by e-mail, too."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="+",
    )

    def __str__(self) -> str:
        return str(self.user)


class TrustRequest(models.Model):
    """Somebody asked the administrators to trust a model; trust ends the request."""

    registered_model = models.OneToOneField(
        RegisteredModel, on_delete=models.CASCADE, related_name="+"
    )
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    asked_at = models.DateTimeField()

    def __str__(self) -> str:
        asked_by = self.asked_by or "Somebody"
        return f"{asked_by} asked for trust at {self.asked_at:%Y-%m-%d %H:%M} UTC"
