from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0009_jobs_by_time"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobchunk",
            name="warnings",
            field=models.JSONField(default=list),
        ),
    ]
