"""What customers are told beyond their limits."""

from django.db import models

from accounts.models.customers import Customer


class Notice(models.Model):
    """A message to a customer: mailed once, and shown in the portal until it ends."""

    customer = models.ForeignKey(
        Customer, on_delete=models.CASCADE, related_name="notices"
    )
    # What it is about, e.g. `deprecation 7`; a customer has one notice of each.
    about = models.CharField(max_length=100)
    subject = models.CharField(max_length=300)
    text = models.TextField()
    until = models.DateTimeField()
    notified_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["until", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "about"], name="accounts_notice_once_about"
            ),
        ]

    def __str__(self) -> str:
        return self.subject
