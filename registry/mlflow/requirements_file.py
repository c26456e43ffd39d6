"""Read which packages and which Python an artifact asks for. Without I/O.

The author of the model wrote the files. Nothing that they name is followed: no other
file, no address, no index, no variable of the environment.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from registry.mlflow import model_file
from registry.mlflow.model_file import storable
from registry.mlflow.types import Json

MAX_BYTES = 256 * 1024
_MAX_LINES = 1000
_MAX_LINE = 1000
# What an artifact says that names no Python, so that a sync need not ask again.
UNKNOWN_PYTHON = "unknown"

# The operator chooses the index, so these mean nothing here.
_OF_THE_INDEX = frozenset(
    {
        "-i",
        "--index-url",
        "--extra-index-url",
        "--no-index",
        "-f",
        "--find-links",
        "--trusted-host",
        "--prefer-binary",
        "--no-binary",
        "--only-binary",
        "--pre",
        "--require-hashes",
        "--use-feature",
    }
)
_OTHER_FILES = frozenset({"-r", "--requirement", "-c", "--constraint"})
# conda lists them in every environment; they compute nothing.
_OF_CONDA = frozenset({"python", "pip", "setuptools", "wheel"})
_PYTHON = re.compile(r"\s*=*\s*(\d{1,2}\.\d{1,3}(?:\.\d{1,3})?)")
# pip's options of one requirement, which follow it.
_OWN_OPTIONS = re.compile(r"\s--(?:hash|config-settings?|global-option)\b.*", re.DOTALL)


class Asked(NamedTuple):
    """Packages as sorted lines for pip; a comment says what could not be read."""

    lines: tuple[str, ...] = ()
    python: str = UNKNOWN_PYTHON


def read(files: Mapping[str, bytes | None], *, python: str = "") -> Asked:
    """Read what is there of `requirements.txt`, `conda.yaml` and `python_env.yaml`.

    `python` is what the MLmodel file says. None as content: the file is too large.
    """
    lines: set[str] = set()
    conda_packages: list[str] = []
    conda_python = ""
    conda = _yaml(files.get("conda.yaml"))
    if isinstance(conda, dict):
        conda_packages, conda_python = _conda(conda.get("dependencies"))
    if "requirements.txt" in files:
        lines.update(_lines(files["requirements.txt"]))
    else:
        lines.update(conda_packages)
    own = _yaml(files.get("python_env.yaml"))
    named = (python, own.get("python") if isinstance(own, dict) else None, conda_python)
    return Asked(
        lines=tuple(sorted(lines)),
        python=next((found for name in named if (found := _python(name))), "")
        or UNKNOWN_PYTHON,
    )


def _lines(content: bytes | None) -> Iterator[str]:
    if content is None or len(content) > MAX_BYTES:
        yield "# requirements.txt: it is too large to read."
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        yield "# requirements.txt: it is not text."
        return
    joined = re.sub(r"\\\r?\n", " ", text)
    count = 0
    for line in joined.splitlines():
        stripped = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not stripped:
            continue
        count += 1
        if count > _MAX_LINES:
            yield f"# requirements.txt: only {_MAX_LINES} lines are read."
            return
        yield from _line(stripped)


def _line(line: str) -> Iterator[str]:
    """Yield the requirement of one line, or a comment on why there is none."""
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    if option in _OF_THE_INDEX:
        return
    if option in _OTHER_FILES:
        yield f"# {option}: no other file is read."
    elif option.startswith("-"):
        yield f"# {storable(option[:40])}: only packages of the index are installed."
    else:
        yield _requirement(line)


def _requirement(line: str) -> str:
    line = _OWN_OPTIONS.sub("", line)
    if len(line) > _MAX_LINE:
        return "# a line: it is too long to read."
    if "$" in line:
        return "# a line with a variable: none is replaced."
    try:
        # RecursionError: brackets nested deeper than the parser can follow.
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.url is not None:
            return f"# {name}: only packages of the index are installed."
        extras = ",".join(sorted(map(canonicalize_name, requirement.extras)))
        marker = f"; {requirement.marker}" if requirement.marker else ""
        bounds = ",".join(sorted(map(str, requirement.specifier)))
    except (InvalidRequirement, ValueError, RecursionError):
        # Never the line itself: an address may hold a password.
        return (
            "# a file or an address: only packages of the index are installed."
            if re.search(r"[/\\@]|\.whl\b|\.zip\b|\.tar\b", line)
            else f"# {storable(line[:40])}: it cannot be read."
        )
    return storable(f"{name}{f'[{extras}]' if extras else ''}{bounds}{marker}")


def _conda(dependencies: Json) -> tuple[list[str], str]:
    """Return the packages and the Python of a conda environment."""
    lines: list[str] = []
    python = ""
    for entry in dependencies[:_MAX_LINES] if isinstance(dependencies, list) else ():
        if isinstance(entry, dict):
            of_pip = entry.get("pip")
            for line in of_pip[:_MAX_LINES] if isinstance(of_pip, list) else ():
                lines += _line(str(line).strip())
            continue
        name, _, version = str(entry).partition("=")
        name = re.split(r"[\s<>!~\[]", name.strip(), maxsplit=1)[0]
        if name == "python":
            python = version
        elif name not in _OF_CONDA:
            lines.append(f"# {storable(name[:40])}: packages of conda are not used.")
    return lines, python


def _python(value: Json) -> str:
    found = _PYTHON.match(str(value)) if isinstance(value, (str, float)) else None
    return found.group(1) if found else ""


def _yaml(content: bytes | None) -> Json:
    if content is None or len(content) > MAX_BYTES:
        return None
    try:
        return model_file.plain(yaml.safe_load(content))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
