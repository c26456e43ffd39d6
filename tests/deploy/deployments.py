"""Read the ways to deploy Modelyard into one shape, and compare them with the code.

The process table in `config/processes/specs.py` is what they must agree with.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.deploy import chart

ROOT = Path(__file__).resolve().parents[2]
HOME = "/var/lib/modelyard"
PORTS = frozenset({8000, 8001, 8002})
# What an image or the shell sets, the same everywhere.
SET_BY_IMAGES = frozenset(
    {"DJANGO_SETTINGS_MODULE", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
)
# Libraries read these by themselves.
_OF_LIBRARIES = re.compile(
    r"(AWS|AZURE|GOOGLE|PIP|NVIDIA|MLFLOW)_\w+|\w+_PROXY|TMPDIR|HOME"
)


@dataclass(frozen=True)
class Process:
    command: tuple[str, ...]
    variables: frozenset[str]
    # How long it may take to stop; phases that stop earlier end earlier.
    stop_s: float
    stop_order: int
    # Whether `stop_s` includes the time of those that stop earlier.
    shares_time: bool = True
    has_home: bool = True
    # Of those that see only parts of the home: the parts, and whether they may write.
    parts: frozenset[tuple[str, bool]] = frozenset()


@dataclass(frozen=True)
class Deployment:
    name: str
    processes: Mapping[str, Process]
    ports: frozenset[int]


def documented_variables():
    """Return the names in the tables of docs/settings.md."""
    rows = re.findall(
        r"^\| (`.+?) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
    )
    return frozenset(re.findall(r"[A-Z][A-Z0-9_]+", " ".join(rows)))


def assigned(text):
    """Return the variables of an environment file and their values."""
    return dict(re.findall(r"^([A-Z]\w+)=(.*)$", text, re.MULTILINE))


def of_chart(folder=chart.CHART, values=chart.PRODUCTION):
    objects = chart.render(values, chart=folder)
    spec = chart.pod_specs(objects)["modelyard"]
    sidecars = [
        each for each in spec["initContainers"] if each.get("restartPolicy") == "Always"
    ]
    delay_s = max(
        each.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for each in spec["containers"]
    )
    left_s = spec["terminationGracePeriodSeconds"] - delay_s
    # The cluster stops sidecars in reverse order, after all other containers.
    order = {each["name"]: number for number, each in enumerate(reversed(sidecars), 1)}
    return Deployment(
        "deploy/helm",
        {
            each["name"]: Process(
                command=tuple(each["command"]),
                variables=frozenset(chart.environment(each)),
                stop_s=left_s,
                stop_order=order.get(each["name"], 0),
                has_home=any(
                    mount["mountPath"].startswith(HOME)
                    for mount in each["volumeMounts"]
                ),
                parts=frozenset(
                    (mount["subPath"], not mount["readOnly"])
                    for mount in each["volumeMounts"]
                    if "subPath" in mount
                ),
            )
            for each in (*sidecars, *spec["containers"])
        },
        frozenset(
            port["containerPort"]
            for each in spec["containers"]
            for port in each.get("ports", [])
        ),
    )


@dataclass(frozen=True)
class Image:
    """What a target of the Dockerfile says to those that run it."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    variables: frozenset[str]
    ports: frozenset[int]


def images(dockerfile):
    """Return the targets of a Dockerfile, with what they have from others."""
    found = {}
    text = dockerfile.replace("\\\n", " ")
    for section in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        base, name = re.match(r"(\S+) AS (\S+)", section).groups()
        above = found.get(base, Image((), (), frozenset(), frozenset()))
        entrypoint = re.search(r"^ENTRYPOINT (\[.*\])$", section, re.MULTILINE)
        command = re.search(r"^CMD (\[.*\])$", section, re.MULTILINE)
        environment = " ".join(re.findall(r"^ENV (.*)$", section, re.MULTILINE))
        exposed = " ".join(re.findall(r"^EXPOSE (.*)$", section, re.MULTILINE))
        found[name] = Image(
            tuple(json.loads(entrypoint[1])) if entrypoint else above.entrypoint,
            tuple(json.loads(command[1])) if command else above.command,
            above.variables | set(re.findall(r"(\w+)=", environment)) - {"PATH"},
            above.ports | set(map(int, exposed.split())),
        )
    return found


def of_compose(document, dockerfile, *, profile):
    """Read compose.yaml with one of its profiles, `cpu` or `gpu`."""
    made = images(dockerfile)
    services = {
        # One of the two hosts runs.
        name.removesuffix("-gpu"): service
        for name, service in document["services"].items()
        if profile in service.get("profiles", [profile])
        and re.match(r"modelyard-(gateway|engine|site):", service["image"])
        # Others end by themselves, or have a program of their own.
        and service.get("restart") != "no"
        and "entrypoint" not in service
    }
    order = dict.fromkeys(services, 0)
    for _ in services:
        # Compose stops a service after those that depend on it.
        for name, service in services.items():
            for needed in service.get("depends_on", {}):
                needed = needed.removesuffix("-gpu")
                if needed in order:
                    order[needed] = max(order[needed], order[name] + 1)
    processes, ports = {}, frozenset()
    for name, service in services.items():
        image = made[re.match(r"modelyard-(\w+)", service["image"])[1]]
        mounts = service.get("volumes", [])
        processes[name] = Process(
            command=(*image.entrypoint, *service.get("command", image.command)),
            variables=frozenset(service["environment"]) | image.variables,
            stop_s=float(service.get("stop_grace_period", "10s").removesuffix("s")),
            stop_order=order[name],
            shares_time=False,
            has_home="home" in json.dumps(mounts),
            parts=frozenset(
                (mount["volume"]["subpath"], not mount.get("read_only", False))
                for mount in mounts
                if isinstance(mount, dict)
            ),
        )
        ports |= image.ports
    return Deployment(f"compose.yaml, {profile}", processes, ports)


def of_unit(unit, environment, table):
    """Read systemd's unit, which starts all processes of the table by `serve`."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    variables = assigned(environment)
    served = settings["ExecStart"].split()[-1] == "serve"
    home = f"/var/lib/{settings['StateDirectory']}"
    return Deployment(
        "deploy/systemd",
        {
            name: Process(
                command=("modelyard", "run", name),
                # `serve` passes on what all must agree on, and hides credentials.
                variables=(frozenset(variables) | set(spec.environment) - {"LOG_TO"})
                - spec.hidden,
                stop_s=float(settings["TimeoutStopSec"]),
                stop_order=spec.stop_phase,
                has_home=variables["MODELYARD_HOME"] == home,
            )
            for name, spec in (table if served else {}).items()
        },
        frozenset(
            int(value) for name, value in variables.items() if name.endswith("PORT")
        ),
    )


def complaints(deployment, table):
    """Return in words where a deployment and the table of processes differ."""
    known = documented_variables() | SET_BY_IMAGES
    production = assigned((ROOT / "deploy/modelyard.env").read_text())
    found = [f"{name} is missing" for name in set(table) - set(deployment.processes)]
    found += [f"port {port} is not open" for port in PORTS - deployment.ports]
    for name, process in deployment.processes.items():
        if name not in table:
            found.append(f"{name} is not in the table of processes")
            continue
        spec = table[name]
        plain = {variable.removesuffix("_FILE") for variable in process.variables}
        if runs(process.command) != re.sub(r"-\d+$", "", name):
            found.append(f"{name} runs {' '.join(process.command)}")
        if not process.has_home:
            found.append(f"{name} has no home")
        found += [
            f"{name} has the variable {variable}, which is no setting"
            for variable in process.variables
            if not {variable, variable.removesuffix("_FILE")} & known
            and not _OF_LIBRARIES.fullmatch(variable)
        ]
        found += [
            f"{name} must agree with the others on {variable}"
            for variable in set(spec.environment) - SET_BY_IMAGES - plain
        ]
        found += [
            f"{name} sees {variable}" for variable in process.variables & spec.hidden
        ]
        found += [
            f"{name} lacks {variable}, which deploy/modelyard.env has"
            for variable in set(production) - plain - spec.hidden
        ]
        found += stopping(name, process, deployment, table)
    return found


def stopping(name, process, deployment, table):
    """Compare times and the order in which processes stop."""
    spec = table[name]
    # Those that stop one after the other share the time of all.
    others = deployment.processes
    turns = {
        each.stop_order: max(
            table[it].stop_timeout_s
            for it, one in others.items()
            if one.stop_order == each.stop_order and it in table
        )
        for it, each in others.items()
        if it in table and each.stop_order <= process.stop_order
    }
    needed_s = sum(turns.values()) if process.shares_time else spec.stop_timeout_s
    if process.stop_s < needed_s:
        yield f"{name} has {process.stop_s:.0f} s to stop, and needs {needed_s:.0f} s"
    for it, one in others.items():
        if (
            it in table
            and table[it].stop_phase > spec.stop_phase
            and one.stop_order <= process.stop_order
        ):
            yield f"{name} must stop before {it}"


def runs(command):
    """Return the name of the process that a command starts; None: of none."""
    match command:
        case ("python", "-m", "inference.gateway"):
            return "gateway"
        case ("python", "-m", "inference.host", "--devices", _):
            return "host"
        case ("modelyard", "run", name) | ("python", "-m", "config", "run", name):
            return re.sub(r"-\d+$", "", name)
    return None
