"""Code of before an upgrade writes to the new schema until it is replaced."""

import pytest
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AddField,
    CreateModel,
    DeleteModel,
    RemoveField,
    RenameField,
    RenameModel,
)

# The newest migrations of the oldest code that may run beside this one.
OLDEST = {"accounts": 29, "inference": 12, "registry": 7}
GOES_AWAY = (DeleteModel, RemoveField, RenameField, RenameModel)


def operations():
    """Yield what was done to tables that the oldest code has."""
    loader = MigrationLoader(None)
    made = set()
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if int(name[:4]) <= OLDEST.get(app, 9999):
            continue
        for operation in migration.operations:
            if isinstance(operation, CreateModel):
                made.add((app, operation.name_lower))
            elif (app, getattr(operation, "model_name_lower", "")) not in made:
                yield f"{app}.{name}", operation


def test_nothing_goes_away_that_old_code_uses():
    gone = [
        f"{name}: {operation.describe()}"
        for name, operation in operations()
        if isinstance(operation, GOES_AWAY)
    ]

    assert gone == []


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(it, id=f"{name} {it.model_name}.{it.name}")
        for name, it in operations()
        if isinstance(it, AddField)
    ],
)
def test_old_code_may_leave_a_new_column_out(operation):
    field = operation.field

    assert field.null or field.has_db_default() or field.many_to_many
