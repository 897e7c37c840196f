"""Secret values locked away: what the store keeps of them is worth nothing without a key that the store has not.

Fernet (https://github.com/fernet/spec): AES-128-CBC under HMAC-SHA256. A sealed value says which course's secret of
which name it is, so that whoever can write to the store cannot pass one off as another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from broadway_api.errors import SecretKeyInvalid, SecretKeyMismatch


class SecretBox:
    """Seals with the first of its keys, and opens what any of them has sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raises ValueError if one is no Fernet key."""
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def with_new_key(cls) -> Self:
        """A box whose key is nowhere else: what it seals ends with it."""
        return cls([Fernet.generate_key()])

    def seal(self, course: str, name: str, value: str) -> str:
        """A secret's value for the store."""
        return self._fernet.encrypt(json.dumps([course, name, value]).encode()).decode()

    def unseal(self, course: str, name: str, sealed: str) -> str:
        """The inverse of `seal`. Raises SecretKeyMismatch."""
        try:
            *whose, value = json.loads(self._fernet.decrypt(sealed.encode()))
        except InvalidToken:
            raise SecretKeyMismatch(name) from None
        if whose != [course, name]:
            raise SecretKeyMismatch(name)
        return str(value)

    def reseal(self, sealed: str) -> str:
        """The same under the first key. Raises SecretKeyMismatch."""
        try:
            return self._fernet.rotate(sealed.encode()).decode()
        except InvalidToken:
            raise SecretKeyMismatch("") from None


def open_key_file(path: Path, *, make: bool) -> SecretBox:
    """The box of the keys in a file, one a line, `#` before a comment; `make` it if it is not there.

    Raises SecretKeyInvalid, which never quotes a key.
    """
    try:
        if make:
            _make(path)
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    except OSError as error:
        raise SecretKeyInvalid(str(path), error.strerror or str(error)) from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise SecretKeyInvalid(str(path), "it has no key")
    try:
        return SecretBox([key.encode() for key in keys])
    except ValueError:
        raise SecretKeyInvalid(str(path), "a line of it is no key (32 bytes in URL-safe base64)") from None


def _make(path: Path) -> None:
    """Keep a new key where nobody else can read it, durably: what it has sealed is lost with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(file, "wb") as stream:
        stream.write(Fernet.generate_key() + b"\n")
        stream.flush()
        os.fsync(file)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
