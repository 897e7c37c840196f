"""Every option of Broadway, documented in line.

Each field of a config class is one option. `bind` is the flag `--bind` and the environment variable
`BROADWAY_BIND`; a flag wins over the environment, the environment over the default given here. The text beside a
field is the help that `--help` prints.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from config_base import Options, check_range, environment_name, flag_name, option

__all__ = ["QUEUE_EMPTY_CODE", "ApiConfig", "GraderConfig", "Options", "check_token", "environment_name", "flag_name"]

#: The HTTP status that a worker gets when the queue has no job for it.
QUEUE_EMPTY_CODE = 498

#: As the API takes it in what a stage requires.
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(=[A-Za-z0-9._/-]{0,63})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The options that both programs have."""

    log_level: str = option("info", "least severe messages to log", choices=("debug", "info", "warning", "error"))
    log_format: str = option(
        "text", "text for people, or json: one object a line, with ids as fields", choices=("text", "json")
    )
    log_dir: str = option("", "directory of the rotating log files (midnight, 7 kept); empty: <data or work dir>/logs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiConfig(Config):
    """The Broadway API: receives grading runs and hands their jobs to graders."""

    bind: str = option("127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
    port: int = option(1470, "port to listen on; 0 takes a free one")
    token: str = option(
        "",
        "cluster token; better given by the environment than by a flag, which `ps` shows.\n"
        "None given: one is made at the first start and kept in <data dir>/cluster_token",
    )
    token_file: str = option(
        "",
        "file with cluster tokens instead, one a line, `#` before a remark; all are valid, and it is read again\n"
        "when it changes and at SIGHUP",
    )
    course_config: str = option(
        "",
        'JSON file of courses and their tokens: {"<course>": {"tokens": ["…"], "query_tokens": ["…"], "weight": 1}};\n'
        "it replaces what the last such file said at each start and at SIGHUP",
    )
    auth_failures_per_minute: int = option(
        60, "failed authentications of one address after which they are answered with 429; good tokens always work"
    )
    trusted_proxies: str = option(
        "",
        "addresses and networks of proxies, with commas in between, whose X-Forwarded-For and X-Forwarded-Proto are\n"
        "believed: 127.0.0.1,10.0.0.0/8",
    )
    store: str = option(
        "", "where runs are kept: sqlite:///<file> or mongodb://…; empty: sqlite:///<data dir>/broadway.db"
    )
    data_dir: str = option("data", "directory of the embedded store, the made token and the logs")
    secret_key_file: str = option(
        "",
        "file of the keys that courses' secrets are sealed with, one a line, the first for new ones; all APIs of a\n"
        "store need the same. None given: a key is made at the first start and kept in <data dir>/secret_key",
    )
    heartbeat_interval: int = option(10, "seconds between the heartbeats that workers are asked for")
    lease_seconds: int = option(
        0,
        "seconds after which a job whose worker was not heard of is queued again;\n0: three heartbeat intervals",
    )
    job_max_attempts: int = option(3, "how often a job is handed out before an infrastructure fault fails it")
    express_max_jobs: int = option(
        5, "runs of at most so many jobs go before larger ones, in three of four turns at most;\n0: no run does"
    )
    quarantine_after: int = option(
        3, "infrastructure faults in a row after which a worker gets no jobs but, now and then, one as a probe"
    )
    quarantine_seconds: int = option(60, "pause before the first probe; doubles with each that fails")
    run_retention_days: int = option(0, "days after its end that a run is deleted with its jobs and logs; 0: never")
    max_students: int = option(50_000, "students of a run, at most")
    max_stages: int = option(20, "stages of a pipeline, at most")
    max_env_entries: int = option(250, "variables of a run, a stage or a student, at most")
    max_env_bytes: int = option(131_072, "bytes of a stage's whole environment, at most")
    max_stage_timeout: int = option(3600, "seconds, the longest timeout that a stage may ask for")
    max_stage_memory: str = option("", "the most memory that a stage may ask for, such as 4g; empty: no limit")
    max_stage_cpus: float = option(1024.0, "the most CPUs that a stage may ask for")
    max_stage_pids: int = option(2**22, "the most processes that a stage may ask for")
    allow_networking: bool = option(True, "accept stages that ask for a network")
    allow_privileged: bool = option(False, "accept stages that ask for a privileged container, which owns its host")
    allow_root: bool = option(
        True, "accept stages whose `user` is root; what an image's own user is, the API does not know"
    )
    allowed_images: str = option(
        "*",
        "images that stages may name: patterns as in a shell, divided by commas, such as\n"
        "registry.example/course/*,python:3.* (end a registry's name with a slash, or others begin like it)",
    )
    max_body_bytes: int = option(32 * 1024 * 1024, "largest request body; a larger one is refused with 413")
    body_stall_seconds: int = option(30, "a request body that brings nothing for so long is cut off")
    open_metrics: bool = option(False, "/metrics asks for no token; else it asks for an operator's")
    webhook_url: str = option("", "URL that is told, by POST, how each run ended; https:// or http://")
    webhook_key_file: str = option("", "file of the key that signs what it is told; goes with --webhook-url")
    ssl_certificate: str = option("", "PEM file of the certificate chain; with --ssl-key the API speaks HTTPS")
    ssl_key: str = option("", "PEM file of the certificate's key")

    def check(self) -> None:
        if bool(self.ssl_certificate) != bool(self.ssl_key):
            raise ValueError("--ssl-certificate and --ssl-key go together: give both or neither")
        if self.token and self.token_file:
            raise ValueError("--token and --token-file exclude one another: give one")
        _check_webhook(self.webhook_url, self.webhook_key_file)
        for proxy in self.proxies:
            _check_network("--trusted-proxies", proxy)
        check_range("--auth-failures-per-minute", self.auth_failures_per_minute, 1, 1_000_000)
        check_range("--port", self.port, 0, 65535)
        check_range("--express-max-jobs", self.express_max_jobs, 0, 2**31)
        check_range("--run-retention-days", self.run_retention_days, 0, 36_500)
        check_range("--max-stages", self.max_stages, 1, 100)
        check_range("--max-env-entries", self.max_env_entries, 1, 1_000)
        check_range("--max-env-bytes", self.max_env_bytes, 1_024, 131_072)
        check_range("--max-stage-pids", self.max_stage_pids, 1, 2**22)
        if not 0 < self.max_stage_cpus <= 1024:
            raise ValueError(f"--max-stage-cpus must be more than 0 and at most 1024, not {self.max_stage_cpus}")
        if not self.image_patterns:
            raise ValueError("--allowed-images has no pattern; * allows every image")
        _ = self.max_stage_memory_bytes
        for name in (
            "heartbeat_interval",
            "max_students",
            "job_max_attempts",
            "quarantine_after",
            "quarantine_seconds",
            "max_stage_timeout",
            "max_body_bytes",
            "body_stall_seconds",
        ):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), 1, 2**31)
        check_token(self.token)
        check_range("--lease-seconds", self.lease_seconds, 0, 2**31)
        if self.lease_seconds and self.lease_seconds <= self.heartbeat_interval:
            raise ValueError("--lease-seconds must be more than --heartbeat-interval, or every job would be lost")

    @property
    def image_patterns(self) -> tuple[str, ...]:
        """The patterns of images that stages may name."""
        return tuple(pattern.strip() for pattern in self.allowed_images.split(",") if pattern.strip())

    @property
    def max_stage_memory_bytes(self) -> int | None:
        """The most memory that a stage may ask for; None: no limit. Raises ValueError."""
        if not self.max_stage_memory:
            return None
        match = re.fullmatch(r"(\d{1,15})([kmg]?)b?", self.max_stage_memory.lower(), re.ASCII)
        if match is None or int(match[1]) == 0:
            raise ValueError(f"--max-stage-memory must be a size such as 4g, not {self.max_stage_memory[:40]!r}")
        return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}[match[2]]

    @property
    def proxies(self) -> tuple[str, ...]:
        """The trusted proxies, one by one."""
        return tuple(part.strip() for part in self.trusted_proxies.split(",") if part.strip())

    @property
    def lease(self) -> int:
        """Seconds that a claim lasts without a heartbeat."""
        return self.lease_seconds or 3 * self.heartbeat_interval

    @property
    def store_url(self) -> str:
        """The store to open, with its default filled in."""
        return self.store or f"sqlite:///{Path(self.data_dir) / 'broadway.db'}"

    @property
    def log_path(self) -> Path:
        """Directory of the log files."""
        return Path(self.log_dir) if self.log_dir else Path(self.data_dir) / "logs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraderConfig(Config):
    """A Broadway grader: asks the API for jobs and runs their stages in containers."""

    token: str = option(
        "", "cluster token; better given by the environment than on the command line, which `ps` shows", flag="token"
    )
    api: str = option("http://127.0.0.1:1470", "URL of the API")
    ca_certificate: str = option(
        "", "PEM file of the authority that signed the API's certificate, if no public one did"
    )
    slots: int = option(0, "jobs to run at once; 0: the number of CPUs")
    runtime: str = option(
        "auto",
        "what runs the stages; auto: docker if an engine answers, else sandbox",
        choices=("auto", "docker", "sandbox"),
    )
    auto_image: str = option(
        "",
        "with --runtime auto: docker only if this image is there or can be pulled within a minute; empty: any engine",
    )
    work_dir: str = option("work", "directory of the jobs' /job directories and the logs; must be this grader's alone")
    image_pull_policy: str = option("missing", "when to pull images", choices=("missing", "always", "never"))
    max_log_bytes: int = option(1024 * 1024, "bytes of stdout and of stderr kept of each stage")
    live_output: bool = option(True, "send what stages print while they run, to those who follow a job's log")
    excess_output: str = option(
        "drop",
        "what becomes of a stage that prints more; drop: the rest is dropped; stop: it fails as output_limit",
        choices=("drop", "stop"),
    )
    max_results_bytes: int = option(1024 * 1024, "bytes of the results.json of a stage that declares results")
    stage_memory: str = option("512m", "memory of a stage that asks for none")
    stage_cpus: float = option(1.0, "CPUs of a stage that asks for none")
    stage_pids: int = option(256, "processes of a stage that asks for none")
    job_disk: str = option("1g", "size of each job's /job")
    job_files: int = option(100_000, "files and directories that a job may keep in /job")
    job_bound: str = option(
        "auto",
        "how /job is bounded; loop: a file system of its own for each job, for root alone; tmpfs: the same in memory;\n"
        "watch: a directory that is counted while stages run; auto: loop where it works, else watch",
        choices=("auto", "loop", "tmpfs", "watch"),
    )
    stage_tmp: str = option("64m", "size of a stage's /tmp and of its /dev/shm, which count as its memory")
    stage_disk: str = option(
        "1g", "what a stage may write outside of /job, and the largest file it may write; more is disk_limit"
    )
    stage_user: str = option(
        "auto",
        "user of a stage that names none: FIRST-LAST, a range of user ids, one for each slot; or image, whatever its\n"
        "image says, often root. auto: from 2000000000 on if the grader is root, else the grader's own user",
    )
    allow_root_stages: bool = option(True, "run stages as root that ask for it by user; --no-… refuses them")
    stage_read_only: bool = option(False, "the root file system is read-only in a stage that does not say")
    oci_runtime: str = option("", "OCI runtime that the engine is to use, such as runsc or kata; empty: its default")
    self_test: bool = option(
        False,
        "attack this machine's runtime with everything in the catalogue, print what held, and exit: with status 0 if\n"
        "every must-hold did, else 1; needs neither API nor token",
    )
    self_test_at_start: str = option(
        "auto",
        "whether to try the quick must-holds before registering, and refuse to start if one does not hold;\n"
        "auto: unless they held within a day with this configuration; always: each time, and they must be tried;\n"
        "warn: as auto, but start all the same; never: do not. The list of workers shows what came of it",
        choices=("auto", "always", "warn", "never"),
    )
    self_test_image: str = option("busybox:stable", "image that the self-test's shell scripts run in")
    self_test_python_image: str = option(
        "python:3-slim", "image that the rest of --self-test runs in; needs python3 and coreutils"
    )
    label: str = option(
        "",
        "what this machine has that jobs may require, such as gpu or arch=arm64; may be given several times,\n"
        "or with commas between",
        repeatable=True,
    )
    poll_wait: int = option(20, "seconds that the API is asked to hold a poll until there is work")

    def check(self) -> None:
        if not self.token and not self.self_test:
            raise ValueError(f"no cluster token: give it as the first argument or in {environment_name('token')}")
        check_token(self.token)
        if len(self.labels) > 64:
            raise ValueError(f"--label: {len(self.labels)} labels are more than the 64 that the API takes")
        check_range("--slots", self.slots, 0, 1024)
        check_range("--max-log-bytes", self.max_log_bytes, 1024, 2**30)
        check_range("--max-results-bytes", self.max_results_bytes, 1024, 2_000_000)
        check_range("--stage-pids", self.stage_pids, 1, 2**22)
        check_range("--job-files", self.job_files, 16, 10**8)
        if not 0 < self.stage_cpus <= 1024:
            raise ValueError(f"--stage-cpus must be more than 0 and at most 1024, not {self.stage_cpus}")
        check_range("--poll-wait", self.poll_wait, 0, 60)
        if not self.api.startswith(("http://", "https://")):
            raise ValueError(f"--api must be an http:// or https:// URL, not {self.api!r}")
        if not self.allow_root_stages and self.stage_user == "image":
            raise ValueError("--no-allow-root-stages and --stage-user image contradict: an image's user is often root")
        if self.oci_runtime and self.runtime == "sandbox":
            raise ValueError("--oci-runtime is the Docker Engine's; with --runtime sandbox nothing would use it")

    @property
    def labels(self) -> dict[str, str]:
        """Labels by name; a label without a value has an empty one. Raises ValueError."""
        labels: dict[str, str] = {}
        for label in filter(None, (text.strip() for text in self.label.split(","))):
            if not _LABEL.fullmatch(label):
                raise ValueError(
                    f"--label: {label[:80]!r} is no label: gpu or arch=arm64 would be; letters, digits and ._/-"
                )
            name, _, value = label.partition("=")
            if labels.setdefault(name, value) != value:
                raise ValueError(f"--label: {name} has two values, {labels[name]!r} and {value!r}")
        return labels

    @property
    def slot_count(self) -> int:
        """Jobs to run at once, with the default filled in."""
        return self.slots or os.cpu_count() or 1

    @property
    def log_path(self) -> Path:
        """Directory of the log files."""
        return Path(self.log_dir) if self.log_dir else Path(self.work_dir) / "logs"


def _check_webhook(url: str, key_file: str) -> None:
    if bool(url) != bool(key_file):
        raise ValueError("--webhook-url and --webhook-key-file go together: give both or neither")
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None):
        raise ValueError(
            "--webhook-url must be an http:// or https:// URL without a user; the signature says who calls"
        )


def _check_network(name: str, text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{name}: {text[:80]!r} is neither an address nor a network such as 10.0.0.0/8") from None


def check_token(token: str) -> None:
    """Raise ValueError, without showing it, for what no header carries to the other side unchanged."""
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("the cluster token must be visible ASCII characters, without spaces")
