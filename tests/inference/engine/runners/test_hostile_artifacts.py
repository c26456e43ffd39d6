"""Test that no code of an untrusted artifact runs: it would create a canary file."""

import contextlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from inference.engine.runners import exported_program, runner
from inference.engine.runners.exported_program import UnsafeArtifact
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests.inference.engine.conftest import SIGNATURE
from tests.inference.engine.fakes import to_load

pytestmark = pytest.mark.filterwarnings("ignore")


class Evil:
    def __init__(self, canary):
        self._canary = canary

    def __reduce__(self):
        return Path.touch, (self._canary,)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "executed"


@pytest.fixture
def poison(artifact, tmp_path):
    """Copy the good artifact, with some members of its archive changed or added."""

    def make(*, program=None, configs=None, members=None):
        source = zipfile.ZipFile(artifact / "data" / "model.pt2")
        prefix = source.namelist()[0].split("/", 1)[0]
        contents = {
            name.removeprefix(f"{prefix}/"): source.read(name)
            for name in source.namelist()
        }
        if program is not None:
            loaded = json.loads(contents["models/model.json"])
            program(loaded)
            contents["models/model.json"] = json.dumps(loaded).encode()
        for name, change in (configs or {}).items():
            loaded = json.loads(contents[name])
            change(loaded["config"])
            contents[name] = json.dumps(loaded).encode()
        contents |= members or {}
        target = tmp_path / "hostile" / "data" / "model.pt2"
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, data in contents.items():
                archive.writestr(f"{prefix}/{name}", data)
        return target

    return make


def torch_pickle(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def graph(program):
    return program["graph_module"]["graph"]


def first_tensor(program):
    return graph(program)["tensor_values"]["rows"]


def root_call(program):
    return next(
        call for call in program["graph_module"]["module_call_graph"] if not call["fqn"]
    )


def test_the_good_artifact_loads(poison):
    module = exported_program.load(poison()).module(check_guards=False)

    assert module(torch.ones(1, 3)).tolist() == [[3.0, -3.0]]


def test_poisoned_sample_inputs_run_in_torch_but_not_here(poison, canary):
    evil = torch_pickle(((Evil(canary),), {}))
    path = poison(members={"data/sample_inputs/model.pt": evil})

    exported_program.load(path)
    assert not canary.exists()

    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert canary.exists(), "the sample is not hostile, so the test proves nothing"


def test_poisoned_weights_run_in_torch_but_not_here(poison, canary):
    def use_pickle(config):
        config["linear.weight"]["use_pickle"] = True

    path = poison(
        configs={"data/weights/model_weights_config.json": use_pickle},
        members={"data/weights/weight_0": torch_pickle(Evil(canary))},
    )

    with pytest.raises(UnsafeArtifact):
        exported_program.load(path)
    assert not canary.exists()

    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/aotinductor/model/model.so",
        "extra/../../../etc/cron.d/evil",
        "code/evil.py",
        "models/other.json",
    ],
)
def test_members_that_could_carry_code_are_refused(poison, canary, name):
    path = poison(members={name: torch_pickle(Evil(canary))})

    with pytest.raises(UnsafeArtifact):
        exported_program.load(path)

    assert not canary.exists()


def test_opaque_constants_are_refused(poison, canary):
    def add(config):
        config["evil"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": False,
            "tensor_meta": None,
        }

    path = poison(configs={"data/constants/model_constants_config.json": add})

    with pytest.raises(UnsafeArtifact):
        exported_program.load(path)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('pathlib').Path('{canary}').touch()",
        "Symbol('__import__(\"os\")')",
        "Symbol.__class__",
        "Max(Symbol('s0'), '{canary}')",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "open('{canary}', 'w')",
        "Symbol('s0', positive=open('{canary}', 'w'))",
        "s0 if 1 else 2",
        "f'{{open}}'",
        "Symbol(*'s0')",
        "(" * 500,
        "s0+" * 5000 + "1",
    ],
)
def test_shape_expressions_are_arithmetic_only(poison, canary, expression):
    text = expression.replace("{canary}", str(canary))

    def change(program):
        first_tensor(program)["sizes"][0]["as_expr"]["expr_str"] = text

    with pytest.raises(UnsafeArtifact):
        exported_program.load(poison(program=change))
    assert not canary.exists()


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s31', positive=True, integer=True)",
        "s0",
        "2*s0 + 1",
        "Max(1, s0)",
        "FloorDiv(s0, 2) - u1",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "(s0 > 1) & (s0 <= 64)",
    ],
)
def test_arithmetic_is_allowed(expression):
    exported_program.check_expression(expression)


@pytest.mark.parametrize(
    "operator",
    [
        "torch.os.system",
        "torch.load",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.linear.__class__.__base__",
        "torch.ops.load_library",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "math.__loader__",
        "#extension",
        "eval",
    ],
)
def test_only_tensor_operators_are_looked_up(poison, operator):
    def change(program):
        graph(program)["nodes"][0]["target"] = operator

    with pytest.raises(UnsafeArtifact):
        exported_program.load(poison(program=change))


def test_guards_are_dropped(poison, canary):
    def change(program):
        program["guards_code"] = [f"__import__('pathlib').Path('{canary}').touch()"]

    module = exported_program.load(poison(program=change)).module()
    module(torch.ones(2, 3))

    assert not canary.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda program: root_call(program)["signature"].update(
            forward_arg_names=["rows=__import__('os').system('true')"]
        ),
        lambda program: graph(program)["nodes"][0].update(name="x): import os #"),
        lambda program: graph(program)["inputs"][0]["as_tensor"].update(name="a b"),
        lambda program: graph(program)["tensor_values"].update({"a(b)": {}}),
        lambda program: graph(program).update(custom_obj_values={"x": {}}),
        lambda program: program["graph_module"].update(
            treespec_namedtuple_fields={"os.terminal_size": {"fields": []}}
        ),
        lambda program: program.update(graph_module=None),
        lambda program: program["graph_module"].update(module_call_graph=None),
    ],
)
def test_names_that_could_become_source_code_are_refused(poison, change):
    with pytest.raises(UnsafeArtifact):
        exported_program.load(poison(program=change))


@pytest.mark.parametrize(
    "spec",
    [
        '[1, {"type": "collections.defaultdict", "context": "null"}]',
        '[1, {"type": "os.terminal_size", "context": "null"}]',
        '[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": true}]"}]',
        '[1, {"type": "builtins.dict", "context": "[\\"a b\\"]"}]',
        '"text"',
        "{",
    ],
)
def test_only_plain_containers_pack_the_arguments(poison, spec):
    def change(program):
        root_call(program)["signature"]["in_spec"] = spec

    with pytest.raises(UnsafeArtifact):
        exported_program.load(poison(program=change))


def test_files_that_are_no_archive_fail_to_load_without_running(tmp_path, canary):
    for index, data in enumerate(
        (
            pickle.dumps(Evil(canary)),
            torch_pickle(Evil(canary)),
            b"",
            b"PK\x03\x04 not really",
        )
    ):
        folder = tmp_path / str(index)
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "model.pt2").write_bytes(data)

        with pytest.raises(EngineError) as caught:
            runner.load(
                to_load(
                    path=str(folder),
                    flavors=("pytorch",),
                    signature=msgspec.to_builtins(SIGNATURE),
                ),
                "cpu",
            )

        assert caught.value.code is EngineErrorCode.LOAD_FAILED
    assert not canary.exists()


def mlmodel(folder, *flavors, loader="mlflow.pyfunc.model"):
    lines = ["flavors:"]
    for flavor in flavors:
        lines += [f"  {flavor}:", f"    loader_module: {loader}"]
        lines += ["    python_model: python_model.pkl", "    model_data: data"]
        if loader != "mlflow.pyfunc.model":
            lines += ["    pytorch_version: 2.0.0", "    data: data", "    code: code"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text("\n".join(lines))


def pickled_python_model(folder, evil):
    mlmodel(folder, "python_function")
    (folder / "python_model.pkl").write_bytes(evil)


def joblib_of_scikit_learn(folder, evil):
    mlmodel(folder, "python_function", "sklearn", loader="mlflow.sklearn")
    (folder / "model.joblib").write_bytes(evil)
    (folder / "model.pkl").write_bytes(evil)


def code_beside_the_model(folder, evil):
    mlmodel(folder, "python_function", loader="evil")
    (folder / "code").mkdir()
    code = f"import pickle\npickle.loads({evil!r})\n"
    (folder / "code" / "evil.py").write_text(code)


def pickled_torch_module(folder, evil):
    mlmodel(folder, "python_function", "pytorch", loader="mlflow.pytorch")
    (folder / "data").mkdir()
    (folder / "data" / "pickle_module_info.txt").write_text("pickle")
    (folder / "data" / "model.pth").write_bytes(evil)


def torch_archive_of_a_pickle(folder, evil):
    pickled_torch_module(folder, evil)
    (folder / "data" / "model.pth").write_bytes(torch_pickle(pickle.loads))
    rezipped(folder / "data" / "model.pth", evil)


def torch_script_with_a_pickle(folder, evil):
    """Write a file that looks like TorchScript but holds a pickle."""
    pickled_torch_module(folder, evil)
    with zipfile.ZipFile(folder / "data" / "model.pth", "w") as archive:
        archive.writestr("m/code/__torch__.py", "import os\n")
        archive.writestr("m/constants.pkl", evil)
        archive.writestr("m/data.pkl", evil)
        archive.writestr("m/version", "3\n")


def pickle_module_of_the_authors_choice(folder, evil):
    pickled_torch_module(folder, evil)
    (folder / "data" / "pickle_module_info.txt").write_text("evil")
    (folder / "code").mkdir()
    code = f"import pickle\npickle.loads({evil!r})\n"
    (folder / "code" / "evil.py").write_text(code)


def rezipped(path, evil):
    """Replace the archive's pickle by another."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            data = evil if name.endswith("data.pkl") else source.read(name)
            archive.writestr(name, data)


CORPUS = [
    pickled_python_model,
    joblib_of_scikit_learn,
    code_beside_the_model,
    pickled_torch_module,
    torch_archive_of_a_pickle,
    torch_script_with_a_pickle,
    pickle_module_of_the_authors_choice,
]


def load_unapproved(folder, flavors):
    with pytest.raises(EngineError) as caught:
        runner.load(
            to_load(
                path=str(folder),
                flavors=flavors,
                signature=msgspec.to_builtins(SIGNATURE),
            ),
            "cpu",
        )
    return caught.value


@pytest.mark.parametrize("make", CORPUS)
def test_what_runs_code_is_refused_unless_an_administrator_trusts_it(
    tmp_path, canary, make
):
    folder = tmp_path / "artifact"
    make(folder, pickle.dumps(Evil(canary)))
    flavors = ("python_function", "pytorch") if "torch" in make.__name__ else ()

    error = load_unapproved(folder, flavors or ("python_function", "sklearn"))

    assert error.code is EngineErrorCode.LOAD_FAILED
    assert "administrator" in error.message
    assert not canary.exists()


@pytest.mark.parametrize(
    "make", [pickled_python_model, pickled_torch_module, code_beside_the_model]
)
def test_the_corpus_is_hostile_where_it_is_trusted(tmp_path, canary, make):
    folder = tmp_path / "artifact"
    make(folder, pickle.dumps(Evil(canary)))
    flavors = ("python_function", "pytorch")
    trusted = to_load(
        path=str(folder),
        flavors=flavors if "torch" in make.__name__ else flavors[:1],
        signature=msgspec.to_builtins(SIGNATURE),
        trusted=True,
    )

    with contextlib.suppress(EngineError):
        runner.load(trusted, "cpu")

    assert canary.exists(), "the sample is not hostile, so the tests prove nothing"


@pytest.mark.parametrize("make", CORPUS)
@pytest.mark.parametrize(
    "flavors", [("pytorch",), ("sklearn",), ("xgboost", "sklearn"), (), ("pt2",)]
)
def test_nothing_runs_whatever_flavors_are_claimed(tmp_path, canary, make, flavors):
    folder = tmp_path / "artifact"
    make(folder, pickle.dumps(Evil(canary)))

    load_unapproved(folder, flavors)

    assert not canary.exists()


def test_logged_examples_and_outputs_are_read_without_pickle(
    artifact, tmp_path, canary
):
    folder = tmp_path / "artifact"
    shutil.copytree(artifact, folder)
    np.save(
        folder / "outputs.npy",
        np.array([Evil(canary)], dtype=object),
        allow_pickle=True,
    )
    signature = msgspec.structs.replace(SIGNATURE, example_outputs="outputs.npy")

    with pytest.raises(EngineError):
        runner.load(
            to_load(
                path=str(folder),
                flavors=("pytorch",),
                signature=msgspec.to_builtins(signature),
            ),
            "cpu",
        )

    assert not canary.exists()
