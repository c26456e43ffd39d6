import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0026_waiting_limit_events"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="limitevent",
            options={
                "ordering": ["-at", "-threshold_percent"],
                "verbose_name": "warning",
            },
        ),
        migrations.AlterModelOptions(
            name="usage",
            options={"verbose_name_plural": "usage by minute"},
        ),
        migrations.AlterField(
            model_name="statement",
            name="corrects",
            field=models.ForeignKey(
                blank=True,
                help_text="The statement that it corrects; empty: it closed the month.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="corrections",
                to="accounts.statement",
            ),
        ),
    ]
