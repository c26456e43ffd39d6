from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_refusals"),
    ]

    operations = [
        migrations.AddField(
            model_name="historicalplan",
            name="max_keys",
            field=models.PositiveIntegerField(
                default=20,
                help_text="Active API keys that customers may make themselves. 0: none.",
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="max_keys",
            field=models.PositiveIntegerField(
                default=20,
                help_text="Active API keys that customers may make themselves. 0: none.",
            ),
        ),
    ]
