"""Name the dtypes that numpy lacks."""

# float64 holds every whole number up to here, but not every larger one.
MAX_WHOLE_FLOAT = 2**53
# Dtypes for which numpy has no name: text, bytes, and other JSON values.
TEXT = "str"
BYTES = "bytes"
JSON = "json"
OBJECT_DTYPES = frozenset({TEXT, BYTES, JSON})
# UTC without a time zone, as in MLflow and pandas.
DATETIME = "datetime64[ns]"
