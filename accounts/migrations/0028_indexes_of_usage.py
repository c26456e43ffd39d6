import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0027_names_that_people_read"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="usage", name="accounts_usage_minute"),
        migrations.RemoveIndex(model_name="usagehour", name="accounts_usagehour_start"),
        migrations.RemoveIndex(model_name="usageday", name="accounts_usageday_start"),
        migrations.AlterField(
            model_name="usage",
            name="customer",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="usage",
                to="accounts.customer",
            ),
        ),
        migrations.AlterField(
            model_name="usagehour",
            name="customer",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                to="accounts.customer",
            ),
        ),
        migrations.AlterField(
            model_name="usageday",
            name="customer",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                to="accounts.customer",
            ),
        ),
        migrations.AddIndex(
            model_name="usage",
            index=models.Index(
                fields=["minute", "customer"], name="accounts_usage_time"
            ),
        ),
        migrations.AddIndex(
            model_name="usage",
            index=models.Index(fields=["model", "minute"], name="accounts_usage_model"),
        ),
        migrations.AddIndex(
            model_name="usagehour",
            index=models.Index(
                fields=["start", "customer"], name="accounts_usagehour_time"
            ),
        ),
        migrations.AddIndex(
            model_name="usageday",
            index=models.Index(
                fields=["start", "customer"], name="accounts_usageday_time"
            ),
        ),
    ]
