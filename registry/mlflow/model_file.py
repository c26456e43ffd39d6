"""Read an artifact's `MLmodel` and example without loading a model. Without I/O.

The author of the model wrote both files, so sizes, nesting and the expansion of YAML
aliases are bounded, and only plain data leaves this module.
"""

import json
import math
import struct
from typing import Any

import yaml

from registry.mlflow import types
from registry.mlflow.types import ArtifactRefused, Json, ModelFile

MAX_MLMODEL_BYTES = 1_000_000
MAX_EXAMPLE_BYTES = 1_000_000
# Rows of the example to keep: enough to try a model, few enough to show.
MAX_EXAMPLE_ROWS = 3
_MAX_NODES = 200_000
_MAX_DEPTH = 30


def parse(mlmodel: bytes, *, example: bytes | None = None) -> ModelFile:
    """Read an MLmodel file; raise ArtifactRefused if that is impossible."""
    if len(mlmodel) > MAX_MLMODEL_BYTES:
        raise ArtifactRefused("The MLmodel file is larger than 1 MB.")
    try:
        # RecursionError: brackets nested deeper than the parser can follow.
        document = plain(yaml.safe_load(mlmodel))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ArtifactRefused("The MLmodel file is not readable YAML.") from error
    if not isinstance(document, dict):
        raise ArtifactRefused("The MLmodel file holds no mapping.")
    flavors = document.get("flavors")
    outer = document.get("metadata") or {}
    problems: list[str] = []
    signature = _signature(document.get("signature"), problems)
    metadata = outer.get("modelyard") if isinstance(outer, dict) else None
    return ModelFile(
        flavors=tuple(sorted(flavors)) if isinstance(flavors, dict) else (),
        signature=signature,
        metadata={} if metadata is None else metadata,
        input_example=_instances(example, signature, metadata),
        python=_python(flavors),
        problems=tuple(problems),
    )


def _python(flavors: Json) -> str:
    function = flavors.get("python_function") if isinstance(flavors, dict) else None
    named = function.get("python_version") if isinstance(function, dict) else None
    return named if isinstance(named, str) else ""


def plain(value: Any) -> Json:
    """Copy parsed YAML or JSON into values that every database's JSON column can hold.

    Numbers that are not finite become None, dates become text. Raises ValueError if
    there are too many values: YAML aliases can make a small file endless.
    """
    budget = _MAX_NODES

    def copy(node: Any, depth: int) -> Json:
        nonlocal budget
        budget -= 1
        if budget < 0 or depth > _MAX_DEPTH:
            raise ValueError("too large or too deeply nested")
        if isinstance(node, dict):
            return {storable(str(key)): copy(node[key], depth + 1) for key in node}
        if isinstance(node, (list, tuple, set)):
            return [copy(item, depth + 1) for item in node]
        if isinstance(node, float):
            return node if math.isfinite(node) else None
        if node is None or isinstance(node, (bool, int)):
            return node
        return storable(str(node))

    return copy(value, 0)


def storable(text: str) -> str:
    """Remove characters that PostgreSQL cannot store in text or JSON."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _signature(stored: Json, problems: list[str]) -> dict[str, Json]:
    """Decode the lists that MLflow stores as JSON text inside its YAML."""
    if not isinstance(stored, dict):
        return {}
    signature = {}
    for part in ("inputs", "outputs", "params"):
        specs = stored.get(part)
        if specs is None:
            continue
        try:
            specs = plain(json.loads(specs)) if isinstance(specs, str) else specs
        except (ValueError, RecursionError):
            problems.append(f"The signature's {part} are not readable JSON.")
            continue
        if isinstance(specs, list) and all(isinstance(spec, dict) for spec in specs):
            signature[part] = specs
        else:
            problems.append(f"The signature's {part} are not a list of specs.")
    return signature


def _instances(
    example: bytes | None, signature: dict[str, Json], metadata: Json
) -> Json:
    """Convert MLflow's serving example to instances; None if it cannot be used."""
    if example is None or len(example) > MAX_EXAMPLE_BYTES:
        return None
    try:
        document = plain(json.loads(example))
    except (ValueError, RecursionError):
        return None
    rows = _rows(document)
    if not rows:
        return None
    rows = rows[:MAX_EXAMPLE_ROWS]
    if _takes_float32(signature):
        rows = [_shorten(row) for row in rows]
    names = _names(signature, metadata)
    if names and all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return [dict(zip(names, row, strict=True)) for row in rows]
    if len(names) == 1 and not any(isinstance(row, (dict, list)) for row in rows):
        return [{names[0]: row} for row in rows]
    return rows


def _rows(document: Json) -> list[Json]:
    """Return the rows of an example in any layout of MLflow's scoring protocol."""
    if not isinstance(document, dict):
        return document if isinstance(document, list) else []
    split = document.get("dataframe_split")
    if isinstance(split, dict):
        columns, data = split.get("columns"), split.get("data")
        if not isinstance(columns, list) or not isinstance(data, list):
            return []
        if all(isinstance(name, int) for name in columns):
            # Columns without names are numbered.
            return data
        return [
            dict(zip((str(name) for name in columns), row, strict=False))
            for row in data
            if isinstance(row, list) and len(row) == len(columns)
        ]
    for key in ("inputs", "instances", "dataframe_records"):
        rows = document.get(key)
        if isinstance(rows, list):
            return rows
        if isinstance(rows, dict) and all(isinstance(v, list) for v in rows.values()):
            return [
                dict(zip(rows, values, strict=True))
                for values in zip(*rows.values(), strict=False)
            ]
    return []


def _takes_float32(signature: dict[str, Json]) -> bool:
    inputs = signature.get("inputs") or []
    spec = inputs[0].get("tensor-spec") if inputs else None
    return isinstance(spec, dict) and spec.get("dtype") == "float32"


def _shorten(value: Json) -> Json:
    """Round float32 values: MLflow writes 13.68 as 13.680000305175781."""
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if not isinstance(value, float):
        return value
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<d", value) == struct.pack("<d", _as_float32(short)):
            return short
    return value


def _as_float32(value: float) -> float:
    try:
        narrow: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return value
    return narrow


def _names(signature: dict[str, Json], metadata: Json) -> list[str]:
    """Return the names of the columns as the prediction API uses them."""
    inputs = signature.get("inputs") or []
    if inputs and inputs[0].get("type") != "tensor":
        return [types.input_name(spec) for spec in inputs]
    columns = metadata.get("columns") if isinstance(metadata, dict) else None
    return [str(name) for name in columns] if isinstance(columns, list) else []
