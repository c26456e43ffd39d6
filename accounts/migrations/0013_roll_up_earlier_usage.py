import datetime

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models.functions import TruncHour


def mark(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Leave every hour with usage to the worker; until then minutes are read."""
    database = schema_editor.connection.alias
    hours = (
        apps.get_model("accounts", "Usage")
        .objects.using(database)
        .order_by()
        .values_list("customer_id", TruncHour("minute", tzinfo=datetime.UTC))
        .distinct()
    )
    unrolled_hour = apps.get_model("accounts", "UnrolledHour")
    unrolled_hour.objects.using(database).bulk_create(
        (
            unrolled_hour(customer_id=customer_id, hour=hour)
            for customer_id, hour in hours
        ),
        batch_size=500,
        ignore_conflicts=True,
    )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0012_usage_roll_ups"),
    ]

    operations = [migrations.RunPython(mark, migrations.RunPython.noop)]
