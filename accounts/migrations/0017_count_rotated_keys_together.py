"""Find the first key of each rotation that was made before."""

from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    ApiKey = apps.get_model("accounts", "ApiKey")
    # A key is always older than its heir.
    for key in ApiKey.objects.exclude(replaced_by=None).order_by("pk"):
        ApiKey.objects.filter(pk=key.replaced_by_id).update(
            first_key_id=key.first_key_id or key.key_id
        )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0016_first_key_of_rotations")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
