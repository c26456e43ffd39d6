"""Import customers from a CSV file: check all of it first, then add all or none."""

import csv
import io
import re
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.customers import changes
from accounts.models import Customer, Plan
from accounts.models.customers import UNSEEN_NAME, as_read

COLUMNS = ("name", "plan", "contact_email", "notes")
_REQUIRED = {"name", "plan"}
MOST = 5000
# The key of values beyond the columns.
_FURTHER = ""
LARGEST_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class LineProblem:
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """The customers a file would add; it cannot be imported while it has problems."""

    customers: tuple[Customer, ...]
    problems: tuple[LineProblem, ...]


def decode(content: bytes) -> str:
    """Read the bytes of a file; raise ValidationError if they are not text."""
    if len(content) > LARGEST_BYTES:
        raise ValidationError("This file is too large.")
    try:
        # Spreadsheets put a byte order mark in front.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError("This file is not UTF-8.") from None


def read(text: str) -> ImportedFile:
    """Check every line against the others and the database; change nothing."""
    if "\0" in text:
        return ImportedFile((), (LineProblem(1, "This file is not text."),))
    # The CSV reader knows the line ends of all systems.
    file = io.StringIO(text, newline="")
    reader = csv.DictReader(file, strict=True, restkey=_FURTHER, restval=None)
    lines: list[tuple[int, dict[str, str]]] = []
    broken: tuple[LineProblem, ...] = ()
    try:
        heading = tuple(name.strip().lower() for name in reader.fieldnames or ())
        while heading and not heading[-1]:
            # Spreadsheets write empty columns at the end.
            heading = heading[:-1]
        problem = _problem_of(heading)
        if problem:
            return ImportedFile((), (LineProblem(1, problem),))
        reader.fieldnames = heading
        for row in reader:
            if not "".join(row.get(_FURTHER, ())).strip():
                row.pop(_FURTHER, None)
            if any(
                isinstance(text, list) or (text or "").strip() for text in row.values()
            ):
                lines.append((reader.line_num, row))
    except csv.Error as error:
        # The reader's count ends at the last line that it could read.
        broken = (LineProblem(reader.line_num + 1, f"This is not CSV: {error}."),)
    if not lines and not broken:
        return ImportedFile((), (LineProblem(1, "There is no customer in this file."),))
    if len(lines) > MOST:
        return ImportedFile(
            (), (LineProblem(1, f"More than {MOST} customers at once."),)
        )
    reading = _check(lines)
    return ImportedFile(reading.customers, reading.problems + broken)


def _problem_of(heading: tuple[str, ...]) -> str:
    if len(heading) == 1 and re.search("[;\t|]", heading[0]):
        return "Separate columns with commas."
    if "" in heading:
        return "A column has no name."
    missing = sorted(_REQUIRED - set(heading))
    if missing:
        return f"The first line must name the columns; missing: {', '.join(missing)}."
    unknown = sorted(set(heading) - set(COLUMNS))
    if unknown:
        return f"There are no such columns: {', '.join(unknown)}."
    if len(set(heading)) < len(heading):
        return "A column comes twice."
    return ""


def _check(lines: list[tuple[int, dict[str, str]]]) -> ImportedFile:
    plans = {plan.name: plan for plan in Plan.objects.filter(retired=False)}
    taken = set(Customer.objects.values_list("name_as_read", flat=True))
    customers: list[Customer] = []
    problems: list[LineProblem] = []
    for line, row in lines:
        try:
            customer = _customer(row, plans, taken)
        except ValidationError as error:
            problems += [LineProblem(line, text) for text in error.messages]
            # A later line with the same name is a problem, too.
            taken.add(as_read(row.get("name") or ""))
            continue
        taken.add(as_read(customer.name))
        customers.append(customer)
    return ImportedFile(tuple(customers), tuple(problems))


def _customer(row: dict[str, str], plans: dict[str, Plan], taken: set[str]) -> Customer:
    """Make the customer of a line; raise ValidationError with all its problems."""
    if _FURTHER in row:
        raise ValidationError("There are more values than columns.")
    if None in row.values():
        raise ValidationError("There are fewer values than columns.")
    values = {column: text.strip() for column, text in row.items()}
    problems = []
    plan = plans.get(values.pop("plan"))
    if plan is None:
        problems.append(f"There is no plan “{row['plan'].strip()}” on offer.")
    read = as_read(values["name"])
    if values["name"] and not read:
        problems.append(f"name: {UNSEEN_NAME}")
    elif values["name"] and read in taken:
        problems.append(f"There is a customer “{values['name']}” already.")
    customer = Customer(plan=plan, **values)
    try:
        # Not `full_clean`: `taken` saves a query per line for the name.
        customer.clean_fields(exclude=["plan"])
    except ValidationError as error:
        problems += [
            f"{field}: {text}"
            for field, texts in error.message_dict.items()
            for text in texts
        ]
    if problems:
        raise ValidationError(problems)
    return customer


@transaction.atomic
def add(text: str) -> int:
    """Add all customers of a file, or raise ValidationError and add none.

    The file is read again: a name may have been taken since it was shown.
    """
    reading = read(text)
    if reading.problems:
        raise ValidationError(
            [f"Line {problem.line}: {problem.text}" for problem in reading.problems]
        )
    for customer in reading.customers:
        changes.save(customer)
    return len(reading.customers)
