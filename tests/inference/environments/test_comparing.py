import pytest

from inference.environments.comparing import Asked, Installed, Verdict, compare

HERE = Installed(
    python="3.11.7",
    packages={
        "numpy": "2.4.6",
        "pandas": "3.1.1",
        "scikit-learn": "1.9.1",
        "mlflow": "3.17.2",
        "torch": "2.13.0+cpu",
        "psutil": "7.2.2",
        "attrs": "26.1.0",
        "own-features": "2.1.0",
        "opencv-python-headless": "5.0.0",
        "odd": "not a version",
    },
)


@pytest.mark.parametrize(
    ("line", "verdict", "finding"),
    [
        ("scikit-learn==1.9.1", Verdict.FITS, None),
        # Another patch of the same minor version.
        ("scikit-learn==1.9.0", Verdict.FITS, None),
        (
            "scikit-learn==1.5.2",
            Verdict.DIFFERS,
            "scikit-learn 1.5 was asked for, 1.9 is here.",
        ),
        ("scikit-learn>=1.2", Verdict.FITS, None),
        (
            "scikit-learn<1.6,>=1.2",
            Verdict.DIFFERS,
            "scikit-learn<1.6,>=1.2 was asked for, 1.9.1 is here.",
        ),
        (
            "scikit-learn==1.5.*",
            Verdict.DIFFERS,
            "scikit-learn==1.5.* was asked for, 1.9.1 is here.",
        ),
        # An exact version of what is not stored by minor versions.
        ("numpy==2.1.0", Verdict.FITS, None),
        ("numpy==1.26.4", Verdict.DIFFERS, "numpy 1.26 was asked for, 2.4 is here."),
        ("pandas==2.2.3", Verdict.DIFFERS, "pandas 2.2 was asked for, 3.1 is here."),
        ("own_features==2.0", Verdict.FITS, None),
        (
            "own-features==1.9",
            Verdict.DIFFERS,
            "own-features 1.9 was asked for, 2.1 is here.",
        ),
        # Numbered by years.
        ("attrs==23.1.0", Verdict.FITS, None),
        # It reads what an earlier one wrote, not what a later one wrote.
        ("torch==2.4.1", Verdict.FITS, None),
        ("torch==2.14.0", Verdict.DIFFERS, "torch 2.14 was asked for, 2.13 is here."),
        # Nothing of them is in an artifact.
        ("mlflow==2.9.2", Verdict.FITS, None),
        ("mlflow<3", Verdict.FITS, None),
        ("mlflow-skinny==3.1", Verdict.FITS, None),
        ("psutil==5.9.8", Verdict.FITS, None),
        ("pip<24", Verdict.FITS, None),
        (
            "lightgbm>=4",
            Verdict.LACKS,
            "It needs lightgbm>=4, which is not installed.",
        ),
        ("lightgbm; python_version < '3.9'", Verdict.FITS, None),
        ("lightgbm; sys_platform == 'win32'", Verdict.FITS, None),
        (
            "lightgbm; extra == 'x' or python_version >= '3.11'",
            Verdict.LACKS,
            "It needs lightgbm, which is not installed.",
        ),
        ("opencv-python>=4", Verdict.FITS, None),
        ("odd==1", Verdict.FITS, None),
        (
            "# -r: no other file is read.",
            Verdict.DIFFERS,
            "Not read: -r: no other file is read.",
        ),
        ("((", Verdict.DIFFERS, "Not read: (("),
    ],
)
def test_one_requirement(line, verdict, finding):
    fit = compare(Asked((line,), "3.11.2"), HERE)

    assert fit.verdict is verdict
    assert fit.findings == (() if finding is None else (finding,))


@pytest.mark.parametrize(
    ("python", "bytecode", "verdict"),
    [
        ("3.11.0", True, Verdict.FITS),
        ("3.12.1", False, Verdict.DIFFERS),
        ("3.12.1", True, Verdict.LACKS),
        ("unknown", True, Verdict.FITS),
        ("", True, Verdict.FITS),
        ("3", True, Verdict.FITS),
    ],
)
def test_another_python_matters_most_to_bytecode(python, bytecode, verdict):
    fit = compare(Asked((), python, bytecode), HERE)

    assert fit.verdict is verdict
    assert all("Python 3.12" in finding for finding in fit.findings)


def test_what_is_missing_comes_first_and_findings_are_bounded():
    lines = ("numpy==1.26.4", *(f"missing-{number}" for number in range(30)))

    fit = compare(Asked(lines), HERE)

    assert fit.verdict is Verdict.LACKS
    assert fit.findings[0] == "It needs missing-0, which is not installed."
    assert len(fit.findings) == 21
    assert fit.findings[-1] == "And 11 more."
