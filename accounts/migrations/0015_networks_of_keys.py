import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0014_limits_of_refusals")]

    operations = [
        migrations.CreateModel(
            name="KeyNetworks",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("key_id", models.CharField(max_length=32)),
                ("day", models.DateField()),
                (
                    "networks",
                    models.JSONField(default=list, help_text="In order of appearance."),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.customer",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "networks of keys",
                "constraints": [
                    models.UniqueConstraint(
                        fields=["day", "key_id"],
                        name="accounts_key_networks_once_a_day",
                    )
                ],
            },
        ),
        migrations.AlterField(
            model_name="suspicion",
            name="kind",
            field=models.CharField(
                choices=[
                    ("growth", "sudden growth"),
                    ("scanning", "scanning of model names"),
                    ("networks", "many networks"),
                ],
                max_length=16,
            ),
        ),
    ]
