from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0002_loaded_version_memory"),
    ]

    operations = [
        migrations.AddField(
            model_name="engine",
            name="device_title",
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.AddField(
            model_name="engine",
            name="device_total_bytes",
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="engine",
            name="device_used_bytes",
            field=models.PositiveBigIntegerField(
                default=0, help_text="By anybody, not only by this engine."
            ),
        ),
        migrations.AddField(
            model_name="loadedversion",
            name="notes",
            field=models.TextField(
                blank=True,
                help_text="How it runs: its precision, and why no graphs are used.",
            ),
        ),
    ]
