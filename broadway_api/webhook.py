"""The way to a webhook, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from broadway_api.outbox import NotHeard

#: Seconds. Less than the first pause, so that an attempt is over before the next begins.
TIMEOUT = 10.0

#: Bytes of an answer, which nobody reads.
LARGEST_ANSWER = 65_536


class Webhook:
    """Posts to one URL: the operator's, as it stands. A redirect is not followed, wherever it leads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = AsyncHTTPClient(force_instance=True, max_body_size=LARGEST_ANSWER)

    def close(self) -> None:
        self._http.close()

    async def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """See `outbox.Sender`."""
        try:
            await self._http.fetch(
                self._url,
                method="POST",
                headers=dict(headers),
                body=body,
                follow_redirects=False,
                connect_timeout=TIMEOUT,
                request_timeout=TIMEOUT,
            )
        except HTTPClientError as error:
            raise NotHeard(f"status {error.code}") from None
        except (OSError, ValueError) as error:  # no such host, refused, TLS, an answer that is none
            raise NotHeard(type(error).__name__) from None
