from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models.functions import Length, Substr

_LONGEST = 100


def cut(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Cut long reasons: the field of earlier versions ends after 100 characters."""
    for name in ("HistoricalRegisteredModel", "HistoricalRoute"):
        records = apps.get_model("registry", name).objects.using(
            schema_editor.connection.alias
        )
        long = records.annotate(length=Length("history_change_reason"))
        long.filter(length__gt=_LONGEST).update(
            history_change_reason=Substr("history_change_reason", 1, _LONGEST)
        )


class Migration(migrations.Migration):
    dependencies = [("registry", "0009_override_schema_with_a_reason")]

    operations = [migrations.RunPython(migrations.RunPython.noop, cut)]
