"""Renders the explorer's pages, with headers that let a browser load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from pairmatch.core._version import __version__
from pairmatch.core.text import printable, replace_surrogates
from pairmatch.serving.explorer.people import shown

#: No script, style, image or request of another origin, and no page that frames this one.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


def page(template: str, status: int = 200, *, refresh: bool = False, **values: Any) -> Response:
    """An HTML page.

    Args:
        template: Name of the template, without its ending.
        status: HTTP status.
        refresh: Whether the browser asks again after two seconds.
        values: What the template shows; text of any origin is escaped.
    """
    text = _environment().get_template(f"{template}.html.jinja").render(values)
    headers = HEADERS | ({"Refresh": "2"} if refresh else {})
    return HTMLResponse(replace_surrogates(text), status, headers)


@cache
def asset(name: str) -> str:
    """The style sheet or the script."""
    text = files("pairmatch.serving.explorer").joinpath("templates", name).read_text("utf-8")
    if name.endswith(".css"):
        shared = files("pairmatch.report").joinpath("templates", name).read_text("utf-8")
        text = f"{shared}\n{text}"
    return text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("pairmatch.serving.explorer"), PackageLoader("pairmatch.report")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(link=_link, version=__version__)
    environment.filters.update(
        shown=shown, chance=_chance, signed=_signed, printable=printable, count=_count
    )
    return environment


def _link(path: str, **values: Any) -> str:
    """A link within the explorer; empty values are left out."""
    kept = {name: value for name, value in values.items() if value not in ("", None, False)}
    query = urlencode({name: 1 if value is True else value for name, value in kept.items()})
    return f"/explore{path}?{query}" if query else f"/explore{path}"


def _chance(probability: float) -> str:
    """A probability as it is read: `46 %`, `3.2 %`, `below 0.1 %`."""
    percent = 100 * probability
    if percent < 0.1:
        return "below 0.1 %"
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _count(value: float) -> str:
    """A rank or a number: `1,234`, `2.5`."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def navigation(current: str, values: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Name, address and whether it is the current one, of each page.

    Args:
        current: Path of the current page.
        values: Query parameters that all pages share.
    """
    pages = (("", "Slate"), ("/compare", "Compare"), ("/exposure", "Exposure"), ("/pairs", "Pairs"))
    return [(name, _link(path, **values), path == current) for path, name in pages]
