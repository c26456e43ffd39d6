"""Write down how the names of customers read, so that they can be unique."""

from typing import Any

from django.db import migrations

from accounts.models.customers import as_read


def fill(apps: Any, schema_editor: Any) -> None:
    Customer = apps.get_model("accounts", "Customer")
    taken: set[str] = set()
    for pk, name in Customer.objects.order_by("pk").values_list("pk", "name"):
        read = as_read(name)
        # Customers who were told apart by what nobody sees stay: the form asks for
        # another name when one of them is changed. No name reads with a capital
        # letter, so none is the same as what is written for these.
        unique = f"{read[:500]} No. {pk}" if read in taken else read
        taken.add(read)
        Customer.objects.filter(pk=pk).update(name_as_read=unique)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0019_customer_names_as_read")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
