from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="historicalroute",
            name="batching",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text='How batches form: {"max_wait_ms": 2, "max_batch_rows": 64, "max_batch_bytes": 1000000}, within the engine\'s own bounds. Takes effect within seconds, without loading anything again. Empty: the model\'s own.',
            ),
        ),
        migrations.AddField(
            model_name="route",
            name="batching",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text='How batches form: {"max_wait_ms": 2, "max_batch_rows": 64, "max_batch_bytes": 1000000}, within the engine\'s own bounds. Takes effect within seconds, without loading anything again. Empty: the model\'s own.',
            ),
        ),
    ]
