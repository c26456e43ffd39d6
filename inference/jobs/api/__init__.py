"""Submit, read and cancel jobs over HTTP."""
