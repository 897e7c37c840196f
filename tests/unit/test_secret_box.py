"""Sealed values: opened by any of the keys, for nobody else; key files that nobody else reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from broadway_api.errors import SecretKeyInvalid, SecretKeyMismatch
from broadway_api.secret_box import SecretBox, open_key_file

VALUE = "hunter2 \u00fc\nsecond line"


def test_what_was_sealed_opens_and_does_not_show() -> None:
    box = SecretBox.with_new_key()
    sealed = box.seal("one", "a", VALUE)
    assert box.unseal("one", "a", sealed) == VALUE
    assert "hunter2" not in sealed
    assert box.seal("one", "a", VALUE) != sealed


@pytest.mark.parametrize(("course", "name"), [("two", "a"), ("one", "b")])
def test_a_sealed_value_cannot_be_passed_off_as_anothers(course: str, name: str) -> None:
    box = SecretBox.with_new_key()
    with pytest.raises(SecretKeyMismatch):
        box.unseal(course, name, box.seal("one", "a", VALUE))


def test_another_key_does_not_open_it_and_the_message_says_what_to_do() -> None:
    sealed = SecretBox.with_new_key().seal("one", "a", VALUE)
    with pytest.raises(SecretKeyMismatch, match="--secret-key-file"):
        SecretBox.with_new_key().unseal("one", "a", sealed)
    with pytest.raises(SecretKeyMismatch):
        SecretBox.with_new_key().unseal("one", "a", "no token at all")


def test_keys_are_changed_by_putting_the_new_one_first(tmp_path: Path) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    file = tmp_path / "keys"
    file.write_text(f"{old}\n")
    sealed = open_key_file(file, make=False).seal("one", "a", VALUE)
    file.write_text(f"# the new one\n{new}\n\n{old}\n")
    both = open_key_file(file, make=False)
    assert both.unseal("one", "a", sealed) == VALUE
    resealed = both.reseal(sealed)
    file.write_text(new)
    assert open_key_file(file, make=False).unseal("one", "a", resealed) == VALUE


def test_a_made_key_is_for_its_owner_alone_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "data" / "secret_key"
    sealed = open_key_file(file, make=True).seal("one", "a", VALUE)
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_key_file(file, make=True).unseal("one", "a", sealed) == VALUE


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "short\n", "x" * 44])
def test_a_file_without_keys_is_refused_and_not_quoted(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SecretKeyInvalid) as caught:
        open_key_file(file, make=False)
    assert str(file) in str(caught.value)
    assert not content or content.strip() not in str(caught.value).replace(str(file), "")
