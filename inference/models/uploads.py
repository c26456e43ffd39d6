"""Files that customers upload and name in later requests."""

from django.db import models

from accounts.models import Customer


class Upload(models.Model):
    """A file that a customer uploads and names as `input_uri` later.

    The row exists before the file; `stored_at` is set once the file is complete.
    """

    id = models.CharField(primary_key=True, max_length=40)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    content_type = models.CharField(max_length=100)
    max_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    stored_at = models.DateTimeField(null=True, blank=True)
    # Name in the storage; empty once the file is deleted.
    file = models.CharField(max_length=200, blank=True)
    bytes = models.PositiveBigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.id
