"""Self-contained HTML pages, filled from templates, in one style: that of the service's page."""

import re
from collections.abc import Mapping
from importlib.resources import files


def fill(package: str, name: str, values: Mapping[str, str]) -> str:
    """The template `name` of a package, each {{KEY}} in it replaced by its value (HTML, or text that was escaped) and
    {{STYLE}} by what all pages share."""
    style = (files("spae") / "service" / "page" / "common.css").read_text("utf-8")
    template = (files(package) / name).read_text("utf-8")
    filled = {"STYLE": style.rstrip(), **values}
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda key: filled[key[1]], template)
