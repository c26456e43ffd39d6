import subprocess
import sys
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

from explain.explainers import row_by_row
from explain.plugin import explain
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import ExplainOptions
from inference.engine.wire.tensors import Tensor, object_array
from tests.explain.fakes import (
    FakeModel,
    matrix_signature,
    mlp,
    random_rows,
    write_background,
)

FEATURES = 7


@pytest.fixture
def model(tmp_path):
    write_background(tmp_path, random_rows(20, FEATURES, seed=1))
    return FakeModel(matrix_signature(FEATURES), tmp_path, mlp(FEATURES))


def rows(count=1):
    return (Tensor("input", random_rows(count, FEATURES, seed=2)),)


def test_nobody_pays_for_the_import_of_shap(model, monkeypatch):
    """The import takes seconds, during the first explanation that needs shap."""
    took_s = 1000.0
    clock = iter([5.0, 5.0 + took_s])
    monkeypatch.setattr(
        row_by_row, "time", SimpleNamespace(perf_counter=lambda: next(clock))
    )

    explain(model, rows(), ExplainOptions(method="permutation"))

    assert model.waited_s == took_s


def refusal(model, tensors, **options):
    with pytest.raises(EngineError) as caught:
        explain(model, tensors, ExplainOptions(**options))
    return caught.value


def test_simple_level_names_the_five_largest_attributions(model):
    simple = explain(model, rows(), ExplainOptions()).explanations[0]
    full = explain(model, rows(), ExplainOptions(level="full")).explanations[0]

    sizes = [abs(each.attribution) for each in full.features]
    assert len(full.features) == FEATURES
    assert sizes == sorted(sizes, reverse=True)
    assert simple.features == full.features[:5]


def test_explanation_says_what_it_explains_and_how(model):
    explanation = explain(model, rows(), ExplainOptions()).explanations[0]

    outputs = model.predict(rows())[0].data[0]
    total = explanation.base_value + explanation.additivity_residual
    full = explain(model, rows(), ExplainOptions(level="full")).explanations[0]
    total += sum(each.attribution for each in full.features)
    assert explanation.method == "gradient"
    assert explanation.target == model.signature.labels[outputs.argmax()]
    assert total == pytest.approx(outputs.max(), abs=1e-6)


def test_rows_that_came_over_a_socket_are_explained(model):
    data = random_rows(1, FEATURES, seed=2)
    data.flags.writeable = False

    received = explain(model, (Tensor("input", data),), ExplainOptions())

    assert received == explain(model, rows(), ExplainOptions())


def test_value_is_written_as_short_as_it_was_sent(model):
    tensors = (Tensor("input", np.full((1, FEATURES), 17.99, dtype="float32")),)

    explanation = explain(model, tensors, ExplainOptions()).explanations[0]

    assert explanation.features[0].value == 17.99


@pytest.mark.parametrize("target", ["benign", 1])
def test_target_is_named_by_label_or_index(model, target):
    explanations = explain(model, rows(3), ExplainOptions(target=target)).explanations

    assert [each.target for each in explanations] == ["benign"] * 3


def test_two_classes_have_opposite_attributions(model):
    results = [
        explain(model, rows(), ExplainOptions(target=label)).explanations[0]
        for label in model.signature.labels
    ]

    assert results[0].features[0].feature == results[1].features[0].feature
    assert results[0].features[0].attribution == pytest.approx(
        -results[1].features[0].attribution, abs=1e-5
    )


def test_unknown_target_is_refused_with_the_known_ones(model):
    error = refusal(model, rows(), target="unsure")

    assert error.code is EngineErrorCode.BAD_REQUEST
    assert "malignant, benign" in error.message
    assert error.option == "target"


@pytest.mark.parametrize(
    "options",
    [{"method": "magic"}, {"samples": -1}, {"samples": 10**9}, {"seed": -1}],
)
def test_bad_option_is_refused(model, options):
    error = refusal(model, rows(), **options)

    assert error.code is EngineErrorCode.BAD_REQUEST
    assert [error.option] == list(options)


def test_score_of_the_second_class_alone_is_explained_for_either(tmp_path):
    write_background(tmp_path, random_rows(20, FEATURES, seed=1))
    network = mlp(FEATURES)
    one = FakeModel(
        matrix_signature(FEATURES, decision_threshold=0.0),
        tmp_path,
        lambda x: network(x)[:, 1],
    )
    two = FakeModel(matrix_signature(FEATURES), tmp_path, network)

    options = ExplainOptions(target="malignant", level="full")
    single = explain(one, rows(), options).explanations[0]
    double = explain(two, rows(), options).explanations[0]

    assert single.base_value == pytest.approx(double.base_value, abs=1e-6)
    for left, right in zip(single.features, double.features, strict=True):
        assert left.attribution == pytest.approx(right.attribution, abs=1e-5)
    # Every score reaches a threshold of zero.
    assert explain(one, rows(), ExplainOptions()).explanations[0].target == "benign"


def test_regression_has_no_target(tmp_path):
    write_background(tmp_path, random_rows(20, FEATURES, seed=1))
    signature = matrix_signature(FEATURES, task=Task.REGRESSION, labels=())
    model = FakeModel(signature, tmp_path, lambda x: x.square().sum(dim=1))

    explanation = explain(model, rows(), ExplainOptions()).explanations[0]

    assert explanation.target is None
    assert refusal(model, rows(), target=0).code is EngineErrorCode.BAD_REQUEST


def test_table_of_mixed_columns_is_explained_without_gradients(tmp_path):
    (tmp_path / "background.json").write_text(
        '[{"age": 20, "smokes": false}, {"age": 40, "smokes": true}]'
    )
    signature = Signature(
        layout=Layout.TABLE,
        columns=(Column("age", dtype="int64"), Column("smokes", dtype="bool")),
        task=Task.REGRESSION,
        background="background.json",
    )
    risk = torch.tensor([[0.5], [10.0]])
    model = FakeModel(signature, tmp_path, lambda x: x @ risk, differentiable=False)
    tensors = (
        Tensor("age", np.array([50])),
        Tensor("smokes", np.array([True])),
    )

    explanation = explain(model, tensors, ExplainOptions()).explanations[0]

    assert explanation.method == "exact"
    found = {each.feature: each.attribution for each in explanation.features}
    assert found == pytest.approx({"age": 10.0, "smokes": 5.0})


def test_values_are_told_as_they_were_sent(tmp_path):
    (tmp_path / "background.json").write_text("[[20, false, 0.5, true, 1]]")
    signature = Signature(
        layout=Layout.TABLE,
        columns=(
            Column("age", dtype="int64"),
            Column("smokes", dtype="bool"),
            Column("rate", dtype="float32"),
            Column("drinks", dtype="bool", required=False),
            Column("height", required=False),
        ),
        task=Task.REGRESSION,
        background="background.json",
    )
    model = FakeModel(
        signature, tmp_path, lambda x: x.nan_to_num().sum(1), differentiable=False
    )

    def told(age):
        tensors = (
            Tensor("age", np.array([age, 40])),
            Tensor("smokes", np.array([True, False])),
            Tensor("rate", np.array([0.1, 0.2], np.float32)),
            Tensor("drinks", object_array([None, True])),
        )
        found = explain(model, tensors, ExplainOptions(level="full")).explanations
        return [{each.feature: each.value for each in one.features} for one in found]

    first, second = told(50)

    assert first["smokes"] is True
    assert second["smokes"] is False
    assert (first["drinks"], second["drinks"]) == (None, True)
    assert second["drinks"] is True
    assert (first["rate"], first["age"], first["height"]) == (0.1, 50, None)
    with pytest.raises(EngineError, match="cannot be explained exactly") as caught:
        told(2**53 + 1)
    assert caught.value.code is EngineErrorCode.NOT_EXPLAINABLE


@pytest.mark.parametrize(
    "signature",
    [
        Signature(layout=Layout.TENSOR, shape=(8, 8), background="background.npy"),
        Signature(layout=Layout.TABLE, columns=(Column("text", dtype="str"),)),
        matrix_signature(FEATURES, background=None),
        matrix_signature(FEATURES, background="missing.npy"),
        matrix_signature(FEATURES, background="../background.npy"),
        matrix_signature(FEATURES + 1),
    ],
    ids=["images", "texts", "unnamed", "missing", "outside", "other shape"],
)
def test_model_that_cannot_be_explained_says_why(tmp_path, signature):
    write_background(tmp_path, random_rows(3, FEATURES, seed=1))
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_background(folder, random_rows(3, FEATURES, seed=1))
    model = FakeModel(signature, folder, mlp(FEATURES))

    error = refusal(model, rows())

    assert error.code is EngineErrorCode.NOT_EXPLAINABLE
    assert error.message.endswith(".")
    assert str(tmp_path) not in error.message


def test_samples_are_summed_over_the_rows(model):
    result = explain(model, rows(3), ExplainOptions(samples=160))

    assert result.samples == sum(each.samples for each in result.explanations)
    assert 0 < result.samples <= 3 * 160


def test_explanations_can_be_sent(model):
    result = explain(model, rows(), ExplainOptions())

    sent = msgspec.msgpack.encode(result.explanations)

    assert msgspec.msgpack.decode(sent, type=tuple[type(result.explanations[0]), ...])


def test_plugin_imports_neither_django_nor_shap():
    check = (
        "import sys, explain.plugin as plugin; plugin.warm_up(); "
        "sys.exit(bool({'django', 'shap', 'mlflow'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
