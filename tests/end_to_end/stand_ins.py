"""Replace a machine's own programs for the commands of docs/install.md.

Each program is this file under another name, first in PATH. They do not change the
machine: `sudo` does not switch users, and /opt, /etc and /var are below one folder.
"""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

FACTS = {}
if "STAND_INS" in os.environ:
    FACTS = json.loads(Path(os.environ["STAND_INS"]).read_text())
ROOT = Path(FACTS.get("root", "/"))


def translate(text):
    """Replace paths, ports and names of services by those of the test."""
    for pattern, replacement in FACTS["translations"]:
        text = re.sub(pattern, replacement, text)
    return text


def run(command, **options):
    sys.exit(subprocess.run(command, **options).returncode)


def sudo(arguments):
    if arguments[0] == "-u":
        arguments = arguments[2:]
    if arguments[0] == "deploy/setup.sh":
        # This checkout's packages are used; to install others would take minutes.
        assert Path(arguments[0]).is_file()
        return
    run(arguments)


def apt_get(arguments):
    assert arguments[0] in ("update", "install")


def adduser(arguments):
    assert arguments[-1] == "modelyard"


def git(arguments):
    match arguments:
        case ["clone", _, target]:
            subprocess.run([FACTS["git"], *arguments, "-q"], check=True)
            Path(target, ".venv").symlink_to(FACTS["venv"])
        case ["pull"]:
            target = "."
            subprocess.run([FACTS["git"], "checkout", "-q", "deploy"], check=True)
            subprocess.run([FACTS["git"], "pull", "-q"], check=True)
        case _:
            sys.exit(f"git {arguments}?")
    for path in Path(target, "deploy").rglob("*"):
        if path.is_file():
            path.write_text(translate(path.read_text()))


def install(arguments):
    given = iter(arguments)
    kept = []
    for argument in given:
        if argument in ("-o", "-g"):
            next(given)
        else:
            kept.append(argument)
    run([FACTS["install"], *kept])


def psql(arguments):
    import psycopg

    kind, statement = arguments
    assert kind == "-c"
    with psycopg.connect(FACTS["postgres"], autocommit=True) as connection:
        connection.execute(statement)


def createdb(arguments):
    kind, owner, name = arguments
    assert kind == "--owner"
    psql(["-c", f"CREATE DATABASE {name} OWNER {owner}"])


def rabbitmqctl(arguments):
    if FACTS["rabbitmqctl"]:
        run([FACTS["rabbitmqctl"], "-q", *arguments])


def nginx(arguments):
    run(
        [
            FACTS["nginx"],
            "-p",
            str(ROOT),
            "-c",
            f"{ROOT}/etc/nginx/nginx.conf",
            *arguments,
        ]
    )


def systemctl(arguments):
    match arguments:
        case ["daemon-reload"]:
            return
        case ["enable", "--now", unit] | ["start", unit]:
            _start(unit)
        case ["reload", "nginx"]:
            # `nginx -t` leaves an empty file.
            pid = ROOT / "nginx.pid"
            running = pid.exists() and pid.read_text()
            nginx(["-s", "reload"] if running else [])
        case ["stop", unit]:
            service = _running(unit)
            service.terminate()
            service.wait()
        case ["status", unit]:
            print(_running(unit).status())
        case _:
            sys.exit(f"systemctl {arguments}?")


def _running(name):
    import psutil

    return psutil.Process(int((ROOT / f"{name}.pid").read_text()))


def journalctl(arguments):
    """Print the journal without `-f`, which nobody here would end."""
    kind, unit, *_ = arguments
    assert kind == "-u"
    print((ROOT / f"{unit}.journal").read_text()[-2000:])


def _start(name):
    """Start a unit's command with its environment, in its folder."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / f"etc/systemd/system/{name}.service")
    service = unit["Service"]
    lines = Path(service["EnvironmentFile"]).read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line and line[0] != "#"]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH")}
    with (ROOT / f"{name}.journal").open("ab") as journal:
        process = subprocess.Popen(
            shlex.split(service["ExecStart"]),
            cwd=service["WorkingDirectory"],
            env=kept | dict(pairs),
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            start_new_session=True,
        )
    (ROOT / f"{name}.pid").write_text(str(process.pid))


PROGRAMS = {
    "sudo": sudo,
    "apt-get": apt_get,
    "adduser": adduser,
    "git": git,
    "install": install,
    "psql": psql,
    "createdb": createdb,
    "rabbitmqctl": rabbitmqctl,
    "nginx": nginx,
    "systemctl": systemctl,
    "journalctl": journalctl,
}


def put_into(folder, python):
    """Make the programs in a folder of PATH."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {python} {__file__} {name} "$@"\n')
        program.chmod(0o755)


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2:])
