"""What is wrong with a request before any handler has seen it, and the answer that says so."""

from __future__ import annotations

from http import HTTPStatus

from broadway_api import json_text


class Malformed(Exception):
    """A request that cannot be read. What follows it on its connection cannot be told from it, and is not read."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    def answer(self, common_head: str) -> bytes:
        """A whole answer, in the envelope of all others; the connection ends with it."""
        body = json_text.encode({"status": "fail", "data": {"message": self.message}})
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"{common_head}\r\n"
            "Content-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body
