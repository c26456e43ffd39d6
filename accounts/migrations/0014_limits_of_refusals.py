from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0013_roll_up_earlier_usage")]

    operations = [
        migrations.AddField(
            model_name="refusal",
            name="limit",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="Which limit it was for, if any, as its caller was told.",
            ),
        ),
    ]
