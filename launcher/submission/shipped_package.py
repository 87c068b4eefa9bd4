"""The files of this package that travel with a job: from a wheel or a checkout, and nothing else from there."""

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from sft.errors import UserError

_PACKAGES = ("sft", "launcher")
_MOST_BYTES = 16 * 1024**2
"""Many times the size of both packages: more would be data that got into their folders."""

_Found = Iterator[tuple[str, int, Callable[[], bytes]]]


def read_package(origin: Path) -> dict[str, bytes]:
    """The files of the packages `sft` and `launcher`, by their paths below the folder that holds both.

    Args:
        origin: a wheel, or the folder of a checkout. A checkout's files are taken as they are, committed or not.

    Raises:
        UserError: it is neither, or it is too large.
    """
    files: dict[str, bytes] = {}
    num_bytes = 0
    for name, size, read in _of_wheel(origin) if origin.is_file() else _of_checkout(origin):
        num_bytes += size
        if num_bytes > _MOST_BYTES:
            raise UserError(
                f"--package {origin}: the packages sft and launcher hold more than the limit of "
                f"{_MOST_BYTES >> 20} MiB; {name} has {size / 2**20:.1f}. Move what is not the "
                "program out of these folders."
            )
        files[name] = read()
    if not all(f"{package}/__init__.py" in files for package in _PACKAGES):
        raise UserError(
            f"--package {origin}: there are no packages sft and launcher in it. Give a wheel of them, or a checkout."
        )
    return files


def _of_checkout(folder: Path) -> _Found:
    for package in _PACKAGES:
        for path in sorted((folder / package).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if _is_program(name) and path.is_file():
                yield name, path.stat().st_size, path.read_bytes


def _of_wheel(path: Path) -> _Found:
    try:
        wheel = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise UserError(f"--package {path}: this is not a wheel. Give a wheel, or the folder of a checkout.") from None
    with wheel:
        for info in wheel.infolist():
            if PurePosixPath(info.filename).parts[0] in _PACKAGES and _is_program(info.filename) and not info.is_dir():
                yield info.filename, info.file_size, partial(wheel.read, info)


def _is_program(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part == "__pycache__" or part.startswith(".") for part in parts)
