"""Load a `.pt2` archive without running any code inside it.

`torch.export.load` is not safe: it fully unpickles sample inputs and weights when the
safe way fails, evaluates shape expressions, compiles guards, and looks operators up by
any dotted path below `torch`, even `torch.os.system`. So this module reads the archive
itself, with parts of torch, and refuses or drops everything that could hold code:

1. members that are pickles, compiled libraries or of an unknown kind;
2. operators outside the tensor libraries, and names that are not identifiers;
3. shape expressions that are more than arithmetic over symbols;
4. sample inputs, guards and source metadata, which serving never needs.

It uses private parts of torch, so `pyproject.toml` pins the exact version. Before an
upgrade, `tests/inference/engine/runners/test_hostile_artifacts.py` must pass.
"""

import ast
import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class UnsafeArtifact(ValueError):
    """An archive with something that could run code; the message says what."""


# torch keeps the program that it deserializes in a global variable.
_deserializing = threading.Lock()

_MEMBER = re.compile(
    r"models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt"
    r"|extra/[\w.-]+"
    r"|archive_format|archive_version|byteorder|version"
    r"|\.data/(version|serialization_id)"
)
_WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
_CONSTANTS_CONFIG = "data/constants/model_constants_config.json"

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized|torchvision)\.[a-z0-9_]+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|wrap_with_autocast"
    r"|wrap_with_set_grad_enabled)"
    r"|torch\.sym_(float|int|ite|max|min|not|sqrt|sum)"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lshift|lt|mod|mul|ne|neg|not_"
    r"|or_|pos|pow|rshift|sub|truediv)"
    r"|math\.(ceil|floor|trunc|sqrt|log2)"
)
# These read or write files.
_FORBIDDEN_OPERATORS = ("torch.ops.aten.from_file", "torch.ops.aten.save")
_NAME = re.compile(r"[\w.:+-]*", re.ASCII)
_TEXT = re.compile(r"[\w .,:;+>-]*", re.ASCII)
_SYMBOL = re.compile(r"[a-z]+\d+", re.ASCII)
_SPEC_TYPES = (
    None,
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
)
_FUNCTIONS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|And|Or|Not|true|false"
    "|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|StrictLessThan|StrictGreaterThan"
    "|LessThan|GreaterThan|FloorDiv|ModularIndexing|PythonMod|CleanDiv|CeilDiv"
    "|CeilToInt|FloorToInt|IntTrueDiv|FloatTrueDiv|TruncToInt|TruncToFloat"
    "|RoundToInt|ToFloat|Identity|PowByNatural|FloatPow"
)
_MAX_EXPRESSION = 2000


def load(path: Path) -> "torch.export.ExportedProgram":
    """Read the program in the file at `path`; raise UnsafeArtifact."""
    # Deferred: torch takes a second to import, and the engine listens before that.
    from torch._export.serde import schema, serialize
    from torch.export.pt2_archive import _package
    from torch.export.pt2_archive._package import PT2ArchiveReader

    with PT2ArchiveReader(str(path)) as archive:
        _check_members(archive.get_file_names())
        _check_payloads(archive.read_string(_WEIGHTS_CONFIG), prefix="weight_")
        _check_payloads(archive.read_string(_CONSTANTS_CONFIG), prefix="tensor_")
        program = clean(json.loads(archive.read_string("models/model.json")))
        weights = _package._load_state_dict(archive, "model")
        constants = _package._load_constants(archive, "model")
    plain = serialize._bytes_to_dataclass(
        schema.ExportedProgram, json.dumps(program).encode()
    )
    with _deserializing:
        return serialize.ExportedProgramDeserializer(None).deserialize(
            plain, weights, constants, None
        )


def clean(program: dict[str, Any]) -> dict[str, Any]:
    """Return `program` without what serving does not need; raise UnsafeArtifact."""
    graph_module = program.get("graph_module")
    if not isinstance(graph_module, dict):
        raise UnsafeArtifact("the archive holds no graph")
    calls = graph_module.get("module_call_graph")
    if not isinstance(calls, list):
        raise UnsafeArtifact("the archive holds no call graph")
    cleaned = program | {
        "guards_code": [],
        "graph_module": graph_module
        | {
            "metadata": {},
            # The root's entry says how arguments are packed; the others only help
            # to rebuild the original module.
            "module_call_graph": [call for call in calls if call.get("fqn") == ""],
        },
    }
    return _cleaned_dict(cleaned)


def _cleaned(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return _cleaned_dict(value)
    if isinstance(value, list):
        return [_cleaned(item, key) for item in value]
    if isinstance(value, str):
        _check_string(value, key)
    return value


def _cleaned_dict(value: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if not _NAME.fullmatch(key):
            raise UnsafeArtifact(f"the name {key[:80]!r} is not allowed")
        if key == "metadata":
            result[key] = {}
        elif key == "treespec_namedtuple_fields" and item:
            raise UnsafeArtifact("named tuples are not allowed as inputs or outputs")
        elif key == "custom_obj_values" and item:
            raise UnsafeArtifact("custom objects are not allowed")
        else:
            result[key] = _cleaned(item, key)
    return result


def _check_string(value: str, key: str) -> None:
    if key == "expr_str":
        check_expression(value)
    elif key in ("in_spec", "out_spec"):
        _check_spec(value)
    elif key in ("target", "as_operator"):
        if not _OPERATOR.fullmatch(value) or value.startswith(_FORBIDDEN_OPERATORS):
            raise UnsafeArtifact(f"the operator {value[:80]!r} is not allowed")
    elif key in ("as_string", "as_strings"):
        if not _TEXT.fullmatch(value):
            raise UnsafeArtifact(f"the text argument {value[:80]!r} is not allowed")
    elif not _NAME.fullmatch(value):
        raise UnsafeArtifact(f"the name {value[:80]!r} is not allowed")


def check_expression(text: str) -> None:
    """Raise UnsafeArtifact unless it is arithmetic over symbols: torch `eval`s it."""
    if len(text) > _MAX_EXPRESSION:
        raise UnsafeArtifact("a shape expression is too long")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnsafeArtifact("a shape expression is not an expression") from error
    symbols = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_symbol(node):
            symbols.add(node.args[0])
    for node in ast.walk(tree):
        if not _is_arithmetic(node, symbols):
            raise UnsafeArtifact(f"the shape expression {text[:80]!r} is not allowed")


def _is_symbol(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Name) or node.func.id != "Symbol":
        return False
    if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
        return False
    name = node.args[0].value
    return isinstance(name, str) and _SYMBOL.fullmatch(name) is not None


def _is_arithmetic(node: ast.AST, symbols: set[ast.expr]) -> bool:
    match node:
        case ast.Constant(value=value):
            # Allow text only as a symbol's name: elsewhere sympy would evaluate it.
            return node in symbols or isinstance(value, bool | int | float)
        case ast.Name(id=name):
            return (_FUNCTIONS.fullmatch(name) or _SYMBOL.fullmatch(name)) is not None
        case ast.Call(func=function):
            return (
                isinstance(function, ast.Name)
                and _FUNCTIONS.fullmatch(function.id) is not None
            )
        case ast.keyword(value=value):
            return isinstance(value, ast.Constant) and isinstance(value.value, bool)
    return isinstance(
        node,
        ast.Expression
        | ast.BinOp
        | ast.UnaryOp
        | ast.Compare
        | ast.operator
        | ast.unaryop
        | ast.cmpop
        | ast.expr_context,
    )


def _check_spec(text: str) -> None:
    try:
        _version, root = json.loads(text)
    except (ValueError, TypeError) as error:
        raise UnsafeArtifact("inputs or outputs are of an unknown form") from error
    _check_spec_node(root)


def _check_spec_node(node: Any) -> None:
    if not isinstance(node, dict) or node.get("type") not in _SPEC_TYPES:
        raise UnsafeArtifact("inputs or outputs are of a type that is not allowed")
    context = node.get("context")
    if context is not None:
        names = json.loads(context)
        if names is not None and not (
            isinstance(names, list)
            and all(isinstance(name, str) and name.isidentifier() for name in names)
        ):
            raise UnsafeArtifact("names of inputs or outputs are not allowed")
    for child in node.get("children_spec", ()):
        _check_spec_node(child)


def _check_members(names: list[str]) -> None:
    for name in names:
        if not _MEMBER.fullmatch(name):
            raise UnsafeArtifact(f"the archive member {name[:80]!r} is not allowed")


def _check_payloads(text: str, *, prefix: str) -> None:
    for name, payload in json.loads(text)["config"].items():
        if payload["use_pickle"] or not payload["path_name"].startswith(prefix):
            raise UnsafeArtifact(f"{name[:80]!r} is stored as a pickle")
