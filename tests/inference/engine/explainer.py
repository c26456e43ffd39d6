"""Explain in tests: the base values are the model's own outputs."""

from inference.engine.explaining.plugins import ExplainResult
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Explanation


def explain(model, tensors, options):
    if options.target == "refuse":
        raise EngineError(EngineErrorCode.BAD_REQUEST, "no such class")
    if options.target == "crash":
        raise ZeroDivisionError
    if options.target == "quote":
        raise ValueError(f"cannot explain {tensors[0].data.ravel()[0]}")
    model.cache["calls"] = model.cache.get("calls", 0) + 1
    (output,) = model.predict(tensors)
    explanations = tuple(
        Explanation(
            method="test",
            level=options.level,
            base_value=float(row[0]),
            target=None,
            samples=options.samples,
            features=(),
            additivity_residual=float(model.cache["calls"]),
        )
        for row in output.data
    )
    return ExplainResult(explanations, options.samples * len(explanations))
