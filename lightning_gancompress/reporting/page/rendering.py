"""Rendering of templates, with autoescape, so that no name, setting or file can inject HTML."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str) -> Environment:
    """What renders the templates of a package."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


ENVIRONMENT = environment("lightning_gancompress.reporting.page")
ENVIRONMENT.filters["px"] = "{:.1f}".format


def render(template: str, **values: Any) -> str:
    """The text of a template in the folder beside this file."""
    return ENVIRONMENT.get_template(template).render(**values)
