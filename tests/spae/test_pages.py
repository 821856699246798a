"""Pages from templates: every key is filled, once, and the style is in them."""

import pytest

from spae import pages


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "pages_of_a_test").mkdir()
    (tmp_path / "pages_of_a_test" / "one.html").write_text(
        "<style>{{STYLE}}</style>{{A}}{{B}}{{A}}", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "pages_of_a_test"


def test_what_is_filled_in_is_not_filled_again(package):
    page = pages.fill(package, "one.html", {"A": r"{{B}}\1", "B": "é"})
    style, _, rest = page.partition("</style>")
    assert "--paper" in style
    assert rest == r"{{B}}\1é{{B}}\1"


def test_a_key_without_a_value(package):
    with pytest.raises(KeyError, match="B"):
        pages.fill(package, "one.html", {"A": ""})
