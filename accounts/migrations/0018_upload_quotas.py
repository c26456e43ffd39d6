import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0017_count_rotated_keys_together")]

    operations = [
        migrations.AddField(
            model_name="historicalplan",
            name="max_upload_bytes",
            field=models.PositiveBigIntegerField(
                default=10000000000,
                help_text="Of all uploads that have not expired.",
                validators=[
                    django.core.validators.MaxValueValidator(9223372036854775807)
                ],
            ),
        ),
        migrations.AddField(
            model_name="historicalplan",
            name="max_uploads",
            field=models.PositiveIntegerField(
                default=1000,
                help_text="Uploads that have not expired. 0: none.",
                validators=[django.core.validators.MaxValueValidator(2147483647)],
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="max_upload_bytes",
            field=models.PositiveBigIntegerField(
                default=10000000000,
                help_text="Of all uploads that have not expired.",
                validators=[
                    django.core.validators.MaxValueValidator(9223372036854775807)
                ],
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="max_uploads",
            field=models.PositiveIntegerField(
                default=1000,
                help_text="Uploads that have not expired. 0: none.",
                validators=[django.core.validators.MaxValueValidator(2147483647)],
            ),
        ),
    ]
