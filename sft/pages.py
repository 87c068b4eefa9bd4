"""The environment that HTML pages are rendered in: everything is fit to print and escaped, and an
unknown name is an error.

Pages with filters share `filter_style.j2`. A page with a script lets only this one run: its policy holds the hash of
the script.
"""

import base64
import hashlib
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sft.printable import fit_to_print, short_name


class PageScript(NamedTuple):
    """The script of a page."""

    text: Markup
    hash: str
    """For `script-src` in the page's policy."""


def page_environment(package: str) -> Environment:
    """The environment for the templates in `package`, and those that pages share."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("sft", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short_name"] = short_name
    return environment


def page_script(environment: Environment, template: str) -> PageScript:
    """The script in a template; it holds no data."""
    script = environment.get_template(template).render().strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return PageScript(Markup(script), f"sha256-{digest}")


def _fit(value: Any) -> Any:
    return fit_to_print(value) if isinstance(value, str) and not isinstance(value, Markup) else value
