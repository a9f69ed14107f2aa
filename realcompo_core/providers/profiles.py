"""Address, model and key of each language model server, from a local file and the environment.

The file is `providers.json` in `~/.config/realcompo` (`$XDG_CONFIG_HOME/realcompo`; on Windows `%APPDATA%\\realcompo`),
or the one that `REALCOMPO_PROVIDERS` names:

    {"ollama": {"url": "http://localhost:11434/v1", "model": "qwen3:8b"},
     "openai": {"model": "gpt-4.1-mini", "key": "sk-..."}}

`REALCOMPO_<NAME>_URL`, `_MODEL` and `_KEY` override the file or define a further provider. A key is only sent to the
address that it is stored with: another `_URL` drops the file's key, and `OPENAI_API_KEY` is only sent to
https://api.openai.com.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ProviderError

FIELDS = ("url", "model", "key")
BUILT_IN = {"openai": {"url": "https://api.openai.com/v1", "model": "gpt-4.1-mini"}}


@dataclass(frozen=True)
class Profile:
    """One OpenAI-compatible server: `url` usually ends in /v1; local servers need no `key`."""

    name: str
    url: str
    model: str
    key: str = field(default="", repr=False)

    def __post_init__(self):
        try:
            parts = urlsplit(self.url)
            _ = parts.port  # raises ValueError if it is no number
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ProviderError(
                f'provider {self.name!r}: the url is no http address; set {variable(self.name, "url")} or "url" in '
                f"{profiles_file()}, for example to http://localhost:11434/v1"
            )
        if parts.username is not None or parts.query:  # such addresses carry secrets, and addresses are shown in errors
            raise ProviderError(
                f"provider {self.name!r}: the url of {parts.hostname} holds a user or a query; store the secret as "
                f'"key" in {profiles_file()} or in {variable(self.name, "key")} instead'
            )
        if not self.model:
            raise ProviderError(
                f'provider {self.name!r} at {self.url} has no model; set {variable(self.name, "model")} or "model" in '
                f"{profiles_file()}"
            )

    def hide_key(self, text: str) -> str:
        """`text` without the key. Keys of less than 8 characters are stand-ins such as "none", not secrets."""
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text


def profiles_file() -> Path:
    """The file with the provider profiles; it need not exist."""
    if "REALCOMPO_PROVIDERS" in os.environ:
        return Path(os.environ["REALCOMPO_PROVIDERS"]).expanduser()
    if sys.platform == "win32":
        folder = Path(os.environ["APPDATA"])
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "realcompo" / "providers.json"


def profile_names() -> list[str]:
    """Names of all providers that the file, the environment and this module define."""
    names = {*BUILT_IN, *_read_file()}
    overridden = {variable(name, "url") for name in names}
    from_environment = re.findall(r"^REALCOMPO_\w+_URL$", "\n".join(os.environ), flags=re.MULTILINE)
    added = {found[len("REALCOMPO_") : -len("_URL")].lower() for found in from_environment if found not in overridden}
    return sorted(names | added)


def load_profile(name: str) -> Profile:
    """The profile called `name`. `ProviderError` if it lacks an address or a model, or the file cannot be read."""
    stored = {**BUILT_IN.get(name, {}), **_read_file().get(name, {})}
    overrides = {key: os.environ[variable(name, key)] for key in FIELDS if os.environ.get(variable(name, key))}
    if "url" in overrides and _address(overrides["url"]) != _address(stored.get("url", "")):
        stored.pop("key", None)
    profile = Profile(name, **{"url": "", "model": "", **stored, **overrides})
    if not profile.key and _is_openai(profile.url):
        return replace(profile, key=os.environ.get("OPENAI_API_KEY", ""))
    return profile


def usable_profiles() -> list[Profile]:
    """The profiles that can be asked as they are: with an address, a model and, for OpenAI's own address, a key.

    Profiles that lack one of these, and a file that cannot be read, count as none; `load_profile` says what is wrong.
    """
    try:
        names = profile_names()
    except ProviderError:
        return []
    return [profile for name in names if (profile := _usable(name))]


def variable(name: str, field_name: str) -> str:
    """The environment variable that overrides a field of the provider `name`."""
    return f"REALCOMPO_{re.sub('[^A-Za-z0-9]', '_', name)}_{field_name}".upper()


def _read_file() -> Mapping[str, dict[str, str]]:
    path = profiles_file()
    if not path.exists() and "REALCOMPO_PROVIDERS" not in os.environ:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        # The parser's exception holds the whole text, keys included: it must not reach a log.
        raise ProviderError(f"{path}, line {error.lineno}: {error.msg}; providers are a JSON object") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderError(f"cannot read the providers in {path}: {type(error).__name__}") from None
    if not isinstance(data, dict):
        raise ProviderError(f'{path}: expected {{"name": {{"url": ..., "model": ...}}}}, not a {type(data).__name__}')
    for name, entry in data.items():
        if not isinstance(entry, dict):
            raise ProviderError(f"{path}: provider {name!r} is not an object with {', '.join(FIELDS)}")
        for key, value in entry.items():
            if key not in FIELDS:
                raise ProviderError(f"{path}: provider {name!r} has an unknown field {key!r}; use {', '.join(FIELDS)}")
            if not isinstance(value, str):
                raise ProviderError(f"{path}: {key!r} of provider {name!r} is not a string; put it in quotes")
    return data


def _usable(name: str) -> Profile | None:
    try:
        profile = load_profile(name)
    except ProviderError:
        return None
    return profile if profile.key or not _is_openai(profile.url) else None


def _address(url: str) -> str:
    return url.rstrip("/")


def _is_openai(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and parts.hostname == "api.openai.com" and parts.port in (None, 443)
