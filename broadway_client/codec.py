"""The API's JSON as frozen dataclasses, by their type hints.

Names that a class does not have are ignored, since later releases add some; `Answer.raw` still has them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, cast

Json = Mapping[str, Any]


class BadShape(ValueError):
    """The JSON is not of the class's shape; the text says where."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the API answered. `raw` is its own JSON, with whatever a newer API has beside the fields here."""

    raw: Json = field(default_factory=dict, repr=False, compare=False)


class OpenEnum(StrEnum):
    """An enum that bears words it does not know: a newer API may have more of them."""

    @classmethod
    def _missing_(cls, value: object) -> OpenEnum | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_, member._value_ = value.upper(), value
        return member


Shape = TypeVar("Shape")


def decode(kind: type[Shape], value: Any) -> Shape:
    """`value` as `kind`. Raises BadShape."""
    return cast(Shape, _decoder(cast(Any, kind))(value, "$"))


_Decoder = Callable[[Any, str], Any]


@cache
def _decoder(kind: Any) -> _Decoder:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional(_decoder(next(one for one in arguments if one is not type(None))))
    if origin is tuple:
        return _list(_decoder(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[1]))
    if kind is Any:
        return lambda value, _: value
    if is_dataclass(kind):
        return _object(cast(type[Any], kind))
    if kind is datetime:
        return _converted(str, datetime.fromisoformat)
    if issubclass(kind, StrEnum):
        return _converted(str, kind)
    if kind is float:  # JSON has one kind of number
        return _plain(int, float)
    return _plain(kind)


def _plain(*kinds: type) -> _Decoder:
    def read(value: Any, path: str) -> Any:
        # A bool is an int to Python only.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise BadShape(f"{path} is no {kinds[-1].__name__}")
        return value

    return read


def _converted(kind: type, convert: Callable[[Any], Any]) -> _Decoder:
    plain = _plain(kind)

    def read(value: Any, path: str) -> Any:
        try:
            return convert(plain(value, path))
        except BadShape:
            raise
        except ValueError as error:
            raise BadShape(f"{path}: {error}") from None

    return read


def _optional(inner: _Decoder) -> _Decoder:
    return lambda value, path: None if value is None else inner(value, path)


def _list(inner: _Decoder) -> _Decoder:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadShape(f"{path} is no list")
        return tuple(inner(item, f"{path}[{index}]") for index, item in enumerate(value))

    return read


def _mapping(inner: _Decoder) -> _Decoder:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise BadShape(f"{path} is no object")
        return {name: inner(item, f"{path}.{name}") for name, item in value.items()}

    return read


def _object(kind: type[Any]) -> _Decoder:
    hints = typing.get_type_hints(kind)
    known = [
        (one.name, _decoder(hints[one.name]), one.default is MISSING and one.default_factory is MISSING)
        for one in fields(kind)
        if one.name != "raw"
    ]
    keeps_raw = issubclass(kind, Answer)

    def read(value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise BadShape(f"{path} is no object")
        given: dict[str, Any] = {"raw": value} if keeps_raw else {}
        for name, decoder, required in known:
            if name in value:
                given[name] = decoder(value[name], f"{path}.{name}")
            elif required:
                raise BadShape(f"{path}.{name} is missing")
        return kind(**given)

    return read
