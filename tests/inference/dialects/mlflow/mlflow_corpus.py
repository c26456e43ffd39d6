"""Requests by model, to compare the dialect with `mlflow models serve`."""

import json
from typing import NamedTuple

JSON = "application/json"
CSV = "text/csv"


class Question(NamedTuple):
    name: str
    body: bytes
    content_type: str = JSON


def _json(name: str, **members) -> Question:
    return Question(name, json.dumps(members).encode())


def _csv(name: str, text: str) -> Question:
    return Question(name, text.encode(), CSV)


ROW = {"age": 30, "income": 2.5, "member": True, "score": 0.3}
COLUMNS = ["age", "income", "member", "score"]
VALUES = [30, 2.5, True, 0.3]

BAD_BODIES = [
    Question("not JSON", b"{"),
    Question("empty", b""),
    Question("a list", b"[1, 2]"),
    Question("a number", b"1"),
    Question("not UTF-8", b"\xff{}"),
    Question("no format", b"{}"),
    _json("an unknown format", columns=["a"], data=[[1]]),
    _json("two formats", inputs=[1], instances=[1]),
    _json("split is a list", dataframe_split=[1]),
    _json("split without data", dataframe_split={"columns": ["a"]}),
    _json("split with more", dataframe_split={"columns": [], "data": [], "x": 1}),
    _json("records is an object", dataframe_records={"a": 1}),
    _json("split is ragged", dataframe_split={"columns": ["a", "b"], "data": [[1]]}),
    _json("a scalar", inputs=None),
    Question("another media type", b"{}", "text/plain"),
    Question("another charset", b"{}", "application/json; charset=utf-16"),
    Question("another parameter", b"{}", "application/json; format=pandas-split"),
    Question("CSV not UTF-8", b"\xff\xfe", CSV),
    _csv("CSV is empty", ""),
    _csv("CSV is ragged", "a,b\n1,2,3,4\n1\n"),
]
TABLE = [
    _json("split", dataframe_split={"columns": COLUMNS, "data": [VALUES, VALUES]}),
    _json(
        "split with index",
        dataframe_split={"columns": COLUMNS, "data": [VALUES], "index": [7]},
    ),
    _json(
        "split in another order",
        dataframe_split={"columns": COLUMNS[::-1], "data": [VALUES[::-1]]},
    ),
    _json(
        "split with another column",
        dataframe_split={"columns": [*COLUMNS, "x"], "data": [[*VALUES, "y"]]},
    ),
    _json(
        "split without the optional column",
        dataframe_split={"columns": COLUMNS[:3], "data": [VALUES[:3]]},
    ),
    _json("split lacks one", dataframe_split={"columns": ["age"], "data": [[1]]}),
    _json("split without names", dataframe_split={"data": [VALUES]}),
    _json("records", dataframe_records=[ROW, {**ROW, "age": 50}]),
    _json(
        "records with an integer for a double", dataframe_records=[{**ROW, "income": 2}]
    ),
    _json("records with text for a number", dataframe_records=[{**ROW, "income": "2"}]),
    _json("records with a word", dataframe_records=[{**ROW, "income": "much"}]),
    _json(
        "records with null for an optional", dataframe_records=[{**ROW, "score": None}]
    ),
    _json("records with another", dataframe_records=[{**ROW, "x": 1}]),
    _json("records lack one", dataframe_records=[{"age": 1}]),
    _json("instances", instances=[ROW, ROW]),
    _json("instances of lists", instances=[VALUES]),
    _json(
        "instances of columns", instances={name: [value] for name, value in ROW.items()}
    ),
    _json("inputs", inputs={name: [value, value] for name, value in ROW.items()}),
    _json("inputs of scalars", inputs=ROW),
    _json("inputs of rows", inputs=[ROW, ROW]),
    _json("inputs of lists", inputs=[VALUES]),
    _json(
        "inputs of several lengths",
        inputs={**{n: [v] for n, v in ROW.items()}, "age": [1, 2]},
    ),
    _json("params that are none of its", inputs=[ROW], params={"x": 1}),
    _json("other members", inputs=[ROW], x=1),
    _csv("CSV", "age,income,member,score\n30,2.5,True,0.3\n40,1.5,False,0.1\n"),
    _csv("CSV with an index", ",age,income,member,score\n0,30,2.5,True,0.3\n"),
    _csv("CSV with a gap", "age,income,member,score\n30,2.5,True,\n"),
    _csv("CSV in another order", "income,age,score,member\n2.5,30,0.3,True\n"),
    _csv(
        "CSV with quotes", '"age","income","member","score"\n"30","2.5","True","0.3"\n'
    ),
    _csv("CSV lacks one", "age\n30\n"),
    _csv("CSV with a word", "age,income,member,score\nold,2.5,True,0.3\n"),
    Question(
        "charset",
        json.dumps({"inputs": [ROW]}).encode(),
        "application/json; charset=utf-8",
    ),
]
TENSOR = [
    _json("inputs", inputs=[[1.5, 2, 3], [4, 5, 6]]),
    _json("instances", instances=[[1, 2, 3]]),
    _json("split", dataframe_split={"columns": ["a", "b", "c"], "data": [[1, 2.5, 3]]}),
    _json("text for a number", inputs=[["1.5", "2", "3"]]),
    _json("a word", inputs=[["one", 2, 3]]),
    _json("too few", inputs=[[1, 2]]),
    _json("too many", inputs=[[1, 2, 3, 4]]),
    _json("flat", inputs=[1, 2, 3]),
    _json("too deep", inputs=[[[1, 2, 3]]]),
    _json("ragged", inputs=[[1, 2, 3], [1, 2]]),
    _json("nothing", inputs=[]),
    _json("null", inputs=[[None, [], 3]]),
    _json(
        "split too wide",
        dataframe_split={"columns": list("abcd"), "data": [[1, 2, 3, 4]]},
    ),
]
TEXT = [
    _json("split", dataframe_split={"columns": ["text"], "data": [["a"], ["é"]]}),
    _json("records", dataframe_records=[{"text": "a"}]),
    _json("instances", instances=[{"text": "a"}, {"text": "bc"}]),
    _json("instances bare", instances=["a", "bc"]),
    _json("inputs of a column", inputs={"text": ["a", "bc"]}),
    _json("inputs of rows", inputs=[{"text": "a"}]),
    _json("inputs bare", inputs=["a", "bc"]),
    _json("another column", dataframe_records=[{"words": "a"}]),
    _csv("CSV", 'text\na\n"b,c"\n'),
    _csv("CSV over lines", 'text\n"b\nc"\n'),
    _json("params", inputs=["a"], params={"times": 2, "end": "?"}),
    _json("one param", inputs=["a"], params={"times": 3}),
    _json("a param of another type", inputs=["a"], params={"times": "often"}),
    _json("params is a list", inputs=["a"], params=[1]),
    _json("an unknown param", inputs=["a"], params={"loudness": 3}),
]
ODD_ROW = {'size 27"': 1.5, "a\\b": 2, "line\nbreak": 3}
NAMES = [
    _json(
        "split",
        dataframe_split={"columns": [*ODD_ROW], "data": [[*ODD_ROW.values()]] * 2},
    ),
    _json("records", dataframe_records=[ODD_ROW, dict(reversed(ODD_ROW.items()))]),
    _json("inputs", inputs={name: [value] for name, value in ODD_ROW.items()}),
    _json("a word", dataframe_records=[ODD_ROW | {"a\\b": "x"}]),
    _json("lacks one", dataframe_records=[{"a\\b": 2}]),
]
TYPED_ROW = {"name": "a", "size": 1.5, "tags": ["x", "y"]}
TYPED = [
    _json("inputs", inputs=[TYPED_ROW, TYPED_ROW | {"note": "b"}]),
    _json("null for an optional", inputs=[TYPED_ROW | {"note": None}]),
    _json("a whole number", inputs=[TYPED_ROW | {"size": 2}]),
    _json("a rule of its own", inputs=[TYPED_ROW | {"size": -1.0}]),
    _json("a word", inputs=[TYPED_ROW | {"size": "much"}]),
    _json("lacks one", inputs=[{"name": "a"}]),
    _json("no object", inputs=["a"]),
]
MAPS = [
    _json("inputs", inputs=[{"a": 1.5, "b": 2.0}, {"c": 3.5}]),
    _json("one", inputs=[{"x": 1.5}]),
    _json("a word", inputs=[{"a": "much"}]),
    _json("no object", inputs=[1.5]),
]
LISTS = [
    _json("inputs", inputs={"a": ["x", "y"], "b": ["z"]}),
    _json("records", dataframe_records=[{"a": ["x"], "b": []}] * 2),
    _json("a number", inputs={"a": [1], "b": ["z"]}),
    _json("no list", inputs={"a": "x", "b": ["z"]}),
]
QUESTIONS = {
    "typed": TYPED,
    "maps": MAPS,
    "lists": LISTS,
    "names": NAMES,
    "table": TABLE + BAD_BODIES,
    "tensor": TENSOR + BAD_BODIES,
    "text": TEXT + BAD_BODIES,
}
