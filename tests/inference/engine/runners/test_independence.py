"""Test that models whose answers depend on other rows share no batches."""

import json
import re
import shutil
import time
import warnings

import msgspec
import numpy as np
import pandas
import pytest
import torch

from inference.engine.runners import independence, runner
from inference.engine.runners.independence import Tolerance
from inference.engine.runners.runner import Loaded
from inference.engine.signatures import similar_rows
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.errors import VersionRefused
from inference.engine.wire.tensors import Tensor, object_array
from tests.inference.engine.runners import logged

with warnings.catch_warnings():
    # MLflow warns while it is imported.
    warnings.simplefilter("ignore")
    from tests.inference.engine.runners import python_models

pytestmark = pytest.mark.filterwarnings("ignore")

THREE = np.array([[0.3, 1.0], [0.1, 7.5], [0.2, 2.5]])
ONE = THREE[:1]


class FunctionRunner:
    """A runner that answers with a function of the first tensor's array."""

    torch_function = None

    def __init__(self, function):
        self._function = function
        self.batches = []

    def warm_up(self, tensors):
        self.run(tensors)

    def run(self, tensors):
        self.batches.append(len(tensors[0].data))
        outputs = self._function(tensors[0].data)
        if isinstance(outputs, dict):
            return tuple(Tensor(name, data) for name, data in outputs.items())
        return (Tensor("output", outputs),)

    def unload(self):
        pass


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a function as if it were a version's model; `runs`: it is Python code."""

    def load(function, rows=THREE, *, runs="Python code", dtype="float64", **fields):
        shape = np.shape(rows)[1:] if rows is not None else (2,)
        signature = Signature(layout=Layout.TENSOR, dtype=dtype, shape=shape)
        signature = msgspec.structs.replace(signature, **fields.pop("signature", {}))
        if rows is not None:
            payload = {"inputs": np.asarray(rows).tolist()}
            (tmp_path / "serving_input_example.json").write_text(json.dumps(payload))
        made = FunctionRunner(function)
        kind = runner.RunnerKind(lambda v: True, lambda v, s, d: made, runs=runs)
        monkeypatch.setattr(runner, "RUNNERS", {"function": kind})
        return runner.load(version_of(tmp_path, signature, **fields), "cpu")

    return load


def version_of(folder, signature, **fields):
    from inference.engine.wire.messages import VersionKey, VersionToLoad

    return VersionToLoad(
        key=VersionKey("m", 1),
        path=str(folder),
        flavors=(),
        signature=msgspec.to_builtins(signature),
        trusted=True,
        **fields,
    )


def first(rows):
    return rows[:, 0]


def sort(rows):
    return np.sort(first(rows))


def sort_tables(rows):
    table = pandas.DataFrame(rows).sort_values(0).reset_index(drop=True)
    return table[0].to_numpy()


def rank(rows):
    return first(rows).argsort().argsort()


def normalise(rows):
    return (first(rows) - first(rows).mean()) / (first(rows).std() + 1e-9)


def softmax_over_rows(rows):
    return np.exp(rows) / np.exp(rows).sum(0)


def carry_on(rows):
    return np.cumsum(first(rows))


def fill_with_mean(rows):
    return {"a": first(rows), "b": rows[:, 1] - rows[:, 1].max()}


def name_the_best(rows):
    names = ["other"] * len(rows)
    names[int(first(rows).argmax())] = "best"
    return object_array(names)


def objects_of_ranks(rows):
    ranks = rank(rows).tolist()
    return object_array([{"id": 1, "rank": {"place": place}} for place in ranks])


def small_ids(rows):
    """Return numbers of customers, close to each other, as floats and sorted."""
    return np.sort(1_000_000 + np.round(rows[:, 0] * 10))


@pytest.mark.parametrize("rows", [THREE, ONE, None], ids=["three", "one", "none"])
@pytest.mark.parametrize(
    "function",
    [
        sort,
        sort_tables,
        rank,
        normalise,
        softmax_over_rows,
        carry_on,
        fill_with_mean,
        name_the_best,
        objects_of_ranks,
        small_ids,
    ],
)
def test_models_that_look_at_other_rows_are_found_out(load, function, rows):
    loaded = load(function, rows)

    assert loaded.apart.startswith("The answer to a row depends on the other rows: ")


def test_the_reason_names_a_row_and_its_two_answers(load):
    assert load(rank).apart == (
        "The answer to a row depends on the other rows: row 1 of its example alone "
        "gives 0, in a batch 3."
    )
    assert re.search(
        r"row 1 of its example alone gives 0 for 'b', in a batch -\d.* for 'b'\.",
        load(fill_with_mean).apart,
    )


def test_order_counts_even_if_a_row_alone_gets_the_same(load):
    def last_first(rows):
        return first(rows) * (1 if len(rows) < 2 or rows[0, 0] > rows[-1, 0] else -1)

    assert "come in reverse" in load(last_first).apart


def test_a_row_that_fails_only_alone_is_said(load):
    def scale(rows):
        if len(rows) == 1 and rows[0, 0] == 0.2:
            raise ZeroDivisionError
        return first(rows)

    assert "alone the model raises ZeroDivisionError" in load(scale).apart


def noisy(scale):
    def add_noise(rows):
        noise = scale * np.sin(len(rows))
        return np.stack([first(rows) * 3 + noise, 1e6 * (rows[:, 1] + noise)], 1)

    return add_noise


@pytest.mark.parametrize("rows", [THREE, ONE, None], ids=["three", "one", "none"])
@pytest.mark.parametrize(
    "function",
    [
        first,
        noisy(1e-7),
        lambda rows: rows.astype(np.float16),
        lambda rows: np.log(rows - 0.2),
        lambda rows: rows > 0.2,
        lambda rows: object_array([f"{x:.1f}" for x in first(rows)]),
        lambda rows: object_array(
            [[{"x": x, "n": None}] for x in first(rows).tolist()]
        ),
        lambda rows: {"b": first(rows), "a": rows},
    ],
)
def test_models_that_answer_each_row_by_itself_join(load, function, rows):
    assert load(function, rows).apart == ""


def test_a_model_that_changes_its_input_is_asked_with_copies(load):
    def double_in_place(rows):
        rows *= 2
        return rows[:, 0].copy()

    assert load(double_in_place).apart == ""


def test_a_difference_that_the_version_allows_is_none(load):
    signature = {"example_tolerance": 0.1}

    assert load(noisy(1e-3)).apart
    assert load(lambda x: noisy(1e-3)(x)[:, :1], signature=signature).apart == ""


def test_rows_that_the_model_refuses_are_left_out(load):
    def only_known(rows):
        assert set(first(rows)) <= {0.3, 0.1, 0.2}, "unknown"
        return first(rows)

    def known_and_sorted(rows):
        return np.sort(only_known(rows))

    def exits(rows):
        if not set(first(rows)) <= {0.3}:
            raise SystemExit(3)
        return first(rows)

    assert load(only_known).apart == ""
    assert load(only_known, ONE).apart == ""
    assert load(exits, ONE).apart == ""
    assert load(known_and_sorted).apart


def test_rows_of_the_background_fill_up_an_example_of_one_row(load, tmp_path):
    np.save(tmp_path / "background.npy", THREE[::-1])
    known = set(THREE[:, 0])

    def sorts_what_it_knows(rows):
        assert set(first(rows)) <= known
        return np.sort(first(rows))

    assert load(sorts_what_it_knows, ONE).apart == ""
    columns = (Column("a", "float64"), Column("b", "float64"))
    signature = {"layout": Layout.MATRIX, "columns": columns}
    signature |= {"background": "background.npy"}
    assert load(sorts_what_it_knows, ONE, signature=signature).apart


def test_made_up_codes_stay_within_what_the_example_shows():
    tokens = Tensor("tokens", np.array([[3, 0, 7]]))
    signature = Signature(layout=Layout.TENSOR, dtype="int64", shape=(3,))

    for batch in similar_rows.longer([tokens], signature, None, rows=50):
        data = batch[0].data
        assert data.dtype == np.int64
        assert (data >= 0).all()
        assert data.max(0).tolist() == [3, 0, 7]


def test_made_up_rows_keep_to_the_rules_of_columns():
    signature = Signature(
        layout=Layout.TABLE,
        columns=(
            Column("size", "float64", minimum=0, maximum=1),
            Column("kind", "str", enum=("a", "b")),
            Column("note", "str"),
            Column("member", "bool"),
            Column("since", "datetime64[ns]"),
        ),
    )
    row = similar_rows.plain_row(signature)

    bold, calm, _ = similar_rows.longer(row, signature, None, rows=40)

    made = {tensor.name: tensor.data for tensor in bold}
    assert made["size"].min() >= 0
    assert len(set(made["size"])) > 10
    assert set(made["kind"]) == {"a", "b"}
    assert len(set(made["note"])) > 1
    assert set(made["member"].tolist()) == {True, False}
    assert len(set(made["since"].tolist())) > 10
    assert set(calm[2].data) == {"a"}


def test_tables_without_an_example_are_checked_with_made_up_rows(load):
    signature = {
        "layout": Layout.TABLE,
        "columns": (Column("x", "float64"), Column("name", "str")),
    }

    assert load(np.sort, None, signature=signature).apart
    assert load(lambda x: x * 2, None, signature=signature).apart == ""


def changing(rows, made=np.random.default_rng(0)):  # noqa: B008 - one for all calls
    return first(rows) + made.random(len(rows))


def test_python_models_that_change_their_answers_share_no_batches(load):
    assert load(changing).apart.startswith("The same rows get other answers each time:")


def test_rare_changes_are_told_from_other_rows(load):
    calls = iter(range(1000))

    def seldom(rows):
        return first(rows) + (next(calls) % 3 == 0)

    assert load(seldom).apart.startswith("The same rows get other answers each time:")


def test_a_program_that_changes_its_answers_is_refused(load):
    with pytest.raises(VersionRefused, match=r"other answers.*deterministic: false"):
        load(changing, runs="")


@pytest.mark.parametrize("runs", ["", "Python code"])
def test_what_is_meant_to_change_loads_and_shares_no_batches(load, runs):
    loaded = load(changing, runs=runs, deterministic=False)

    assert "not deterministic" in loaded.apart
    assert isinstance(loaded, Loaded)


def test_dropout_that_was_left_on_is_refused(artifact, version, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(artifact, folder)
    version = msgspec.structs.replace(version, path=str(folder))
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.5)).train()
    save_program(module, folder)

    with pytest.raises(VersionRefused, match="Dropout may have been left on"):
        runner.load(version, "cpu")

    said = msgspec.structs.replace(version, deterministic=False)
    assert "not deterministic" in runner.load(said, "cpu").apart
    save_program(module.eval(), folder)
    assert runner.load(version, "cpu").apart == ""


def test_a_program_that_normalises_over_rows_loads_and_shares_no_batches(
    artifact, version, tmp_path
):
    class Normalise(torch.nn.Module):
        def forward(self, rows):
            return rows - rows.mean(0)

    shutil.copytree(artifact, tmp_path / "copy")
    save_program(Normalise(), tmp_path / "copy")

    loaded = runner.load(
        msgspec.structs.replace(version, path=str(tmp_path / "copy")), "cpu"
    )

    assert "depends on the other rows" in loaded.apart


def save_program(module, folder):
    program = torch.export.export(
        module, (torch.ones(4, 3),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    torch.export.save(program, folder / "data" / "model.pt2")


def test_a_deep_network_and_a_forest_join_in_spite_of_rounding(
    artifact, version, tmp_path, load
):
    from sklearn.ensemble import RandomForestRegressor

    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 512)]
    for _ in range(8):
        layers += [torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.LayerNorm(512)]
    shutil.copytree(artifact, tmp_path / "copy")
    save_program(
        torch.nn.Sequential(*layers, torch.nn.Linear(512, 5)).eval(), tmp_path / "copy"
    )
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 2))
    forest = RandomForestRegressor(20, random_state=0).fit(rows, rows.sum(1) * 1e-3)

    deep = runner.load(
        msgspec.structs.replace(version, path=str(tmp_path / "copy")), "cpu"
    )

    assert deep.apart == ""
    assert load(forest.predict).apart == ""
    assert load(forest.predict, ONE).apart == ""


@pytest.mark.parametrize(
    ("row_s", "rows", "most_s"), [(0.001, 3, 2), (0.3, 1, 3), (0.3, 3, 9), (2, 4, 80)]
)
def test_the_check_takes_two_seconds_or_ten_answers_at_most(row_s, rows, most_s):
    now = [0.0]

    def answer(batch):
        now[0] += row_s * len(batch[0].data)
        return (Tensor("output", batch[0].data),)

    count = independence.rows_in_time(row_s * rows, rows)
    data = np.arange(count, dtype=float)
    verdict = independence.judge(
        answer,
        [([Tensor("input", data)], ["a row"] * count)],
        first_s=row_s * rows,
        tolerance=Tolerance(),
        clock=lambda: now[0],
    )

    assert verdict == ("", False)
    assert 4 * row_s * count * 0.99 <= now[0] <= most_s
    assert count >= 2


def test_a_model_that_becomes_slow_is_not_asked_for_ever():
    now = [0.0]

    def answer(batch):
        now[0] += 1.5
        return (Tensor("output", np.sort(batch[0].data)),)

    verdict = independence.judge(
        answer,
        [([Tensor("input", np.array([2.0, 1.0]))], ["row 1", "row 2"])],
        first_s=0.01,
        tolerance=Tolerance(),
        clock=lambda: now[0],
    )

    assert verdict == ("", False)
    assert now[0] <= 3.0


def test_checks_of_a_quick_model_take_no_time(load):
    started = time.monotonic()

    load(first)

    assert time.monotonic() - started < 0.2


def test_parameters_of_the_example_hold_in_the_check(tmp_path):
    from mlflow.models import infer_signature

    data = pandas.DataFrame({"text": ["a", "b"]})
    for folder, params in (("m", {"ranked": False}), ("n", {"ranked": True})):
        logged.save_pyfunc(
            tmp_path / folder,
            python_models.MaybeRanked(),
            signature=infer_signature(data, [1, 2], params={"ranked": False}),
            input_example=(data, params),
        )

    assert runner.load(logged.version(tmp_path / "m"), "cpu").apart == ""
    assert runner.load(logged.version(tmp_path / "n"), "cpu").apart
