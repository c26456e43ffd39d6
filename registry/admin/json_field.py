"""A text box for JSON, which says what is wrong with what was typed."""

import json
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput
from unfold.widgets import UnfoldAdminTextareaWidget


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _refuse_doubles(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse objects with a repeated member, of which Python would keep the last."""
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        # Half of a character is escaped: pages cannot show it.
        raise ValueError(f"{json.dumps(twice)} is there more than once")
    return dict(members)


def _read(text: str) -> Any:
    """Read JSON; raise ValueError for what databases or pages cannot take.

    That is NaN, which Python reads too, a member that is there twice, and half a
    surrogate pair.
    """
    read = json.loads(
        text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_doubles
    )
    json.dumps(read, ensure_ascii=False).encode()
    return read


class JsonTextField(forms.JSONField):
    """A text box for JSON, in which an empty text stands for `nothing`."""

    def __init__(self, *, nothing: Any, example: Any, help_text: str) -> None:
        self.nothing = nothing
        self._example = json.dumps(example)
        super().__init__(
            required=False,
            help_text=help_text,
            widget=UnfoldAdminTextareaWidget(
                attrs={
                    "rows": 3,
                    "class": "font-mono",
                    "spellcheck": "false",
                    "placeholder": self._example,
                }
            ),
        )

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str):
            value = value.strip()
            self._require_json(value)
        read = super().to_python(value)
        return self.nothing if read is None else read

    def _require_json(self, text: str) -> None:
        """Raise ValidationError for text that is not JSON, or that cannot be kept."""
        try:
            _read(text or "null")
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(
                f"This is not JSON: {error}. Example: {self._example}",
                code="invalid",
            ) from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            if isinstance(data, str):
                _read(data.strip() or "null")
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            # Shown again as it was typed; `to_python` has said what is wrong.
            return InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if value is None or value == self.nothing:
            return ""
        return super().prepare_value(value)
