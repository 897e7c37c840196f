"""HTTP/1.1 on connections of the event loop, parsed by llhttp, for a Tornado application.

Tornado's own server parses and buffers in Python, which costs twice as much as the empty handler that it calls. What is
here stands between its public interfaces: `HTTPServerConnectionDelegate` above, `HTTPConnection` below, so that
handlers notice nothing. RFC 9110 and RFC 9112 say what is right; what they leave to a server is refused when it is
ambiguous.

reading.py      bytes → requests, within bounds
connection.py   one client's connection: its requests, one after another
faults.py       what cannot be read, and the answer that says so
exchange.py     one request's answer, as Tornado's handlers write it
tunnel.py       what is left of a connection that became a WebSocket's
server.py       all connections: listens, ends those that idle, stops
"""
