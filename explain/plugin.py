"""Turn a request's tensors into explanations: the plug-in of the engine.

The engine loads it by dotted path, so gradients and predictions run where the model is.
It must not import Django.
"""

from collections.abc import Sequence

import numpy as np

from explain import features, plots, targets
from explain.explainers import gradient, table
from explain.question import Attributions, CannotExplain, Floats, Question, Rows
from inference.engine.explaining.plugins import ExplainableModel, ExplainResult
from inference.engine.signatures.signature import Signature
from inference.engine.wire.messages import Attribution, ExplainOptions, Explanation
from inference.engine.wire.tensors import Tensor

_MOST_SAMPLES = 100_000
# The greatest seed that numpy accepts.
_GREATEST_SEED = 2**32 - 1
_SIMPLE_FEATURES = 5
_BACKGROUND = "background"


def explain(
    model: ExplainableModel, tensors: tuple[Tensor, ...], options: ExplainOptions
) -> ExplainResult:
    """Explain every row; with `options.plot` also draw the first.

    Raises EngineError NOT_EXPLAINABLE for a model, BAD_REQUEST for options.
    """
    signature = model.signature
    features.check_explainable(signature)
    _check(options)
    if _BACKGROUND not in model.cache:
        model.cache[_BACKGROUND] = features.read_background(signature, model.path)
    rows = features.to_matrix(signature, tensors)

    def predict(matrix: Rows) -> Floats:
        outputs = model.predict(features.to_tensors(signature, matrix, like=tensors))
        return targets.as_columns(outputs[0].data, signature)

    def waited(seconds: float) -> None:
        model.waited_s += seconds

    chosen = targets.choose(predict(rows), signature, options.target)
    question = Question(
        rows=rows,
        background=model.cache[_BACKGROUND],
        targets=chosen,
        predict=predict,
        function=targets.differentiable(model.torch_function, signature),
        samples=options.samples,
        seed=options.seed,
        waited=waited,
    )
    try:
        method, attributions = table.answer(question, method=options.method)
    except CannotExplain as error:
        raise features.bad_option("method", str(error)) from error
    if not np.isfinite(attributions.values).all():
        raise features.not_explainable(
            "The model gives values that are not finite near this instance."
        )
    given = [
        [_plain(value) for value in features.values_of_row(signature, tensors, index)]
        for index in range(len(rows))
    ]
    explanations = tuple(
        _explanation(index, method, question, attributions, signature, options, told)
        for index, told in enumerate(given)
    )
    svg = None
    if options.plot:
        svg = plots.draw_waterfall(
            names=[column.name for column in signature.columns],
            row=given[0],
            values=attributions.values[0].tolist(),
            base_value=float(attributions.base_values[0]),
            title=targets.title(signature, int(chosen[0])),
        )
    return ExplainResult(explanations, int(attributions.samples.sum()), svg)


def warm_up() -> None:
    """Prepare torch, so that the first explanation by gradients does not wait."""
    gradient.warm_up()


def _check(options: ExplainOptions) -> None:
    if not 0 <= options.samples <= _MOST_SAMPLES:
        raise features.bad_option("samples", f"It must be from 0 to {_MOST_SAMPLES}.")
    if not 0 <= options.seed <= _GREATEST_SEED:
        raise features.bad_option("seed", f"It must be from 0 to {_GREATEST_SEED}.")


def _explanation(
    index: int,
    method: str,
    question: Question,
    attributions: Attributions,
    signature: Signature,
    options: ExplainOptions,
    given: Sequence[float | bool | None],
) -> Explanation:
    """Describe row `index`, sent as `given`, with its largest attributions first."""
    values = attributions.values[index]
    order = np.argsort(-abs(values), kind="stable")
    if options.level == "simple":
        order = order[:_SIMPLE_FEATURES]
    return Explanation(
        method=method,
        level=options.level,
        base_value=float(attributions.base_values[index]),
        target=targets.label(signature, int(question.targets[index])),
        samples=int(attributions.samples[index]),
        features=tuple(
            Attribution(
                feature=signature.columns[column].name,
                value=given[column],
                attribution=float(values[column]),
            )
            for column in order
        ),
        additivity_residual=float(attributions.residuals[index]),
    )


def _plain(value: np.generic | bool | None) -> float | bool | None:
    """Return the shortest number that reads as the same float32; None for NaN."""
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    number = float(str(value))
    return None if np.isnan(number) else number
