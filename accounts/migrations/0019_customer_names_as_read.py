from django.db import migrations

import accounts.models.customers


class Migration(migrations.Migration):
    dependencies = [("accounts", "0018_upload_quotas")]

    operations = [
        migrations.AddField(
            model_name="customer",
            name="name_as_read",
            field=accounts.models.customers.NameAsRead(
                blank=True, default="", editable=False, max_length=600
            ),
        ),
    ]
