"""What a URL may show to people: one function that takes the secrets out.

It works on any text, so that the log's formatter can pass every line through it, whatever the line quotes.
"""

from __future__ import annotations

import re

MASK = "***"

# The scheme is bounded so that a long run of letters costs linear time.
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,15})://([^\s/?#:@]*)(:[^\s/?#]*)?@")

# Forges take a token as the user name, with any password or none: there the whole of it is a secret.
_TOKEN_SCHEMES = frozenset({"http", "https", "git"})


def mask_url(text: str) -> str:
    """`text` with the password of every URL in it replaced by `***`; of http and git URLs the user name too."""
    return _USERINFO.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    scheme, user, password = match.groups()
    if scheme.lower() in _TOKEN_SCHEMES:
        return f"{scheme}://{MASK}@"
    return f"{scheme}://{user}:{MASK}@" if password else match[0]
