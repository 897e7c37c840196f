"""The calls of the course protocol, for courses, for graders, and for graders over WebSocket."""
