"""A place with the bytes behind it, so that tests can damage them."""

from collections.abc import Callable

import fsspec

from sft.checkpoint.open_storage import open_storage


class StoredBytes:
    """The checkpoints at a location, as a place and as files."""

    def __init__(self, location: str) -> None:
        self.url = location
        self.storage = open_storage(location)
        self.files, root = fsspec.url_to_fs(location)
        self.root = str(root)

    def files_of(self, step: int) -> list[str]:
        return sorted(self.files.find(f"{self.root}/step-{step:08d}"))

    def manifest_of(self, step: int) -> str:
        (path,) = (path for path in self.files_of(step) if path.endswith("/manifest.json"))
        return path

    def shards_of(self, step: int) -> list[str]:
        return [path for path in self.files_of(step) if path.endswith(".safetensors")]

    def change(self, path: str, change: Callable[[bytes], bytes]) -> None:
        self.files.pipe_file(path, change(self.files.cat_file(path)))
