from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0028_indexes_of_usage"),
    ]

    operations = [
        migrations.AddField(
            model_name=model_name,
            name="slowest_us",
            field=models.PositiveBigIntegerField(null=True),
        )
        for model_name in ("usage", "usagehour", "usageday")
    ]
