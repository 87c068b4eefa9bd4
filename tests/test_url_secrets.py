"""Passwords that stand in a config's URLs are shown nowhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from sft import url_secrets
from sft.config import SftConfig
from sft.config_file import build_config
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.run_record import check_run, write_run_record
from sft.url_secrets import hide_secrets, remember_secrets, without_secrets

SECRET = "s3cr3t/+Key"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What one test has remembered is not known to the next."""
    yield
    url_secrets._known.clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"s3://AKIAX:{SECRET}@bucket/a", "s3://bucket/a"),
        ("https://user:pw@host/x and s3://k:s@b", "https://host/x and s3://b"),
        ("https://token@host/x", "https://host/x"),
        ("http://host:8080/path@v1", "http://host:8080/path@v1"),
        ("http://host:8265", "http://host:8265"),
        (f"hf_{'a' * 34} is wrong", "*** is wrong"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("who@where: 5", "who@where: 5"),
    ],
)
def test_a_password_is_taken_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_what_a_library_quotes_in_part_is_hidden_too() -> None:
    remember_secrets({"a": [f"s3://KEYID:{SECRET}@bucket/x"], "b": "https://me:p%40ssword@host"})
    said = f'Invalid bucket name "KEYID:{SECRET}@bucket": p@ssword, p%40ssword, {SECRET}'
    assert without_secrets(said) == 'Invalid bucket name "bucket": ***, ***, ***'
    assert hide_secrets({"x": (said, 5)}) == {"x": ['Invalid bucket name "bucket": ***, ***, ***', 5]}


def content(folder: Path) -> dict[str, Any]:
    source = {"name": "a", "path": f"s3://KEYID:{SECRET}@bucket/a.jsonl"}
    tag = {"texts": {"a": f"https://me:{SECRET}@host/"}}
    return {
        "run": {"name": "a", "dir": str(folder / "run")},
        "model": {"path": str(folder / "model")},
        "data": {"sources": [source], "task_tag": tag},
        "stages": [{"name": "s", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "checkpoint": {"dir": f"s3://KEYID:{SECRET}@bucket/run"},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"path": f"s3://KEYID:{SECRET}@bucket/model"}},
        {"model": {"path": "m", "pth": f"https://me:{SECRET}@host/x"}},
        {"modle": {"path": f"https://me:{SECRET}@host/" + "x" * 300}},
        {"data": {"sources": [f"s3://{'K' * 110}:{SECRET}@bucket/a"]}},
        {"checkpoint": {"dir": [f"s3://KEYID:{SECRET}@bucket"]}},
        {f"https://me:{SECRET}@host": 1},
        {"stages": f"https://me:{SECRET}@host"},
        "s3://KEYID:" + SECRET + "@bucket: [",
        "a: {x: 's3://KEYID:" + SECRET + "@bucket', x: 1}",
    ],
)
def test_no_error_of_a_config_shows_it(change: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(change if isinstance(change, str) else yaml.safe_dump(content(tmp_path) | change))
    assert main(["plan", str(path)]) == 2
    assert main(["plan", str(path), f"run.dirr=s3://KEYID:{SECRET}@bucket", f"x={{a: 's3://K:{SECRET}@b"]) == 2
    shown = "".join(capfd.readouterr())
    assert "s3cr3t" not in shown
    assert "Traceback" not in shown


def test_no_plan_shows_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content(tmp_path)))
    assert main(["plan", str(path)]) == main(["plan", str(path), "--json"]) == 0
    assert "s3cr3t" not in "".join(capfd.readouterr())


def test_the_run_folder_does_not_hold_it_and_is_the_same_run_with_another_password(tmp_path: Path) -> None:
    config: SftConfig = build_config(content(tmp_path))
    run = RunFolder(config.run.dir)
    run.attempt(1).path.mkdir(parents=True)
    write_run_record(config)
    EventLog(run.attempt(1), 0).add("checkpoint", f"KEYID:{SECRET}@bucket is gone", where=SECRET)
    held = "".join(p.read_text() for p in run.path.rglob("*") if p.is_file())
    assert "s3cr3t" not in held
    assert yaml.safe_load(run.config.read_text())["checkpoint"]["dir"] == "s3://bucket/run"
    metrics = run.stage(0, "s").metrics
    metrics.parent.mkdir(parents=True)
    metrics.write_text("")
    check_run(build_config(json.loads(json.dumps(content(tmp_path)).replace("s3cr3t", "oth3r"))))
