"""Register every demo model in one process: `python examples [--if-missing]`."""

import tracking  # noqa: F401  first, as it says what MLflow reads on import

# isort: split

import breast_cancer
import diabetes
import digits
import language
import sentences
import writer

for script in (breast_cancer, diabetes, digits, language, sentences, writer):
    try:
        script.main()
    except SystemExit as end:
        # With --if-missing a script exits if there is nothing to do.
        if end.code:
            raise
