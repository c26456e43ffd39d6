from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import F


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Charge what was billed until now: all of a row in which a call was charged."""
    usage = apps.get_model("accounts", "Usage").objects.using(
        schema_editor.connection.alias
    )
    usage.filter(charged_requests__gt=0).update(
        charged_compute_us=F("compute_us"), charged_shap_samples=F("shap_samples")
    )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0010_charged_sums"),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
