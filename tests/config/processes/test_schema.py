"""Going back one version undoes the migrations since then."""

import json

import pytest

from tests.end_to_end.test_backup import empty_database, run

ADD = """
import django; django.setup()
from accounts.models import Plan
Plan.objects.create(name="kept")
"""
READ = """
import django; django.setup()
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
import json
with connection.cursor() as cursor:
    cursor.execute("SELECT name FROM accounts_plan")
    print(json.dumps([cursor.fetchall(), sorted(
        name for app, name in MigrationRecorder(connection).applied_migrations()
        if app == "accounts"
    )[-1]]))
"""


def test_the_database_goes_back_to_what_was_printed_and_keeps_its_rows(tmp_path, db):
    home = tmp_path / "home"
    with empty_database(tmp_path) as url:
        run(["manage.py", "migrate", "-v", "0"], home, url)
        run(["-c", ADD], home, url)
        now = run(["manage.py", "schema"], home, url)
        assert "accounts 0033_uses_of_fields\n" in now
        before = tmp_path / "before.txt"
        before.write_text(now.replace("0033_uses_of_fields", "0032_notices"))

        then = run(["manage.py", "schema", "--back-to", before], home, url)
        assert then == before.read_text()
        assert json.loads(run(["-c", READ], home, url)) == [
            [["kept"]],
            "0032_notices",
        ]
        before.write_text("accounts 9999_newer\n")
        with pytest.raises(AssertionError, match=r"not know accounts\.9999"):
            run(["manage.py", "schema", "--back-to", before], home, url)
        run(["manage.py", "migrate", "-v", "0"], home, url)
        assert run(["manage.py", "schema"], home, url) == now
