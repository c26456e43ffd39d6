"""Find the first key of each rotation that was made before."""

from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    ApiKey = apps.get_model("accounts", "ApiKey")
    first_of: dict[int, str] = {}
    # A key is always older than its heir.
    for key in ApiKey.objects.exclude(replaced_by=None).order_by("pk"):
        first_of[key.replaced_by_id] = first_of.get(key.pk, key.key_id)
    for heir, first in first_of.items():
        ApiKey.objects.filter(pk=heir).update(first_key_id=first)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0016_first_key_of_rotations")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
