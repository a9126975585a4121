"""Names of repositories and of their files on the hub, in the forms in which people have them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository on the hub, or a file in it."""

    repo_id: str
    """``owner/name``."""
    revision: str | None = None
    """Branch, tag or commit; None for the newest."""
    file: str | None = None
    """Path of a file in the repository."""

    @property
    def text(self) -> str:
        """The name as people read it."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo_id}{at}" + (f", {self.file}" if self.file else "")


def hub_name(text: str) -> HubName | None:
    """Return what ``owner/name``, ``owner/name@revision`` or an address on the hub names; None for any other text.

    Addresses are those of a browser: of the repository, of a revision (``/tree/...``), or of a file (``/blob/...``,
    ``/resolve/...``), on the hub or on the mirror in HF_ENDPOINT.
    """
    if "://" in text:
        return _of_address(text)
    found = _NAME.fullmatch(text)
    if found is None or found["repo"].split("/")[0] in {".", ".."}:
        return None
    return HubName(repo_id=found["repo"], revision=found["revision"])


def _of_address(text: str) -> HubName | None:
    address = urlsplit(text)
    mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if address.scheme not in {"http", "https"} or address.netloc not in {*_HOSTS, *filter(None, [mirror])}:
        return None
    parts = [unquote(part) for part in address.path.split("/") if part]
    if len(parts) < 2 or hub_name("/".join(parts[:2])) is None:
        return None
    repo_id, rest = "/".join(parts[:2]), parts[2:]
    match rest:
        case []:
            return HubName(repo_id=repo_id)
        case ["tree", revision, *_]:
            return HubName(repo_id=repo_id, revision=revision)
        case ["blob" | "resolve" | "raw", revision, *file] if file:
            return HubName(repo_id=repo_id, revision=revision, file="/".join(file))
        case _:
            return None
