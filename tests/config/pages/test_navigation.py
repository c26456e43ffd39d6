import pytest
from django.apps import apps
from django.utils.text import capfirst

from config.pages import navigation

ENTRIES = [
    (label, title)
    for entries in navigation._NAVIGATION.values()
    for label, title, _ in entries
    if label.startswith("accounts.")
]


@pytest.mark.parametrize(("label", "title"), ENTRIES)
def test_a_list_has_one_name_in_the_sidebar_and_above_itself(label, title):
    assert capfirst(apps.get_model(label)._meta.verbose_name_plural) == title
