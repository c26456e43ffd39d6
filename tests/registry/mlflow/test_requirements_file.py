import pytest

from registry.mlflow import requirements_file
from registry.mlflow.requirements_file import MAX_BYTES

INSTALLED_ONLY = "only packages of the index are installed."


def read(text: str | bytes) -> tuple[str, ...]:
    content = text if isinstance(text, bytes) else text.encode()
    return requirements_file.read({"requirements.txt": content}).lines


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Scikit_Learn == 1.5.2", "scikit-learn==1.5.2"),
        ("pandas<3,>=2.1", "pandas<3,>=2.1"),
        ("mlflow[gateway,Azure]>=2", "mlflow[azure,gateway]>=2"),
        ("numpy  # the fast one", "numpy"),
        ("\ufeffnumpy", "numpy"),
        (
            "numpy==1.26.4 \\\n  --hash=sha256:abc \\\n  --hash=sha256:def",
            "numpy==1.26.4",
        ),
        ("tomli; python_version < '3.11'", 'tomli; python_version < "3.11"'),
        ("-r other.txt", "# -r: no other file is read."),
        ("--requirement=../../etc/passwd", "# --requirement: no other file is read."),
        ("-e .", f"# -e: {INSTALLED_ONLY}"),
        ("code/x-1.0-py3-none-any.whl", f"# a file or an address: {INSTALLED_ONLY}"),
        ("/etc/passwd", f"# a file or an address: {INSTALLED_ONLY}"),
        (
            "git+https://me:secret@host/x.git",
            f"# a file or an address: {INSTALLED_ONLY}",
        ),
        ("x @ https://me:secret@host/x.whl", f"# x: {INSTALLED_ONLY}"),
        ("https://host/${TOKEN}/x.whl", "# a line with a variable: none is replaced."),
        ("what is this", "# what is this: it cannot be read."),
        ("x; " + "(" * 900, "# a file or an address"),
        ("x" * 5000, "# a line: it is too long to read."),
    ],
)
def test_a_line_becomes_a_requirement_or_says_why_not(line, kept):
    (found,) = read(line)

    if line.startswith("x; "):
        assert found.startswith("#")
    else:
        assert found == kept


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://me:secret@host/simple",
        "--extra-index-url=https://host/simple",
        "--find-links wheels",
        "--trusted-host host",
        "# only a comment",
        "",
    ],
)
def test_only_the_operator_chooses_the_index(line):
    assert read(line) == ()


def test_equal_requirements_give_equal_lines():
    assert read("b==1\r\na>=2,<3\n\n") == read("a<3,>=2\nB == 1\nb==1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfen\0u\0m\0p\0y\0", "# requirements.txt: it is not text."),
        (b"numpy\0", "# requirements.txt: it is not text."),
        (b"numpy\n" * (MAX_BYTES // 4), "# requirements.txt: it is too large to read."),
    ],
)
def test_what_is_no_text_is_not_read(content, said):
    assert read(content) == (said,)


def test_the_number_of_lines_is_bounded():
    lines = read("\n".join(f"p{number}" for number in range(5000)))

    assert len(lines) == 1001
    assert "# requirements.txt: only 1000 lines are read." in lines


def test_a_file_that_was_too_large_to_fetch_is_said():
    assert requirements_file.read({"requirements.txt": None}).lines == (
        "# requirements.txt: it is too large to read.",
    )


CONDA = b"""
dependencies:
- python=3.10.13
- pip<=24
- numpy=1.26
- pip: [mlflow==2.9, 'scikit-learn==1.3.2', -r more.txt]
"""


def test_conda_tells_packages_of_pip_and_the_python():
    asked = requirements_file.read({"conda.yaml": CONDA})

    assert asked.lines == (
        "# -r: no other file is read.",
        "# numpy: packages of conda are not used.",
        "mlflow==2.9",
        "scikit-learn==1.3.2",
    )
    assert asked.python == "3.10.13"


def test_requirements_win_over_conda_but_its_python_counts():
    asked = requirements_file.read({"conda.yaml": CONDA, "requirements.txt": b"a==1"})

    assert asked == (("a==1",), "3.10.13")


@pytest.mark.parametrize(
    ("files", "said", "python"),
    [
        ({"python_env.yaml": b"python: 3.12.1\n"}, "", "3.12.1"),
        ({"python_env.yaml": b"python: 3.12\n"}, "", "3.12"),
        ({"python_env.yaml": b"python: 3.12.1\n"}, "3.11.7", "3.11.7"),
        ({"python_env.yaml": b"python: [3]\n"}, "", "unknown"),
        ({"python_env.yaml": b"python: '../../bin/sh'\n"}, "", "unknown"),
        ({"conda.yaml": b"dependencies: [python]\n"}, "", "unknown"),
        ({"conda.yaml": b"dependencies: {a: b}\n"}, "", "unknown"),
        ({"conda.yaml": b"[[[[[" * 10_000}, "", "unknown"),
        ({"conda.yaml": b"a: !!python/object/apply:os.system [id]"}, "", "unknown"),
        ({}, "", "unknown"),
    ],
)
def test_the_python_is_found_or_unknown(files, said, python):
    assert requirements_file.read(files, python=said).python == python


def test_a_yaml_bomb_is_not_expanded():
    bomb = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n"
        % (97 + i, 97 + i, *([96 + i] * 8))
        for i in range(1, 12)
    )

    assert requirements_file.read({"conda.yaml": bomb + b"dependencies: *k\n"}) == (
        (),
        "unknown",
    )
