"""Which handler a request is for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Rule
from tornado.web import Application

#: What most paths begin with; the word behind it says nearly all.
_BASE = "/api/v1/"

#: That word in the pattern of a route, if it stands there as it is.
_WORD = re.compile(rf"{_BASE}([a-z_]+)(?=$|[/$])")


class Site(Application):
    """A Tornado application that tries only routes that begin as the path does, not one pattern after another."""

    def __init__(self, routes: Sequence[Any], **settings: Any) -> None:
        """Routes and settings as Tornado has them: of the routes that fit, the first is taken."""
        super().__init__(routes, **settings)
        self._with_word: dict[str, list[Rule]] = defaultdict(list)
        self._others: list[Rule] = []
        for rule in self.wildcard_router.rules:
            word = _WORD.match(rule.matcher.regex.pattern) if isinstance(rule.matcher, PathMatches) else None
            (self._with_word[word[1]] if word else self._others).append(rule)

    def find_handler(self, request: HTTPServerRequest, **_: Any) -> Any:
        """What hands a request to its handler, or to the one for unknown paths."""
        word = request.path[len(_BASE) :].partition("/")[0] if request.path.startswith(_BASE) else ""
        for rules in (self._with_word.get(word, ()), self._others):
            for rule in rules:
                found = rule.matcher.match(request)
                if found is not None:
                    return self.get_handler_delegate(request, rule.target, rule.target_kwargs, **found)
        unknown = self.settings["default_handler_class"]
        return self.get_handler_delegate(request, unknown, self.settings["default_handler_args"])
