"""Flags, environment and help agree; what cannot be used ends in one line and status 2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from config import ApiConfig, GraderConfig, Options, environment_name, flag_name

OTHER: dict[str, tuple[str, Any]] = {  # a value of each option that is neither its default nor refused
    "bind": ("0.0.0.0", "0.0.0.0"),  # noqa: S104  # only read, never bound
    "port": ("1471", 1471),
    "token": ("t0ken", "t0ken"),
    "token_file": ("tokens", "tokens"),
    "course_config": ("courses.json", "courses.json"),
    "auth_failures_per_minute": ("9", 9),
    "trusted_proxies": ("10.0.0.0/8,::1", "10.0.0.0/8,::1"),
    "store": ("sqlite:///x.db", "sqlite:///x.db"),
    "data_dir": ("d", "d"),
    "secret_key_file": ("k", "k"),
    "heartbeat_interval": ("7", 7),
    "lease_seconds": ("99", 99),
    "job_max_attempts": ("4", 4),
    "express_max_jobs": ("0", 0),
    "quarantine_after": ("5", 5),
    "quarantine_seconds": ("30", 30),
    "run_retention_days": ("400", 400),
    "max_students": ("9", 9),
    "max_stages": ("9", 9),
    "max_env_entries": ("9", 9),
    "max_env_bytes": ("2048", 2048),
    "max_stage_timeout": ("60", 60),
    "max_stage_memory": ("4g", "4g"),
    "max_stage_cpus": ("2.5", 2.5),
    "max_stage_pids": ("99", 99),
    "allow_networking": ("false", False),
    "allow_root": ("false", False),
    "allowed_images": ("a/*,b", "a/*,b"),
    "allow_privileged": ("true", True),
    "max_body_bytes": ("1000", 1000),
    "body_stall_seconds": ("3", 3),
    "open_metrics": ("true", True),
    "webhook_url": ("https://hook", "https://hook"),
    "webhook_key_file": ("hk", "hk"),
    "ssl_certificate": ("c.pem", "c.pem"),
    "ssl_key": ("k.pem", "k.pem"),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "log_dir": ("l", "l"),
    "label": ("gpu,arch=arm64", "gpu,arch=arm64"),
    "api": ("https://api", "https://api"),
    "ca_certificate": ("ca.pem", "ca.pem"),
    "slots": ("3", 3),
    "runtime": ("sandbox", "sandbox"),
    "auto_image": ("python:3.12-slim", "python:3.12-slim"),
    "work_dir": ("w", "w"),
    "image_pull_policy": ("never", "never"),
    "max_log_bytes": ("4096", 4096),
    "max_results_bytes": ("2048", 2048),
    "live_output": ("false", False),
    "excess_output": ("stop", "stop"),
    "stage_memory": ("256m", "256m"),
    "stage_cpus": ("0.5", 0.5),
    "stage_pids": ("64", 64),
    "job_disk": ("64m", "64m"),
    "job_files": ("1000", 1000),
    "job_bound": ("watch", "watch"),
    "stage_tmp": ("16m", "16m"),
    "stage_disk": ("2g", "2g"),
    "stage_user": ("30000-31023", "30000-31023"),
    "allow_root_stages": ("false", False),
    "stage_read_only": ("true", True),
    "oci_runtime": ("runsc", "runsc"),
    "self_test": ("true", True),
    "self_test_at_start": ("warn", "warn"),
    "self_test_image": ("alpine:3", "alpine:3"),
    "self_test_python_image": ("python:3.12", "python:3.12"),
    "poll_wait": ("5", 5),
}
TOGETHER = {
    "ssl_certificate": ["--ssl-key", "k"],
    "ssl_key": ["--ssl-certificate", "c"],
    "webhook_url": ["--webhook-key-file", "k"],
    "webhook_key_file": ["--webhook-url", "http://h"],
}
OPTIONS = [
    pytest.param(kind, field, id=f"{kind.__name__}-{field.name}")
    for kind in (ApiConfig, GraderConfig)
    for field in dataclasses.fields(kind)
]


def load(kind: type[Options], *arguments: str, **environment: str) -> Any:
    named = {environment_name(name): value for name, value in environment.items()}
    if kind is GraderConfig:
        named.setdefault(environment_name("token"), "secret")
    return kind.load(arguments, named)


def as_flag(kind: type[Options], field: dataclasses.Field[Any], text: str) -> list[str]:
    flag = flag_name(field)
    if get_type_hints(kind)[field.name] is bool:
        return [flag if text == "true" else "--no-" + flag.removeprefix("--")]
    return [flag, text] if flag.startswith("-") else [text]


@pytest.mark.parametrize(("kind", "field"), OPTIONS)
def test_every_option_comes_from_default_environment_or_flag_in_this_order(
    kind: type[Options], field: dataclasses.Field[Any]
) -> None:
    text, value = OTHER[field.name]
    more = TOGETHER.get(field.name, [])
    if (kind, field.name) != (GraderConfig, "token"):
        assert getattr(load(kind), field.name) == field.default != value
    assert getattr(load(kind, *more, **{field.name: text}), field.name) == value
    assert getattr(load(kind, *more, *as_flag(kind, field, text)), field.name) == value
    elsewhere = {"true": "false", "false": "true"}.get(text, text)
    assert getattr(load(kind, *more, *as_flag(kind, field, text), **{field.name: elsewhere}), field.name) == value


@pytest.mark.parametrize(("kind", "field"), OPTIONS)
def test_the_flag_wins_over_an_environment_that_could_not_even_be_used(
    kind: type[Options], field: dataclasses.Field[Any]
) -> None:
    text, value = OTHER[field.name]
    config = load(kind, *TOGETHER.get(field.name, []), *as_flag(kind, field, text), **{field.name: "no such value"})
    assert getattr(config, field.name) == value


@pytest.mark.parametrize(("kind", "field"), OPTIONS)
def test_help_shows_flag_environment_and_default(
    kind: type[Options], field: dataclasses.Field[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        kind.load(["--help"], {})
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"{environment_name(field.name)}" in shown
    assert flag_name(field) in shown
    assert field.metadata["help"].splitlines()[0] in shown
    if field.default not in ("", None):
        assert f"[{environment_name(field.name)}, default {field.default}]" in shown


@pytest.mark.parametrize(("kind", "field"), OPTIONS)
def test_every_option_is_documented_in_line(kind: type[Options], field: dataclasses.Field[Any]) -> None:
    assert len(field.metadata["help"]) > 10
    source = (Path(__file__).parents[2] / "config.py").read_text()
    assert f"    {field.name}: " in source


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert load(ApiConfig, port="").port == 1470


@pytest.mark.parametrize(
    ("word", "value"),
    [("1", True), ("yes", True), ("ON", True), ("True", True), ("0", False), ("no", False), ("off", False)],
)
def test_words_for_yes_and_no(word: str, value: bool) -> None:
    assert load(ApiConfig, allow_privileged=word).allow_privileged is value


def test_labels_may_be_given_one_by_one() -> None:
    config = load(GraderConfig, "--label", "gpu", "--label", "arch=arm64, zone=a", label="ignored")
    assert config.labels == {"gpu": "", "arch": "arm64", "zone": "a"}
    assert load(GraderConfig, label="gpu=a100,").labels == {"gpu": "a100"}


BAD: list[tuple[type[Options], list[str], dict[str, str], str]] = [
    (ApiConfig, ["--port", "http"], {}, "--port: 'http' is not a number"),
    (GraderConfig, ["--label", "g p u"], {}, "--label: 'g p u' is no label"),
    (GraderConfig, ["--label", "arch=a", "--label", "arch=b"], {}, "--label: arch has two values, 'a' and 'b'"),
    (ApiConfig, ["--port", "65536"], {}, "--port must be between 0 and 65535"),
    (ApiConfig, ["--port", "-1"], {}, "--port"),
    (ApiConfig, ["--bind"], {}, "--bind: expected one argument"),
    (ApiConfig, [], {"port": "1.5"}, "BROADWAY_PORT: '1.5' is not a number"),
    (ApiConfig, [], {"allow_privileged": "maybe"}, "BROADWAY_ALLOW_PRIVILEGED: 'maybe' is neither true nor false"),
    (ApiConfig, ["--heartbeat-interval", "0"], {}, "--heartbeat-interval must be between"),
    (ApiConfig, ["--lease-seconds", "10"], {}, "--lease-seconds must be more than --heartbeat-interval"),
    (ApiConfig, ["--lease-seconds", "-5"], {}, "--lease-seconds"),
    (ApiConfig, ["--lease-seconds", "9" * 20], {}, "--lease-seconds"),
    (ApiConfig, ["--max-body-bytes", "0"], {}, "--max-body-bytes"),
    (ApiConfig, ["--token-file", "f"], {"token": "t"}, "--token and --token-file exclude one another"),
    (ApiConfig, ["--trusted-proxies", "10.0.0.1/8"], {}, "--trusted-proxies: '10.0.0.1/8' is neither"),
    (ApiConfig, ["--auth-failures-per-minute", "0"], {}, "--auth-failures-per-minute must be between"),
    (ApiConfig, ["--body-stall-seconds", "0"], {}, "--body-stall-seconds"),
    (ApiConfig, ["--max-stage-timeout", "9" * 5_000], {}, "--max-stage-timeout"),
    (ApiConfig, ["--ssl-key", "k"], {}, "--ssl-certificate and --ssl-key go together"),
    (ApiConfig, ["--log-level", "loud"], {}, "--log-level: 'loud' is none of debug, info, warning, error"),
    (ApiConfig, ["--nonsense"], {}, "--nonsense"),
    (ApiConfig, ["--port"], {}, "--port"),
    (ApiConfig, ["stray"], {}, "no such argument"),
    (GraderConfig, [], {"token": ""}, "no cluster token"),
    (GraderConfig, ["--api", "localhost:1470"], {}, "--api must be an http:// or https:// URL"),
    (GraderConfig, ["--slots", "-1"], {}, "--slots"),
    (GraderConfig, ["--stage-cpus", "0"], {}, "--stage-cpus"),
    (GraderConfig, ["--stage-cpus", "nan"], {}, "--stage-cpus"),
    (GraderConfig, ["--stage-cpus", "inf"], {}, "--stage-cpus"),
    (GraderConfig, ["--poll-wait", "-1"], {}, "--poll-wait"),
    (GraderConfig, ["--poll-wait", "61"], {}, "--poll-wait"),
    (GraderConfig, ["--no-allow-root-stages", "--stage-user", "image"], {}, "an image's user is often root"),
    (GraderConfig, ["--runtime", "sandbox", "--oci-runtime", "runsc"], {}, "with --runtime sandbox nothing would use"),
    (GraderConfig, ["--runtime", "podman"], {}, "--runtime: 'podman' is none of auto, docker, sandbox"),
]


@pytest.mark.parametrize(("kind", "arguments", "environment", "message"), BAD)
def test_what_cannot_be_used_is_one_clear_line_and_status_2(
    kind: type[Options],
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(kind, *arguments, **environment)
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert message in told.err


@pytest.mark.parametrize("kind", [ApiConfig, GraderConfig])
@pytest.mark.parametrize("token", ["se cret", "sec\nret", " secret", "sécret", "secret\0"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    kind: type[Options], token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load(kind, token=token)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "cluster token must be visible ASCII characters" in told
    assert token not in told
    assert "secret" not in told


def test_an_unknown_flag_does_not_show_what_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(ApiConfig, "--tokne", "s3cret")
    with pytest.raises(SystemExit):
        load(ApiConfig, "--tokne=s3cret")
    assert "s3cret" not in capsys.readouterr().err


def test_a_flag_must_be_written_out() -> None:
    """`--p` may be `--port` today and something else tomorrow."""
    with pytest.raises(SystemExit):
        load(ApiConfig, "--por", "1")


def test_what_follows_from_the_options() -> None:
    config = load(ApiConfig, data_dir="/d", heartbeat_interval="4")
    assert (config.store_url, config.log_path, config.lease) == ("sqlite:////d/broadway.db", Path("/d/logs"), 12)
    assert load(ApiConfig, lease_seconds="11").lease == 11
    assert load(ApiConfig, log_dir="/l").log_path == Path("/l")
    grader = load(GraderConfig, work_dir="/w")
    assert grader.slot_count >= 1
    assert grader.log_path == Path("/w/logs")
    assert load(GraderConfig, slots="5").slot_count == 5
