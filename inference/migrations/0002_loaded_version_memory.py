from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="loadedversion",
            name="memory_bytes",
            field=models.PositiveBigIntegerField(
                default=0, help_text="Measured when it was loaded."
            ),
        ),
        migrations.AlterField(
            model_name="loadedversion",
            name="state",
            field=models.CharField(
                choices=[
                    ("loading", "loading"),
                    ("ready", "ready"),
                    ("failed", "failed"),
                    ("evicted", "loads when called"),
                ],
                max_length=16,
            ),
        ),
    ]
