"""The Broadway API: receives grading runs, hands their jobs to graders, keeps what came of them."""

__version__ = "0.1.0"
