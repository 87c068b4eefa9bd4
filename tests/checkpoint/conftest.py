"""Both kinds of places."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.checkpoint.places import StoredBytes


@pytest.fixture
def in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredBytes]:
    """Object storage in memory; its own `get_file` has one read position for all threads that read a file."""

    def get_file(self: MemoryFileSystem, remote: str, local: str) -> None:
        Path(local).write_bytes(self.cat_file(remote))

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    stored = StoredBytes(f"memory://checkpoints/{tmp_path.name}")
    yield stored
    if stored.files.exists(stored.root):
        stored.files.rm(stored.root, recursive=True)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoredBytes:
    return StoredBytes(str(tmp_path)) if request.param == "local" else request.getfixturevalue("in_memory")
