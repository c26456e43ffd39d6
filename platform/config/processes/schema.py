"""Compare the database's migrations with this code's, and go back to earlier ones."""

from collections.abc import Iterable

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader


def unknown(recorded: Iterable[tuple[str, str]]) -> list[str]:
    """Return the migrations that a newer version made: this code does not have them."""
    loader = MigrationLoader(None)
    return [
        f"{app}.{name}"
        for app, name in sorted(recorded)
        if app in loader.migrated_apps and (app, name) not in loader.disk_migrations
    ]


def last_of_each_app(recorded: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those migrations after which the same app has no other of them."""
    graph = MigrationLoader(None).graph
    known = {one for one in recorded if one in graph.node_map}
    return [
        node
        for node in sorted(known)
        if not any(
            child.key in known and child.key[0] == node[0]
            for child in graph.node_map[node].children
        )
    ]


def migrate_to(recorded: Iterable[tuple[str, str]]) -> None:
    """Change the database, forwards or backwards, until it has these migrations."""
    MigrationExecutor(connection).migrate(last_of_each_app(recorded))
