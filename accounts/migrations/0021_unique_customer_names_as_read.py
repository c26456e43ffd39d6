from django.db import migrations, models

import accounts.models.customers


class Migration(migrations.Migration):
    dependencies = [("accounts", "0020_fill_customer_names_as_read")]

    operations = [
        migrations.AlterField(
            model_name="customer",
            name="name_as_read",
            field=accounts.models.customers.NameAsRead(
                blank=True, default="", editable=False, max_length=600, unique=True
            ),
        ),
        migrations.AlterField(
            model_name="customer",
            name="name",
            field=models.CharField(db_index=True, max_length=200),
        ),
        migrations.AlterField(
            model_name="historicalcustomer",
            name="name",
            field=models.CharField(db_index=True, max_length=200),
        ),
    ]
