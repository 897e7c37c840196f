"""Starts the Broadway API: `python3 api.py --help`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop

from broadway_api import __version__, course_config
from broadway_api.cluster_tokens import ClusterTokens, TokenFileFault
from broadway_api.course_config import CourseConfigFault
from broadway_api.errors import Rejected, StoreError
from broadway_api.handlers.shared import HttpLimits
from broadway_api.open_files import raise_limit
from broadway_api.policy import Policy
from broadway_api.secret_box import SecretBox, open_key_file
from broadway_api.server import Running, WebhookSettings, serve
from broadway_api.store import open_store
from broadway_api.tenants import Course
from config import QUEUE_EMPTY_CODE, ApiConfig
from logs import Logging, start_logging

logger = logging.getLogger("broadway_api")

#: Bytes of the key that signs what a webhook is told; fewer could be guessed from a signature.
LEAST_WEBHOOK_KEY = 16


#: New objects, less those that are gone, after which the youngest are looked through; 700 by default.
COLLECTED_AFTER = 10_000


class SetupFault(Exception):
    """The API cannot start, and why, in one line."""


def main() -> int:
    """Serve until SIGTERM or SIGINT. Returns 0, 1 after a fault of our own, 2 if it could not start."""
    config = ApiConfig.load(sys.argv[1:])
    try:
        tokens = cluster_tokens(config)
        courses = courses_of(config)
        with logging_of(config):
            return uvloop.run(run(config, tokens, courses))
    except (SetupFault, TokenFileFault, StoreError) as fault:
        print(f"{config.program()}: {fault}", file=sys.stderr)
        return 2


def logging_of(config: ApiConfig) -> Logging:
    """Logging as the options say."""
    try:
        return start_logging(config.log_level, config.log_path, "api", config.log_format)
    except OSError as error:
        raise SetupFault(f"logs cannot be written to {config.log_path}: {error.strerror}") from error


async def run(config: ApiConfig, tokens: ClusterTokens, courses: Sequence[Course] | None) -> int:
    """Open the store, serve, and stop when asked to."""
    raise_limit()
    tune_collector()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    limits = HttpLimits(
        max_body_bytes=config.max_body_bytes,
        body_stall_seconds=config.body_stall_seconds,
        queue_empty_code=QUEUE_EMPTY_CODE,
        auth_failures_per_minute=config.auth_failures_per_minute,
        trusted_proxies=config.proxies,
        open_metrics=config.open_metrics,
    )
    tls = tls_context(config)
    async with open_store(config.store_url) as store:
        try:
            serving = serve(
                store,
                policy_of(config),
                secret_box_of(config),
                tokens=tokens,
                courses=courses,
                bind=config.bind,
                port=config.port,
                limits=limits,
                tls=tls,
                webhook=webhook_of(config),
            )
            async with serving as running:
                reload_on_hangup(config, tokens, running)
                scheme = "https" if tls else "http"
                logger.info("Broadway API %s on %s://%s:%d", __version__, scheme, config.bind, running.port)
                ends: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait()), running.failure}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                logger.info("stopping")
                return 1 if running.failure.done() else 0
        except Rejected as error:
            raise SetupFault(f"--course-config {config.course_config}: {error}") from error
        except OSError as error:
            raise SetupFault(f"cannot listen on {config.bind}:{config.port}: {error.strerror or error}") from error


def tune_collector() -> None:
    """Look for garbage cycles less often than Python by itself: a job makes hundreds of objects, and hardly a cycle."""
    gc.collect()
    gc.freeze()  # modules and schemas stay
    gc.set_threshold(COLLECTED_AFTER, 20, 20)


def policy_of(config: ApiConfig) -> Policy:
    """What the options say of the cluster and its courses."""
    return Policy(
        heartbeat_interval=config.heartbeat_interval,
        lease=timedelta(seconds=config.lease),
        job_max_attempts=config.job_max_attempts,
        express_max_jobs=config.express_max_jobs,
        quarantine_after=config.quarantine_after,
        quarantine_pause=timedelta(seconds=config.quarantine_seconds),
        run_retention=timedelta(days=config.run_retention_days) if config.run_retention_days else None,
        max_students=config.max_students,
        max_stages=config.max_stages,
        max_env_entries=config.max_env_entries,
        max_env_bytes=config.max_env_bytes,
        max_stage_timeout=config.max_stage_timeout,
        max_stage_memory=config.max_stage_memory_bytes,
        max_stage_cpus=config.max_stage_cpus,
        max_stage_pids=config.max_stage_pids,
        allow_networking=config.allow_networking,
        allow_privileged=config.allow_privileged,
        allow_root=config.allow_root,
        allowed_images=config.image_patterns,
    )


def webhook_of(config: ApiConfig) -> WebhookSettings | None:
    """Who is told how runs end, if anybody. Raises SetupFault."""
    if not config.webhook_url:
        return None
    try:
        key = Path(config.webhook_key_file).read_bytes().strip()
    except OSError as error:
        raise SetupFault(f"--webhook-key-file {config.webhook_key_file}: {error.strerror}") from error
    if len(key) < LEAST_WEBHOOK_KEY:
        raise SetupFault(f"--webhook-key-file {config.webhook_key_file}: fewer than {LEAST_WEBHOOK_KEY} bytes")
    return WebhookSettings(url=config.webhook_url, key=key)


def secret_box_of(config: ApiConfig) -> SecretBox:
    """The keys of the options; without one, a key in the data directory, made if it is not there."""
    if config.secret_key_file:
        return open_key_file(Path(config.secret_key_file), make=False)
    return open_key_file(Path(config.data_dir) / "secret_key", make=True)


def reload_on_hangup(config: ApiConfig, tokens: ClusterTokens, running: Running) -> None:
    """Read the token file and the course config again at each SIGHUP; what is wrong with them is logged, and left."""
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        tokens.reload()
        try:
            courses = await asyncio.to_thread(courses_of, config)
            if courses is not None:
                await running.service.tenancy.load_courses(courses)
        except (SetupFault, Rejected, StoreError) as fault:
            logger.error("%s; the courses stay as they were", fault)  # noqa: TRY400  # the line says it all

    def begin() -> None:
        task = asyncio.create_task(reload(), name="reload")
        reloads.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)


def courses_of(config: ApiConfig) -> list[Course] | None:
    """The courses of the course config; None if there is no such file to be read. Raises SetupFault."""
    if not config.course_config:
        return None
    try:
        return course_config.read(Path(config.course_config))
    except CourseConfigFault as fault:
        raise SetupFault(f"--course-config {fault}") from fault


def cluster_tokens(config: ApiConfig) -> ClusterTokens:
    """Those of the options; else the one kept in the data directory; else a new one, kept there and printed."""
    if config.token:
        return ClusterTokens.given(config.token)
    if config.token_file:
        return ClusterTokens.kept_in(Path(config.token_file))
    path = Path(config.data_dir) / "cluster_token"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        token = secrets.token_urlsafe(32)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return ClusterTokens.kept_in(path)
        with os.fdopen(file, "w") as stream:
            stream.write(token + "\n")
    except OSError as error:
        raise SetupFault(f"the cluster token cannot be kept in {path}: {error.strerror}") from error
    print(f"cluster token: {token}\n(kept in {path})", flush=True)
    return ClusterTokens.kept_in(path)


def tls_context(config: ApiConfig) -> ssl.SSLContext | None:
    """TLS as the options say; None for plain HTTP."""
    if not config.ssl_certificate:
        return None

    def passphrase() -> str:  # without this OpenSSL asks at the terminal, and a service waits for ever
        raise SetupFault(f"--ssl-key {config.ssl_key} has a passphrase; give a key without one")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.ssl_certificate, config.ssl_key, passphrase)
    except (OSError, ssl.SSLError) as error:
        raise SetupFault(f"--ssl-certificate {config.ssl_certificate}, --ssl-key {config.ssl_key}: {error}") from error
    return context


if __name__ == "__main__":
    sys.exit(main())
