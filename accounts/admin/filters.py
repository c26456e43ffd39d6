"""Filter and page long lists without reading more rows than are shown."""

from functools import cached_property
from typing import Any, ClassVar

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter, TextFilter

# Rows of a long list that can be paged through.
MOST_ROWS = 10_000
# The operations of calls; `inference` defines them.
_OPERATIONS = ("predict", "batch", "explain", "embed", "stream", "job")
_Condition = dict[str, str | int]
_RESULTS: dict[str, _Condition] = {
    "answered": {"status__lt": 400},
    "refused": {"status__gte": 400, "status__lt": 500},
    "failed": {"status__gte": 500},
}


class NewestPaginator(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """Count and show the first 10,000 rows of a list; a filter finds the others."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_ROWS].count())


class ModelFilter(TextFilter):  # type: ignore[misc]  # unfold is untyped
    """Filter by the whole name of a model: there may be too many for a menu."""

    title = "model's name"
    parameter_name = "model"

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> QuerySet[Any] | None:
        return queryset.filter(model=self.value()) if self.value() else queryset


class _Choice(DropdownFilter):  # type: ignore[misc]  # unfold is untyped
    # By the name of the choice.
    conditions: ClassVar[dict[str, _Condition]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [(name, name) for name in self.conditions]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> QuerySet[Any] | None:
        return queryset.filter(**self.conditions.get(self.value(), {}))


class OperationFilter(_Choice):
    title = "operation"
    parameter_name = "operation"
    conditions: ClassVar[dict[str, _Condition]] = {
        name: {"operation": name} for name in _OPERATIONS
    }


class ResultFilter(_Choice):
    title = "result"
    parameter_name = "result"
    conditions = _RESULTS
