"""The environment that HTML pages are rendered in: everything is fit to print and escaped, and an
unknown name is an error.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sft.printable import fit_to_print, short_name


def page_environment(package: str) -> Environment:
    """The environment for the templates in `package`."""
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short_name"] = short_name
    return environment


def _fit(value: Any) -> Any:
    return fit_to_print(value) if isinstance(value, str) and not isinstance(value, Markup) else value
