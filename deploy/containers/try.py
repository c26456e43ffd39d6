"""Start the images in root file systems of their own, and predict through them.

For machines without a container engine; `buildah mount` names the root file system of
an image. Each process is number 1 of its namespaces, has its image's user and no
privileges, a root that it cannot write, its own /tmp, and the parts of one home that
compose.yaml gives it; engines have no network. Run it as root:

    python deploy/containers/try.py GATEWAY_ROOT SITE_ROOT ENGINE_ROOT

It prints how long each process takes to start, and what it refuses and why.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOME = "/var/lib/modelyard"
GROUP = 10001
PATIENCE_S = 180.0
PARTS_OF_GATEWAYS = ("run", "spool", "relayed", "snapshot")
PARTS_OF_ENGINES = ("run", "engine", "logs", "scratch", "artifacts", "environments")
# Of the parts: those that a process only reads.
ONLY_READ = {"snapshot": 10002, "artifacts": 10003, "environments": 10003}
# Mounts the root, then becomes the process. Arguments: root, user, then the command.
ENTER = """
set -eu
root=$1 user=$2; shift 2
mount --make-rprivate /
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in null zero full random urandom; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
while [ "$1" != -- ]; do
    mount --bind "${1%%:*}" "$root${2}"
    [ "$3" = rw ] || mount -o remount,ro,bind "$root${2}"
    shift 3
done
shift
mount -o remount,ro,bind "$root"
ip link set lo up 2>/dev/null || true
exec /usr/sbin/chroot "$root" setpriv --reuid="$user" --regid=10001 --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""
SEED = """
from accounts.admission.limits import SCOPES
from accounts.customers import api_keys
from accounts.models import Customer, Plan
from django.contrib.auth.models import User
from django.core.management import call_command
from registry import artifacts, changes, routes
from registry.models import RegisteredModel, Route
call_command("sync_registry")
admin = User.objects.create_superuser("admin", "", "admin")
[model] = RegisteredModel.objects.all()
if not Route.objects.exists():
    routes.make_default(model.versions.get(), by=admin)
model.public = True
changes.save(model, by=admin, reason="to try it")
artifacts.fetch_wanted(artifacts.connect())
plan = Plan.objects.create(name="Try", burst_requests=1000, sustained_requests=10000)
customer = Customer.objects.create(name="Try", plan=plan)
print("KEY", api_keys.issue(customer, name="try", scopes=SCOPES).token)
"""
EXAMPLE = {
    **{"age": 59, "sex": 2, "body_mass_index": 32.1, "blood_pressure": 101},
    **{"total_cholesterol": 157, "ldl": 93.2, "hdl": 38, "cholesterol_ratio": 4},
    **{"log_triglycerides": 4.8598, "glucose": 87},
}


@dataclass
class Images:
    gateway: Path
    site: Path
    engine: Path


@dataclass
class Place:
    """Where the processes meet: a home, ports, and what they are told."""

    home: Path
    port: int
    variables: dict[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        return {
            "PATH": "/opt/modelyard/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LOG_TO": "stdout",
            "MODELYARD_HOME": HOME,
            "MODELYARD_NEEDS_VOLUME": "true",
            "MODELYARD_HOST": "127.0.0.1",
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_GRPC_PORT": "0",
            "MODELYARD_OPERATOR_PORT": str(self.port + 1),
            "MODELYARD_DEVICES": "cpu",
            **self.variables,
        }


def command(
    root: Path,
    user: int,
    arguments: Sequence[str],
    mounts: Sequence[tuple[Path, str, str]],
    *,
    network: bool = True,
) -> list[str]:
    namespaces = ["--mount", "--pid", "--ipc", "--fork", "--kill-child"]
    if not network:
        namespaces.append("--net")
    named = [str(part) for mount in mounts for part in mount]
    return [
        *("unshare", *namespaces, "sh", "-c", ENTER, "sh", str(root), str(user)),
        *named,
        "--",
        *arguments,
    ]


def whole(place: Place) -> list[tuple[Path, str, str]]:
    return [(place.home, HOME, "rw")]


def parts(place: Place, names: Sequence[str], user: int) -> list[tuple[Path, str, str]]:
    return [
        (
            place.home / name,
            f"{HOME}/{name}",
            "ro" if ONLY_READ.get(name) == user else "rw",
        )
        for name in names
    ]


class Process:
    def __init__(self, name: str, line: list[str], settings: Mapping[str, str]) -> None:
        self.name = name
        self.log = Path(tempfile.mkstemp(prefix=f"try-{name}-")[1])
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                line, stdout=log, stderr=subprocess.STDOUT, env=dict(settings)
            )

    def inner(self) -> int:
        """Return the process number 1 inside, as this machine counts."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def stop(self) -> float:
        """Send SIGTERM to number 1; return how long it took to end."""
        started = time.monotonic()
        with contextlib.suppress(OSError, IndexError):
            os.kill(self.inner(), signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            print(f"{self.name}: does not end on SIGTERM")
            self.process.kill()
            self.process.wait()
        return time.monotonic() - started

    def lines_that_are_no_json(self) -> list[str]:
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                json.loads(line)
            except ValueError:
                found.append(line)
        return found


def once(
    images: Images,
    place: Place,
    image: str,
    user: int,
    arguments: Sequence[str],
    **more: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(getattr(images, image), user, arguments, whole(place)),
        env={**place.settings(), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def made(result: subprocess.CompletedProcess[str]) -> str:
    if result.returncode:
        sys.exit(f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result.stdout


def start(images: Images, place: Place, name: str) -> Process:
    settings = place.settings()
    if name == "gateway":
        line = command(
            images.gateway,
            10002,
            ["python", "-m", "inference.gateway"],
            parts(place, PARTS_OF_GATEWAYS, 10002),
        )
    elif name == "host":
        line = command(
            images.engine,
            10003,
            ["python", "-m", "inference.host", "--devices", "cpu"],
            parts(place, PARTS_OF_ENGINES, 10003),
            network=False,
        )
    else:
        line = command(images.site, 10001, ["modelyard", "run", name], whole(place))
    return Process(name, line, settings)


def healthy(images: Images, place: Place, name: str) -> bool:
    image, user = {"gateway": ("gateway", 10002), "host": ("engine", 10003)}.get(
        name, ("site", 10001)
    )
    root = getattr(images, image)
    arguments = ["python", "-m", "inference.installation.healthy", name]
    done = subprocess.run(
        command(root, user, arguments, whole(place)),
        env=place.settings(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def ask(place: Place, method: str, path: str, key: str = "", body: object = None):
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=30)
    headers = {"content-type": "application/json", "host": "localhost"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError as error:
        return 0, str(error).encode()
    finally:
        connection.close()


def until(condition, what: str, processes: Sequence[Process]) -> float:
    started = time.monotonic()
    while not condition():
        for process in processes:
            if process.process.poll() is not None:
                sys.exit(f"{process.name} ended:\n{process.log.read_text()[-4000:]}")
        if time.monotonic() - started > PATIENCE_S:
            for process in processes:
                print(f"--- {process.name}\n{process.log.read_text()[-1500:]}")
            sys.exit(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - started


@contextlib.contextmanager
def new_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="try-home-", dir="/var/tmp") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        os.chown(home, 10001, GROUP)
        home.chmod(0o2770)
        yield home


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def predict(images: Images, place: Place) -> None:
    made(once(images, place, "site", 10001, ["modelyard", "migrate", "-v0"]))
    store = f"sqlite:///{HOME}/mlflow/mlflow.db"
    script = (
        "import os, runpy, sys, sysconfig; os.umask(0o007);"
        f"os.chdir('{HOME}/mlflow');"
        "examples = sysconfig.get_path('purelib') + '/modelyard/examples';"
        "sys.path.insert(0, examples); sys.argv = ['diabetes.py'];"
        "runpy.run_path(f'{examples}/diabetes.py', run_name='__main__')"
    )
    started = time.monotonic()
    made(
        once(
            *(images, place, "engine", 10001, ["python", "-c", script]),
            MLFLOW_TRACKING_URI=store,
        )
    )
    print(f"trained a model: {time.monotonic() - started:.1f} s")
    seeded = made(
        once(images, place, "site", 10001, ["modelyard", "shell", "-c", SEED])
    )
    key = seeded.rpartition("KEY ")[2].strip()

    processes: list[Process] = []
    try:
        for name in ("internal", "site", "controller", "host", "worker", "beat"):
            processes.append(start(images, place, name))
        for name in ("internal", "site", "controller", "host", "worker", "beat"):
            until(
                lambda n=name: healthy(images, place, n), f"{name} is well", processes
            )
            since = time.monotonic() - processes[0].started
            print(f"{name}: well {since:.1f} s after the start")
        gateway = start(images, place, "gateway")
        processes.append(gateway)
        seconds = until(
            lambda: ask(place, "GET", "/healthz")[0] == 200, "gateway is up", processes
        )
        print(f"gateway: answers {seconds:.2f} s after its start")
        until(lambda: ask(place, "GET", "/readyz")[0] == 200, "ready", processes)
        since = time.monotonic() - processes[0].started
        print(f"all: ready {since:.1f} s after the start")
        status, body = ask(
            *(
                place,
                "POST",
                "/api/v1/models/diabetes/predict",
                key,
                {"instances": [EXAMPLE]},
            )
        )
        print(f"prediction: {status} {body.decode()[:200]}")
        page, _ = ask(place, "GET", "/admin/login/")
        print(f"admin's first page: {page}")
        if (status, page) != (200, 200):
            sys.exit("It does not answer.")
        second = once(images, place, "site", 10001, ["modelyard", "run", "beat"])
        say("a second beat", second)
        other = once(
            *(images, place, "site", 10001, ["modelyard", "run", "worker"]),
            SECRET_KEY=secrets.token_hex(),
        )
        say("a worker with another secret key", other)
        again = subprocess.run(
            command(
                images.gateway,
                10002,
                ["python", "-m", "inference.gateway"],
                parts(place, PARTS_OF_GATEWAYS, 10002),
            ),
            env=place.settings(),
            capture_output=True,
            text=True,
            check=False,
        )
        say("a gateway on a port that is taken", again)
        memory = {process.name: memory_mib(process.inner()) for process in processes}
        print("resident MiB:", memory)
    finally:
        # As `serve` stops them: first those that accept work.
        for process in reversed(processes):
            seconds = process.stop()
            foreign = process.lines_that_are_no_json()
            print(
                f"{process.name}: ended with {process.process.returncode} "
                f"{seconds:.1f} s after SIGTERM; {len(foreign)} lines are no JSON"
            )
            for line in foreign[:3]:
                print(f"    {line[:150]}")
            process.log.unlink()


def memory_mib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) // 1024
    return 0


def say(what: str, done: subprocess.CompletedProcess[str]) -> None:
    last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    print(f"{what}: exit code {done.returncode}: {' '.join(last)}")
    if done.returncode == 0:
        sys.exit("It should have been refused.")


def refusals(images: Images, place: Place) -> None:
    """Start each image with a home that cannot be used."""
    commands = {
        "gateway": (images.gateway, 10002, ["python", "-m", "inference.gateway"]),
        "engine": (
            images.engine,
            10003,
            ["python", "-m", "inference.host", "--devices", "cpu"],
        ),
        "site": (images.site, 10001, ["modelyard", "run", "site"]),
    }
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        foreign = Path(folder) / "foreign"
        foreign.mkdir(mode=0o700)
        homes = {
            "without a volume": [],
            "with a home that is read-only": [(place.home, HOME, "ro")],
            "with a home of another user": [(foreign, HOME, "rw")],
        }
        for how, mounts in homes.items():
            for name, (root, user, arguments) in commands.items():
                done = subprocess.run(
                    command(root, user, arguments, mounts),
                    env=place.settings(),
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=120,
                )
                say(f"{name} {how}", done)


def main() -> None:
    if len(sys.argv) != 4 or os.geteuid() != 0:
        sys.exit(__doc__)
    images = Images(*map(Path, sys.argv[1:]))
    for name in ("gateway", "site", "engine"):
        folder = getattr(images, name) / "opt/modelyard"
        size = subprocess.run(
            ["du", "-sm", folder], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        print(f"{name}: {size} MB over its base")
    with new_home() as home:
        place = Place(home, free_port())
        refusals(images, place)
        predict(images, place)


if __name__ == "__main__":
    main()
