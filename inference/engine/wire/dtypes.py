"""Names of element types that numpy lacks. Pure."""

# Floats hold whole numbers up to here, and of those beyond only some.
MAX_WHOLE_FLOAT = 2**53
# Dtypes that numpy has no name for: text, bytes, and whatever else JSON can say.
TEXT = "str"
BYTES = "bytes"
JSON = "json"
OBJECT_DTYPES = frozenset({TEXT, BYTES, JSON})
# UTC without a zone, as MLflow and pandas have it.
DATETIME = "datetime64[ns]"
