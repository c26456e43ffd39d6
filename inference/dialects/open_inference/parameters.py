"""Read the parameters of a request of the Open Inference Protocol."""

from typing import Any

from inference.codecs.decoding import DecodedRequest
from inference.codecs.options import MAX_TIMEOUT_MS, NO_OPTIONS, Options
from inference.codecs.parameters import ParameterReader
from inference.dialects.open_inference.messages import RequestedOutput
from inference.errors import refusals
from inference.errors.problems import with_facts
from inference.snapshot.targets import Target

# Ignored: the priority in Triton's queues, and the type for MLServer's codecs.
_OTHERS = frozenset({"priority", "content_type"})
# Refused: they are for stateful models, which are not served here.
_SEQUENCES = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class OpenInferenceRequest(DecodedRequest, frozen=True, kw_only=True, gc=False):
    """A decoded request, and how the answer must be written."""

    id: str | None = None
    requested: tuple[RequestedOutput, ...] | None = None
    # Default for outputs: raw bytes.
    binary: bool = False


def _read_timeout(timeout_us: Any) -> Options:
    """Read Triton's parameter `timeout`, in microseconds."""
    if type(timeout_us) is not int or timeout_us < 1:
        raise refusals.invalid(
            "The parameter `timeout` must be a whole number of microseconds, 1 or more."
        )
    return Options(timeout_ms=min(max(timeout_us // 1000, 1), MAX_TIMEOUT_MS))


def read_parameters(
    given: dict[str, Any], target: Target
) -> tuple[bool, Options, dict[str, Any] | None]:
    """Return whether outputs are raw bytes, the options, and the model's own params."""
    binary, options = False, NO_OPTIONS
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name == "binary_data_output":
            if type(value) is not bool:
                raise refusals.invalid("`binary_data_output` must be true or false.")
            binary = value
        elif name == "timeout":
            options = _read_timeout(value)
        elif name in _SEQUENCES:
            raise refusals.invalid(
                "Models here keep no state, so sequence parameters are refused."
            )
        elif name not in _OTHERS:
            own[name] = value
    if not own:
        return binary, options, None
    params, problems = target.compiled(parameter_reader).read(own)
    if problems:
        raise with_facts(problems)
    return binary, options, params


def parameter_reader(target: Target) -> ParameterReader:
    """Make the reader of a version's own parameters, for `Target.compiled`."""
    return ParameterReader(target.signature.params)
