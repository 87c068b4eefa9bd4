"""What a URL cannot be used for is said once, when it is opened, with what to do; a network that fails is not that."""

import re

import fsspec
import pytest
import s3fs

from sft.checkpoint.object_storage import open_file_system, os_errors
from sft.checkpoint.open_storage import open_storage
from sft.errors import UserError
from tests.checkpoint.storages import StoredBytes
from tests.s3_server import S3Server


def refusal(url: str) -> str:
    with pytest.raises(UserError) as caught:
        open_file_system(url)
    text = str(caught.value)
    assert text.startswith(f"checkpoint.dir: {url} cannot be used: ")
    assert "Correct the URL, or the keys and the endpoint" in text
    return text


def test_a_bucket_that_is_not_there(in_s3: StoredBytes, s3_server: S3Server) -> None:
    assert "there is no bucket bukcet." in refusal("s3://bukcet/run")
    assert [bucket["Name"] for bucket in s3_server.client("s3").list_buckets()["Buckets"]] == ["bucket"], "none is made"
    assert open_storage(s3_server.url("not-there-yet")).steps() == []


def test_keys_that_are_refused(in_s3: StoredBytes, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    good = s3_server.make_keys("s3:*")
    cases = {
        "Access Denied": s3_server.make_keys("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        "The AWS Access Key Id you provided does not exist": {"key": "nobody", "secret": "nothing"},
        "The request signature we calculated does not match": {**good, "secret": "a guess"},
    }
    for said, keys in cases.items():
        monkeypatch.setitem(fsspec.config.conf, "s3", keys)
        text = refusal(in_s3.url)
        assert f"PermissionError: {said}" in text
        assert keys["secret"] not in text


def test_no_keys(in_s3: StoredBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"skip_instance_cache": True})
    assert "NoCredentialsError: Unable to locate credentials" in refusal(in_s3.url)


def test_a_name_that_no_bucket_can_have(in_s3: StoredBytes) -> None:
    assert "Invalid bucket name" in refusal("s3://not a bucket/run")


def test_a_network_that_is_away_is_met_by_the_tries(in_s3: StoredBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there again a moment later: then the job must not have ended."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"skip_instance_cache": True})
    storage = open_storage(in_s3.url)
    with pytest.raises(ConnectionError, match=f"{re.escape(in_s3.url)}: EndpointConnectionError: Could not connect"):
        storage.steps()


class OwnError(Exception):
    """As packages have them."""


def test_errors_are_pythons_own_with_the_url() -> None:
    def behind(cause: Exception) -> OwnError:
        error = OwnError("it failed")
        error.__context__ = cause
        return error

    for error, kind, text in (
        (FileNotFoundError("no key"), FileNotFoundError, "no key"),
        (PermissionError("no"), PermissionError, "no"),
        (TimeoutError("late"), TimeoutError, "late"),
        (OSError(5, "busy"), OSError, "[Errno 5] busy"),
        (behind(ConnectionResetError("reset")), ConnectionError, "OwnError: it failed"),
        (behind(behind(TimeoutError("late"))), ConnectionError, "OwnError: it failed"),
        (behind(ValueError("?")), OSError, "OwnError: it failed"),
        (KeyError("x"), OSError, "KeyError: 'x'"),
    ):
        with pytest.raises(OSError, match=f"^s3://bucket: {re.escape(text)}$") as caught, os_errors("s3://bucket"):
            raise error
        assert type(caught.value) is kind
        assert caught.value.__cause__ is error
