"""The API described in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1), from the schemas that validate it.

`courses.py`, `workers.py` and `operations.py` stand beside the handler modules of the same names and describe their
routes; `answers.py` has the shapes of answers; `document.py` puts it all together.
"""
