from xml.etree import ElementTree

import pytest

from explain import drawing, plots
from inference.engine.wire.errors import EngineError, EngineErrorCode

# One process of pytest starts the one that draws, for all of them.
pytestmark = pytest.mark.xdist_group("plots")


@pytest.fixture(scope="module", autouse=True)
def _drawing():
    """End the process."""
    yield
    plots.close()


@pytest.fixture(scope="module")
def svg():
    return plots.draw_waterfall(
        names=["worst_area", "<b>price</b> in $", "a" * 200, "missing"],
        row=[2019.0, 1.5, 0.25, None],
        values=[0.4, -0.2, 0.1, 0.01],
        base_value=0.3,
        title="Score of malignant",
    )


def test_waterfall_is_well_formed_and_escapes_names(svg):
    ElementTree.fromstring(svg)

    assert "<b>" not in svg
    assert "price" in svg


def test_waterfall_shows_names_values_and_title_as_text(svg):
    assert "worst area" in svg
    assert "2019" in svg
    assert "Score of malignant" in svg


def test_long_name_is_shortened(svg):
    assert "a" * 33 not in svg
    assert "…" in svg


LONG = "mean_of_the_last_twelve_months_of_"


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["worst_area", "x" * 32], ["worst area", "x" * 32]),
        ([LONG + "income"], ["mean of the last twelve months …"]),
        (
            [LONG + "income", LONG + "expenses"],
            ["mean of the l…e months of income", "mean of the l…months of expenses"],
        ),
        (
            [LONG + "a" * 30, LONG + "b" * 30],
            ["mean of the l…" + letter * 17 + "…" for letter in "ab"],
        ),
        # One name is the beginning of the other.
        (
            [LONG, LONG + "x"],
            ["mean of the l… twelve months of ", "mean of the l…twelve months of x"],
        ),
        (["net_income", "net income"], ["net income", "net income (2)"]),
        # A name comes twice only if both are the same column.
        (["x", "x"], ["x", "x (2)"]),
    ],
)
def test_labels_of_names_that_differ_do_too(names, labels):
    assert drawing.shorten(names) == labels


def test_same_explanation_is_drawn_the_same(svg):
    arguments = {
        "names": ["x"],
        "row": [1.0],
        "values": [0.5],
        "base_value": 0.1,
        "title": "Output",
    }

    assert plots.draw_waterfall(**arguments) == plots.draw_waterfall(**arguments)


def test_plot_that_cannot_be_drawn_is_an_error_of_the_model(svg):
    with pytest.raises(EngineError) as caught:
        plots.draw_waterfall(
            names=["x"], row=[1.0], values=[0.5, 0.5], base_value=0.1, title="Output"
        )

    assert caught.value.code is EngineErrorCode.MODEL_ERROR


def test_next_plot_is_drawn_after_the_process_has_ended(svg):
    plots.close()

    again = plots.draw_waterfall(
        names=["x"], row=[1.0], values=[0.5], base_value=0.1, title="Output"
    )

    assert again.endswith("</svg>\n")


def test_a_new_process_has_time_to_import_what_it_draws_with(monkeypatch):
    monkeypatch.setattr(plots, "_TIMEOUT_S", 0.01)
    plots.close()

    drawn = plots.draw_waterfall(
        names=["x"], row=[1.0], values=[0.5], base_value=0.1, title="Output"
    )

    assert drawn.endswith("</svg>\n")
