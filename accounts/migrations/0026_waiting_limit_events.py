from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0025_usage_of_a_model"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="limitevent",
            index=models.Index(
                condition=models.Q(("notified_at", None)),
                fields=["customer"],
                name="accounts_limit_event_waiting",
            ),
        ),
    ]
