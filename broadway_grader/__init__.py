"""The Broadway grader: asks the API for grading jobs, runs their stages in containers, reports what came of them."""

__version__ = "0.1.0"
