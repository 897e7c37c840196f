"""Dependencies point downwards only: who may import whom, as a table, checked against every import in the tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Patterns of modules → patterns of our modules that these may import. The first line that fits a module counts.
LAYERS: Mapping[str, tuple[str, ...]] = {
    # The API, from the bottom up. Values and errors know nothing but themselves.
    "broadway_api": (),
    "broadway_api.domain": (),
    "broadway_api.errors": (),
    "broadway_api.policy": (),
    "broadway_api.ids": (),
    "broadway_api.auth": (),
    "broadway_api.tenants": ("broadway_api.domain", "broadway_api.errors"),
    "broadway_api.failures": (),
    "broadway_api.cluster_tokens": ("broadway_api.tenants",),
    "broadway_api.events": ("broadway_api.capabilities",),
    "broadway_api.loop_monitor": (),
    "broadway_api.clock": (),
    # What is measured.
    "broadway_api.tallies": (),
    "broadway_api.metrics": ("broadway_api.domain", "broadway_api.tallies"),
    "broadway_api.measured_store": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.metrics", "broadway_api.store.port"),
    ),
    "broadway_api.monitoring": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.metrics", "broadway_api.store.port"),
    ),
    "broadway_api.supervision": ("broadway_api.errors",),
    "broadway_api.open_files": (),
    # Rules are pure.
    "broadway_api.causes": ("broadway_api.domain",),
    "broadway_api.lifecycle": ("broadway_api.domain", "broadway_api.causes"),
    "broadway_api.capabilities": ("broadway_api.domain",),
    "broadway_api.environment": ("broadway_api.domain", "broadway_api.errors"),
    "broadway_api.runconfig": ("broadway_api.domain",),
    "broadway_api.job_plans": ("broadway_api.domain", "broadway_api.environment", "broadway_api.runconfig"),
    "broadway_api.bounds": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.environment"),
    ),
    # What comes in and what goes out.
    "broadway_api.json_body": ("broadway_api.errors",),
    "broadway_api.json_text": (),
    "broadway_api.schemas": ("broadway_api.domain", "broadway_api.policy", "broadway_api.tenants"),
    "broadway_api.validation": ("broadway_api.errors", "broadway_api.policy", "broadway_api.schemas"),
    "broadway_api.results": ("broadway_api.errors", "broadway_api.schemas", "broadway_api.validation"),
    "broadway_api.wire": (
        *("broadway_api.domain", "broadway_api.runconfig", "broadway_api.tenants", "broadway_api.capabilities"),
        "broadway_api.distribution",
    ),
    "broadway_api.worker_wire": ("broadway_api.domain", "broadway_api.json_text", "broadway_api.results"),
    "broadway_api.course_config": (
        *("broadway_api.errors", "broadway_api.json_body", "broadway_api.schemas", "broadway_api.tenants"),
        "broadway_api.validation",
    ),
    "broadway_api.intake": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.ids"),
        *("broadway_api.environment", "broadway_api.bounds", "broadway_api.runconfig", "broadway_api.capabilities"),
        *("broadway_api.json_body", "broadway_api.validation"),
    ),
    "broadway_api.course_protocol*": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.environment"),
        *("broadway_api.schemas", "broadway_api.course_protocol*"),
    ),
    # The store: a port, and adapters that only whoever opens a store knows of.
    "broadway_api.store.port": ("broadway_api.domain", "broadway_api.errors", "broadway_api.tenants"),
    "broadway_api.store*": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.ids", "broadway_api.tenants"),
        *("broadway_api.lifecycle", "broadway_api.capabilities", "broadway_api.runconfig", "broadway_api.store*"),
        "broadway_api.json_text",
    ),
    # The use cases: the only caller of the store, by its port.
    "broadway_api.service": (
        *("broadway_api.policy", "broadway_api.clock", "broadway_api.events", "broadway_api.settling"),
        *("broadway_api.known_runs", "broadway_api.runs", "broadway_api.fleet", "broadway_api.store.port"),
        *("broadway_api.secret_box", "broadway_api.vault", "broadway_api.health"),
        *("broadway_api.errors", "broadway_api.metrics", "broadway_api.monitoring", "broadway_api.outbox"),
        "broadway_api.waiting",
        *("broadway_api.cluster_tokens", "broadway_api.access", "broadway_api.tenancy"),
        *("broadway_api.sessions", "broadway_api.views"),
        *("broadway_api.assignments", "broadway_api.named_workers"),
        "broadway_api.live_output",
    ),
    "broadway_api.assignments": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.environment"),
        *("broadway_api.course_protocol*", "broadway_api.intake", "broadway_api.runs", "broadway_api.all_jobs"),
        *("broadway_api.tenants", "broadway_api.waiting", "broadway_api.store.port"),
    ),
    "broadway_api.named_workers": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.capabilities"),
        *("broadway_api.fleet", "broadway_api.handouts", "broadway_api.tenants", "broadway_api.store.port"),
    ),
    # What running jobs print.
    "broadway_api.live_tail": (),
    "broadway_api.live_reader": ("broadway_api.domain", "broadway_api.live_tail"),
    "broadway_api.live_wire": ("broadway_api.domain", "broadway_api.live_tail", "broadway_api.live_reader"),
    "broadway_api.live_output": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.events", "broadway_api.known_runs"),
        *("broadway_api.live_tail", "broadway_api.live_reader", "broadway_api.metrics", "broadway_api.tenants"),
        "broadway_api.store.port",
    ),
    "broadway_api.outbox": ("broadway_api.domain", "broadway_api.wire", "broadway_api.store.port"),
    "broadway_api.webhook": ("broadway_api.outbox",),
    "broadway_api.health": ("broadway_api.errors", "broadway_api.store.port"),
    "broadway_api.secret_box": ("broadway_api.errors",),
    "broadway_api.vault": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.schemas"),
        *("broadway_api.secret_box", "broadway_api.store.port"),
    ),
    "broadway_api.access": (
        "broadway_api.domain",
        *("broadway_api.errors", "broadway_api.tenants", "broadway_api.cluster_tokens", "broadway_api.store.port"),
    ),
    "broadway_api.sessions": (
        *("broadway_api.errors", "broadway_api.tenants", "broadway_api.access", "broadway_api.secret_box"),
    ),
    "broadway_api.tenancy": (
        *("broadway_api.errors", "broadway_api.ids", "broadway_api.tenants", "broadway_api.access"),
        "broadway_api.store.port",
    ),
    "broadway_api.runs": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.lifecycle"),
        *("broadway_api.intake", "broadway_api.events", "broadway_api.settling", "broadway_api.known_runs"),
        *("broadway_api.all_jobs", "broadway_api.tenants", "broadway_api.access", "broadway_api.store.port"),
        *("broadway_api.vault", "broadway_api.validation", "broadway_api.waiting", "broadway_api.forecast"),
    ),
    "broadway_api.handouts": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.job_plans", "broadway_api.all_jobs"),
        *("broadway_api.known_runs", "broadway_api.vault", "broadway_api.store.port"),
    ),
    "broadway_api.fleet": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.policy", "broadway_api.ids"),
        *("broadway_api.lifecycle", "broadway_api.tenants", "broadway_api.handouts"),
        *("broadway_api.events", "broadway_api.settling", "broadway_api.known_runs", "broadway_api.store.port"),
        "broadway_api.vault",
    ),
    "broadway_api.distribution": (),
    "broadway_api.views": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.distribution"),
        *("broadway_api.events", "broadway_api.known_runs", "broadway_api.tenants", "broadway_api.store.port"),
        "broadway_api.waiting",
    ),
    "broadway_api.forecast": ("broadway_api.domain", "broadway_api.store.port"),
    "broadway_api.all_jobs": ("broadway_api.domain", "broadway_api.store.port"),
    "broadway_api.waiting": (
        *("broadway_api.domain", "broadway_api.policy", "broadway_api.lifecycle", "broadway_api.capabilities"),
        "broadway_api.store.port",
    ),
    "broadway_api.known_runs": (
        *("broadway_api.domain", "broadway_api.job_plans", "broadway_api.json_text", "broadway_api.runconfig"),
        "broadway_api.store.port",
    ),
    "broadway_api.settling": (
        *(
            "broadway_api.errors",
            "broadway_api.lifecycle",
            "broadway_api.capabilities",
            "broadway_api.events",
            "broadway_api.store.port",
        ),
    ),
    "broadway_api.sweeper": (
        *("broadway_api.domain", "broadway_api.policy", "broadway_api.clock", "broadway_api.events"),
        *("broadway_api.settling", "broadway_api.store.port"),
    ),
    # HTTP: a handler sees no store at all.
    "broadway_api.handlers*": (
        *("broadway_api.domain", "broadway_api.errors", "broadway_api.ids", "broadway_api.auth"),
        *("broadway_api.json_body", "broadway_api.json_text", "broadway_api.schemas", "broadway_api.validation"),
        *("broadway_api.wire", "broadway_api.worker_wire"),
        *("broadway_api.intake", "broadway_api.loop_monitor", "broadway_api.service", "broadway_api.handlers*"),
        *("broadway_api.tenants", "broadway_api.access", "broadway_api.failures", "broadway_api.metrics"),
        *("broadway_api.course_protocol*", "broadway_api.handouts"),
        *("broadway_api.live_tail", "broadway_api.live_wire"),
        *("broadway_api.sessions", "broadway_api.http1.exchange"),
    ),
    # The connections beneath.
    "broadway_api.http1*": ("broadway_api.http1*", "broadway_api.json_text", "broadway_api.open_files"),
    # What routes take and answer, in OpenAPI's words.
    "broadway_api.openapi*": (
        *("broadway_api.domain", "broadway_api.policy", "broadway_api.schemas", "broadway_api.results"),
        *("broadway_api.tenants", "broadway_api.course_protocol*", "broadway_api.openapi*"),
    ),
    "broadway_api.site": (),
    "broadway_api.app": (
        "broadway_api.site",
        *("broadway_api.failures", "broadway_api.loop_monitor", "broadway_api.service", "broadway_api.handlers*"),
        "broadway_api.openapi*",
    ),
    "broadway_api.server": (
        *("broadway_api.policy", "broadway_api.events", "broadway_api.loop_monitor", "broadway_api.store.port"),
        *("broadway_api.clock", "broadway_api.supervision", "broadway_api.secret_box"),
        *("broadway_api.service", "broadway_api.sweeper", "broadway_api.handlers.shared", "broadway_api.app"),
        *("broadway_api.handlers.headers",),
        *("broadway_api.tenants", "broadway_api.cluster_tokens"),
        *("broadway_api.metrics", "broadway_api.measured_store"),
        *("broadway_api.outbox", "broadway_api.webhook", "broadway_api.http1.server"),
    ),
    # The grader and the client speak to the API over the wire alone.
    "broadway_grader": (),
    "broadway_grader.domain": (),
    "broadway_grader.errors": (),
    "broadway_grader.ending": ("broadway_grader.domain",),
    "broadway_grader.runtimes*": (
        *("broadway_grader.domain", "broadway_grader.errors", "broadway_grader.removal", "broadway_grader.ending"),
        *("broadway_grader.runtimes*", "broadway_grader.volumes.usage", "broadway_grader.volumes.port"),
    ),
    "broadway_grader.*": ("broadway_grader*", "config"),
    # The command has two doors to the rest: the API's pure rules, and the programs, which it starts as processes.
    "broadway_client.cli.offline": (
        *("broadway_client.errors", "broadway_client.cli.names", "broadway_api.domain", "broadway_api.errors"),
        *("broadway_api.policy", "broadway_api.environment", "broadway_api.intake"),
    ),
    "broadway_client.cli.programs": ("broadway_client*", "config_base"),
    "broadway_client.cli*": ("broadway_client*",),
    # The library stands without the command.
    "broadway_client*": (
        "broadway_client",
        "broadway_client.[!c]*",
        "broadway_client.c[!l]*",
        "broadway_client.client",
    ),
    # The programs put the pieces together.
    "config": ("config_base",),
    "config_base": (),
    "logs": (),
    "api": ("config", "logs", "broadway_api*"),
    "grader": ("config", "logs", "broadway_grader*"),
    "scripts.start_run_script": (),  # it is copied to places where nothing else of ours is
    "scripts.run_tests": (),
    "scripts.options_reference": ("config",),
    "scripts.demo": ("broadway_client*",),
    "scripts.cli_reference": ("broadway_client.cli*",),
}

#: Foreign packages → the only modules that may import them: a driver's errors and types end in its adapter.
DRIVERS: Mapping[str, tuple[str, ...]] = {
    "tornado": (
        *("api", "broadway_api.site", "broadway_api.server", "broadway_api.handlers*", "broadway_api.http1*"),
        "broadway_api.webhook",
    ),
    "httptools": ("broadway_api.http1.reading",),
    "pymongo": ("broadway_api.store.mongo*",),
    "prometheus_client": ("broadway_api.metrics", "broadway_api.tallies"),
    "cryptography": ("broadway_api.secret_box",),
    "sqlite3": ("broadway_api.store.sqlite*",),
    "docker": ("broadway_grader.runtimes*", "scripts.demo"),
    "httpx": ("broadway_client*",),
    "aiohttp": ("broadway_grader.connection",),
}


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name, tests left out."""
    files = [*ROOT.glob("*.py"), *(file for top in ("broadway_*", "scripts") for file in ROOT.glob(f"{top}/**/*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(source: str) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it the import stands; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(names: Iterable[str]) -> set[str]:
    """Those of the imported names that are modules of ours; a name within a module stands for that module."""
    found = set()
    for name in names:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def fits(module: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def too_high(module: str, imported: Iterable[str]) -> list[str]:
    """The imports of `module` that its layer may not have. Every module may ask for its package's version."""
    allowed = next((allowed for pattern, allowed in LAYERS.items() if fnmatchcase(module, pattern)), None)
    assert allowed is not None, f"{module} is in no layer: give it a line in {Path(__file__).name}"
    packages = {"broadway_api", "broadway_grader"} - {module}
    own = {name for name in packages if module.startswith(f"{name}.")}
    return sorted(name for name in set(imported) - own if not fits(name, allowed))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    assert too_high(module, ours(imports(MODULES[module].read_text()))) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_driver_is_imported_by_its_adapter_alone(module: str) -> None:
    packages = {name.partition(".")[0] for name in imports(MODULES[module].read_text())}
    assert [package for package in packages if package in DRIVERS and not fits(module, DRIVERS[package])] == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module: ours(imports(file.read_text())) - {module} for module, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("broadway_api.domain", "from broadway_api.errors import Fault"),
        ("broadway_api.lifecycle", "import broadway_api.service"),
        ("broadway_api.service", "from broadway_api.store import sqlite"),
        ("broadway_api.handlers.courses", "def handle():\n    from broadway_api.store.port import Store"),
        ("broadway_grader.wire", "from broadway_api import wire"),
        ("broadway_client.cli.runs", "from broadway_api.domain import Run"),
        ("broadway_client.calls", "from broadway_client.cli.names import run_id"),
    ],
)
def test_the_table_sees_an_import_that_points_upwards(module: str, source: str) -> None:
    assert too_high(module, ours(imports(source)))
