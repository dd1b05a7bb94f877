"""Sign-in of browsers: a cookie that proves knowledge of the token and expires, without storage."""

from __future__ import annotations

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie

#: Where every address of the explorer begins.
ROOT = "/explore"
#: Addresses that say nothing of anyone, for browsers that have not signed in.
SIGNED_OUT = {f"{ROOT}/{name}" for name in ("sign-in", "sign-out", "style.css", "script.js")}
COOKIE = "pairmatch-explorer"
SECONDS = 12 * 3600


def is_explorer(path: str) -> bool:
    """Whether a path belongs to the explorer."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def new_session(token: str, now: float | None = None) -> str:
    """Value of the cookie of a browser that sent the token."""
    expires = str(int((time.time() if now is None else now) + SECONDS))
    return f"{expires}.{_signature(token, expires)}"


def is_session(token: str, cookies: str, now: float | None = None) -> bool:
    """Whether the header `Cookie` has a session of this token that has not expired."""
    try:
        morsel = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return False
    expires, _, signature = (morsel.value if morsel else "").partition(".")
    is_signed = hmac.compare_digest(signature.encode(), _signature(token, expires).encode())
    return is_signed and int(expires) > (time.time() if now is None else now)


def _signature(token: str, expires: str) -> str:
    message = f"pairmatch explorer {expires}".encode()
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()
