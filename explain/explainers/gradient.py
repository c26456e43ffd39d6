"""Compute SHAP values of differentiable models by expected gradients.

Between each background row b and the row x, integrated gradients (Sundararajan et al.
2017) divide f(x) - f(b) among the features. Their mean over the background is expected
gradients (Erion et al. 2021). For an additive model these are the SHAP values of
Lundberg & Lee (2017); where features interact they share the interaction along the
straight path (Aumann-Shapley) instead of over all orders of the features.

Erion et al. draw one random point of each path. Here all paths have Gauss-Legendre
nodes, which need fewer passes for the same residual and no random numbers.
"""

from collections.abc import Callable

import numpy as np
import torch

from explain.question import (
    Attributions,
    CannotExplain,
    Floats,
    Question,
    choose_background,
)

# Nodes on each path in the first round, and in the last round for rows whose residual
# is still too large. A small budget reduces the background rows before the nodes.
_FIRST_NODES = 8
_LAST_NODES = 64
# Greatest good residual, relative to the spread of the background's outputs.
_TOLERANCE = 1e-3
# Most input values in one pass, to limit the memory for activations.
_MAX_VALUES = 2**20
_MAX_ROWS = 2**14

_Function = Callable[[torch.Tensor], torch.Tensor]


def why_not(question: Question) -> str | None:
    if question.function is None or question.rows.dtype.kind != "f":
        return "needs a torch model whose inputs are floats"
    return None


def attribute(question: Question) -> Attributions:
    """Explain every row; rows that are not accurate enough get more nodes.

    With `samples` set, there is only one round of about that many passes.
    """
    function = question.function
    if function is None:
        raise CannotExplain("The model has no gradients.")
    nodes = _FIRST_NODES
    last_nodes = _LAST_NODES
    background = question.background
    if question.samples:
        size = max(1, question.samples // _FIRST_NODES)
        background = choose_background(background, at_most=size, seed=question.seed)
        nodes = last_nodes = max(1, question.samples // len(background))

    with torch.enable_grad():
        # A copy, since arrays from a socket are read-only, which torch does not accept.
        rows = torch.from_numpy(np.array(question.rows))
        base = torch.from_numpy(np.ascontiguousarray(background))
        targets = torch.from_numpy(question.targets)
        device = function(base[:1]).device
        rows, base, targets = rows.to(device), base.to(device), targets.to(device)
        outputs = _outputs(function, rows, targets)
        # [background rows, outputs] once, then the column of each row's target.
        base_outputs = _all_outputs(function, base)[:, targets.cpu().numpy()]
        base_values = base_outputs.mean(axis=0)
        spread = np.maximum(np.ptp(base_outputs, axis=0), abs(outputs - base_values))

        values = np.zeros(rows.shape, dtype=np.float64)
        samples = np.zeros(len(rows), dtype=np.intp)
        unfinished = np.arange(len(rows))
        while len(unfinished):
            values[unfinished] = _integrate(
                function, rows[unfinished], base, targets[unfinished], nodes=nodes
            )
            samples[unfinished] += nodes * len(base)
            residuals = outputs - base_values - values.sum(axis=1)
            nodes *= 2
            if nodes > last_nodes:
                break
            unfinished = np.flatnonzero(abs(residuals) > _TOLERANCE * spread)
    return Attributions(values, base_values, outputs, samples)


def _integrate(
    function: _Function,
    rows: torch.Tensor,
    background: torch.Tensor,
    targets: torch.Tensor,
    *,
    nodes: int,
) -> Floats:
    """Return the mean over the background of the integrated gradients."""
    positions, weights = np.polynomial.legendre.leggauss(nodes)
    alphas = torch.tensor((positions + 1) / 2, dtype=rows.dtype, device=rows.device)
    shares = torch.tensor(weights / 2, dtype=torch.float64, device=rows.device)
    features = rows.shape[1]
    paths_per_pass = max(1, min(_MAX_ROWS, _MAX_VALUES // features) // nodes)

    sums = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
    # A path is a pair of row and background row; all have the same nodes.
    paths = len(rows) * len(background)
    for start in range(0, paths, paths_per_pass):
        path = torch.arange(start, min(start + paths_per_pass, paths))
        row, base = path // len(background), path % len(background)
        steps = rows[row] - background[base]
        points = background[base, None] + alphas[:, None] * steps[:, None]
        points = points.reshape(-1, features).requires_grad_()
        chosen = _choose(function(points), targets[row].repeat_interleave(nodes))
        gradients = _gradients(chosen.sum(), points).view(-1, nodes, features)
        mean_gradients = (gradients.double() * shares[:, None]).sum(dim=1)
        sums.index_add_(0, row.to(sums.device), mean_gradients * steps.double())
    result: Floats = (sums / len(background)).cpu().numpy()
    return result


def _gradients(total: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    if not total.requires_grad:
        raise CannotExplain("The model does not pass gradients to its inputs.")
    (gradients,) = torch.autograd.grad(total, points, allow_unused=True)
    return torch.zeros_like(points) if gradients is None else gradients


def _choose(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.gather(1, targets[:, None])[:, 0]


def _outputs(function: _Function, rows: torch.Tensor, targets: torch.Tensor) -> Floats:
    columns: Floats = _all_outputs(function, rows)
    chosen: Floats = columns[np.arange(len(rows)), targets.cpu().numpy()]
    return chosen


def _all_outputs(function: _Function, rows: torch.Tensor) -> Floats:
    with torch.no_grad():
        outputs: Floats = function(rows).double().cpu().numpy()
    return outputs


def warm_up() -> None:
    """Differentiate once, since torch prepares for that at the first call."""
    attribute(
        Question(
            rows=np.ones((1, 2), dtype=np.float32),
            background=np.zeros((2, 2), dtype=np.float32),
            targets=np.zeros(1, dtype=np.intp),
            predict=lambda rows: rows.sum(axis=1, keepdims=True),
            function=lambda rows: rows.sum(dim=1, keepdim=True),
        )
    )
