"""The Broadway client: a typed way to the API, for programs (`Client`, `AsyncClient`) and people (`broadway`).

`models` has what the methods return, `errors` what they raise.
"""

from broadway_client.async_client import AsyncClient
from broadway_client.client import Client
from broadway_client.errors import ClientError
from broadway_client.version import __version__

__all__ = ["AsyncClient", "Client", "ClientError", "__version__"]
