"""Folders and object storage."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.checkpoint.storages import StoredBytes
from tests.s3_server import S3Server


@pytest.fixture
def in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredBytes]:
    """Object storage in memory; its own `get_file` has one read position for all threads that read a file."""

    def get_file(self: MemoryFileSystem, remote: str, local: str, callback: object = None) -> None:
        Path(local).write_bytes(self.cat_file(remote))

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    stored = StoredBytes(f"memory://checkpoints/{tmp_path.name}")
    yield stored
    if stored.files.exists(stored.root):
        stored.files.rm(stored.root, recursive=True)


@pytest.fixture
def in_s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredBytes:
    """Object storage behind the real protocol, as a user who may do everything."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return StoredBytes(s3_server.url(tmp_path.name))


@pytest.fixture(params=["memory", "s3"])
def remote(request: pytest.FixtureRequest) -> StoredBytes:
    stored: StoredBytes = request.getfixturevalue(f"in_{request.param}")
    return stored


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoredBytes:
    if request.param == "local":
        return StoredBytes(str(tmp_path))
    stored: StoredBytes = request.getfixturevalue(f"in_{request.param}")
    return stored
