"""Where photos are sent: the address of a server, its key, and proxies on the way."""

from __future__ import annotations

import os
import re
import urllib.request
from urllib.parse import urlsplit

from pairmatch.core.errors import ConfigurationError, GeneratorError
from pairmatch.core.text import printable
from pairmatch.metadata.outside import OutsideText

#: Environment variable that names another server.
URL_VARIABLE = "OPENAI_BASE_URL"
#: Stands in saved matchers for the address of a server, which is never saved.
NOT_SAVED = "(not saved)"
#: Environment variables that may be sent as a key, besides those that begin with `PAIRMATCH_`.
KEY_VARIABLES = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "VLLM_API_KEY")
_OTHER_KEY_VARIABLE = re.compile(r"PAIRMATCH_[A-Z0-9_]+")


def url_problem(url: object) -> str | None:
    """What is wrong with the address of a server; never repeats it, as it may hold a password."""
    if url is None or url == NOT_SAVED:
        return None
    if not isinstance(url, str) or not re.fullmatch(r"[!-~]+", url):
        return "base_url must be a URL without spaces and special characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "base_url must be a URL with a valid host and port"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return (
            "base_url must not hold a user, a password, a query or a fragment: put the key into "
            "an environment variable, and name that with api_key_variable"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "base_url must begin with http:// or https:// and a host"
    return None


def key_variable_problem(name: object) -> str | None:
    """What is wrong with the name of the environment variable that holds the key."""
    is_allowed = name in KEY_VARIABLES or (
        isinstance(name, str) and _OTHER_KEY_VARIABLE.fullmatch(name)
    )
    if is_allowed:
        return None
    return (
        f"api_key_variable must be {', '.join(KEY_VARIABLES)}, or a name that begins with "
        f"PAIRMATCH_, got {printable(str(name))[:60]!r}: no other variable is sent to a server"
    )


def server_url(base_url: str | None) -> str | None:
    """The address of the server; None for the provider's own.

    Raises:
        ConfigurationError: The environment variable `OPENAI_BASE_URL` cannot be used.
    """
    if base_url:
        return base_url
    url = os.environ.get(URL_VARIABLE) or None
    problem = url_problem(url)
    if problem or url == NOT_SAVED:
        raise ConfigurationError(f"The environment variable {URL_VARIABLE}: {problem}.")
    return url


def host_name(url: str | None, key: str) -> str:
    """Server as messages name it."""
    if url is None:
        return "api.openai.com"
    if url == NOT_SAVED:
        return "a server that this saved matcher does not name"
    return OutsideText([key]).clean(url)


def read_key(variable: str) -> str:
    """The key in an environment variable; empty if there is none."""
    return os.environ.get(variable, "").strip()


def check_server(url: str | None, variable: str) -> None:
    """Checks that a server and a key are known.

    Raises:
        GeneratorError: There is no key, or a saved matcher was made with another server.
    """
    if url == NOT_SAVED:
        raise GeneratorError(
            "This matcher was saved with a server of its own, and saved matchers never name "
            "servers: name it with base_url= in `Matcher.load(..., metadata={...})` (--set "
            "metadata.base_url=URL)."
        )
    if not read_key(variable):
        raise GeneratorError(
            f"No API key: set the environment variable {variable}. Without a key, "
            "use metadata='qwen3-vl', 'measured' or none, which stay on this machine, or pass "
            "base_url= with your own server (and any key)."
        )


def route(base_url: str | None) -> str:
    """What else decides where photos go, as words that follow the host: "" if nothing does."""
    url = server_url(base_url)
    words = f" (from {URL_VARIABLE})" if url is not None and not base_url else ""
    parts = urlsplit(url or "https://api.openai.com")
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
        try:
            address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            port = f":{address.port}" if address.port else ""
            words += f" through the proxy {printable(address.hostname or 'unknown')}{port}"
        except ValueError:
            words += " through a proxy"
    return words
