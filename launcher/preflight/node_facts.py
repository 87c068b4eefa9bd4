"""The facts of one node, without Ray: versions, files, limits, environment, GPUs."""

import hashlib
import importlib.util
import os
import platform
import re
import resource
import shutil
import socket
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from rich.filesize import decimal

import launcher
import sft
from launcher.preflight.gpus import Gpu, GpuQueryError, query_gpus
from sft.data.staged_packs import staging_root
from sft.data.staging import LEAST_FREE_SHARE
from sft.training.run_record import PACKAGES

_VARIABLES = re.compile(r"(NCCL|GLOO|CUDA|FI|OMP)_\w+")
# By this variable, Ray gives each worker its own GPUs.
_OF_THE_WORKER = {"CUDA_VISIBLE_DEVICES"}
_SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_HASHED_BYTES = 2**20
"""Files up to this size are compared by their content, larger ones by their size."""


class Request(NamedTuple):
    """What a node is asked for. `paths`: local files and folders of the config that a worker reads."""

    paths: tuple[str, ...]
    wants_gpus: bool = False
    stages_packs: bool = False
    staging_dir: str | None = None
    computes_in_bfloat16: bool = False
    """On CPUs."""


class Contents(NamedTuple):
    """What is at a path: name → what identifies the file's content. `problem`: why it cannot be read."""

    files: dict[str, str]
    problem: str | None = None


class GpuFacts(NamedTuple):
    """The GPUs and whether torch can use them. `problem`: why they cannot be seen."""

    gpus: tuple[Gpu, ...]
    problem: str | None
    cuda: str | None
    """The CUDA version that torch is built for."""
    torch_sees_them: bool


class NodeFacts(NamedTuple):
    """A node, or the driver's machine."""

    versions: dict[str, str]
    contents: dict[str, Contents]
    environment: dict[str, str]
    """Variables that change how nodes compute and communicate; values that look like secrets are left out."""
    temp_folder: str
    temp_free_bytes: int
    shm_bytes: int
    """Size of /dev/shm."""
    num_open_files: int | None
    """How many files a process may have open; None: any number."""
    host_address: str
    """The address that the host name resolves to: gloo tells the other ranks to connect to it."""
    staging_problem: str | None
    """Why packs cannot be staged here, if the job wants that."""
    gpus: GpuFacts | None
    """None where the job asks for no GPUs."""
    slow_arithmetic: str | None = None
    """What this processor lacks of what a job on CPUs computes with, in words."""


def look(request: Request) -> NodeFacts:
    """The facts of this machine and this Python."""
    temp_folder, temp_free_bytes = _temp_folder()
    return NodeFacts(
        versions=_versions(),
        contents={path: read_contents(Path(path)) for path in request.paths},
        environment=shown_variables(os.environ),
        temp_folder=temp_folder,
        temp_free_bytes=temp_free_bytes,
        shm_bytes=_size_of("/dev/shm"),
        num_open_files=_num_open_files(),
        host_address=_host_address(),
        staging_problem=_staging_problem(request.staging_dir) if request.stages_packs else None,
        gpus=_look_at_gpus() if request.wants_gpus else None,
        slow_arithmetic=_slow_arithmetic() if request.computes_in_bfloat16 else None,
    )


def source_hash() -> str:
    """12 hex digits of a SHA-256 over the files of both packages: equal if the same program is installed."""
    digest = hashlib.sha256()
    for package in (sft, launcher):
        (folder,) = package.__path__
        for path in sorted(p for ending in ("py", "j2") for p in Path(folder).rglob(f"*.{ending}")):
            content = path.read_bytes()
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def read_contents(path: Path) -> Contents:
    """The readable content of a file, or of the files in a folder (without hidden files and folders)."""
    try:
        folder = path.is_dir()
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")) if folder else [path]
        return Contents({file.name: _identity(file) for file in files})
    except FileNotFoundError:
        return Contents({}, "is not there")
    except OSError as error:
        return Contents({}, f"cannot be read: {error.strerror}")


def shown_variables(environment: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """The variables that should be the same on all nodes."""
    return {
        name: "(not shown)" if _SECRET.search(name) else value
        for name, value in sorted(environment.items())
        if _VARIABLES.fullmatch(name) and name not in _OF_THE_WORKER
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            found[package] = "not installed"
            continue
        # The part after the + names the build; a driver without GPUs may have another build.
        found[package] = installed.version.partition("+")[0] + _shadow(package, installed)
    return found


def _shadow(package: str, installed: Distribution) -> str:
    """Whether an import would find another package of that name, such as one in a folder of PYTHONPATH; in words."""
    own, spec = Path(str(installed.locate_file(f"{package}/__init__.py"))), importlib.util.find_spec(package)
    # A package that is installed as a link to its source has no files beside its record.
    if spec is None or spec.origin is None or not own.is_file() or own.samefile(spec.origin):
        return ""
    return f", shadowed by {Path(spec.origin).parent}"


def _identity(file: Path) -> str:
    num_bytes = file.stat().st_size
    with file.open("rb") as opened:
        if num_bytes <= _HASHED_BYTES:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        opened.read(1)  # it can be read
    return f"{num_bytes} bytes"


def _temp_folder() -> tuple[str, int]:
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return "none that can be written", 0
    return folder, shutil.disk_usage(folder).free


def _num_open_files() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _staging_problem(staging_dir: str | None) -> str | None:
    try:
        folder = staging_root(staging_dir)
        disk = shutil.disk_usage(folder)
    except OSError as error:
        return str(error.strerror or error)
    if disk.free < LEAST_FREE_SHARE * disk.total:
        return f"{folder} has {decimal(disk.free)} left, less than {LEAST_FREE_SHARE:.0%} of its disk"
    return None


def _size_of(folder: str) -> int:
    return shutil.disk_usage(folder).total if os.path.isdir(folder) else 0


def _host_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "nothing"


def _look_at_gpus() -> GpuFacts:
    try:
        gpus, problem = query_gpus(), None
    except GpuQueryError as error:
        gpus, problem = (), str(error)
    # Ray hides the GPUs from a process that holds none. This one may see them: it puts nothing on them.
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    import torch  # noqa: PLC0415  (seconds, and it reads the variable)

    return GpuFacts(gpus, problem, torch.version.cuda, torch.cuda.is_available())


def _slow_arithmetic() -> str | None:
    from sft.model.cpu_arithmetic import SLOW, computes_bfloat16  # noqa: PLC0415  (torch: seconds, for few jobs)

    return None if computes_bfloat16() else SLOW
