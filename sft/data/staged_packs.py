"""Packs on a node's own disk: copies of the packs of the node's ranks, each checked against its hash when it is read.

    STAGING_DIR/sft-staging-UID/KEY/    one folder for each plan; KEY is a hash of everything its packs depend on
        packs       pack p is at p * slot_bytes; a sparse file, with holes where packs are not staged
        digests     (num_packs,) a BLAKE2b of 8 bytes for each staged pack, 0 where none; written after the pack

A pack is stored as int64 [pack id, num_segments, num_tokens] · example ids · boundaries, then its tokens and its mask.
Everyone who stages a pack writes the same bytes to the same place. So writers need not know of each other, and a
killed one leaves at most a pack without its digest. Nothing is synced: what a power cut leaves behind fails its hash.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sft.atomic_files import DamagedError, fingerprint
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.schema import Pack

_FORMAT = 1
"""Part of every key: raised when the layout of a pack changes."""

_DIGEST_BYTES = 8

_UNUSED_SECONDS = 7 * 24 * 3600
"""A plan's folder unused for this long is removed: its run was given up, or continues elsewhere."""


def staging_root(staging_dir: str | None) -> Path:
    """This user's own folder below `staging_dir`, else below this node's temporary folder; made if it is missing.

    Raises:
        OSError: it cannot be made, others could write into it, or `staging_dir` is not an absolute path on this node.
    """
    parent = Path(os.path.expandvars(staging_dir or tempfile.gettempdir())).expanduser()
    if not parent.is_absolute() or "$" in str(parent):
        raise FileNotFoundError(f"data.staging_dir: {staging_dir} is not an absolute path on this node, but {parent}")
    root = parent / f"sft-staging-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()  # of a link itself, not its target: anyone can write to a temporary folder
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{root} is not a folder that belongs to this user alone (mode 700)")
    return root


class StagedPacks:
    """The staged packs of one plan. Any number of the node's processes may read and write them at once."""

    def __init__(self, root: Path, plan: PackPlan, store: TokenStore) -> None:
        """Open the plan's folder in `root`; made if it is missing.

        Raises:
            OSError: the disk does not allow it.
        """
        self.folder = root / plan_key(plan, store)
        self._dtype = store.tokens.dtype
        self._slot_bytes = self._num_bytes(int(np.diff(plan.starts).max()), int(plan.num_tokens.max()))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._packs = self._open("packs")
        self._digests = self._open("digests")
        os.utime(self._digests)  # a sign of use (see `remove_unused`)

    def _open(self, name: str) -> int:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _num_bytes(self, num_segments: int, num_tokens: int) -> int:
        return 8 * (3 + num_segments + num_segments + 1) + num_tokens * (self._dtype.itemsize + 1)

    def num_bytes(self, pack: Pack) -> int:
        """The size of a pack on the disk."""
        return self._num_bytes(len(pack.example_ids), len(pack.input_ids))

    def read(self, pack_id: int) -> Pack | None:
        """The pack, as the plan reads it from the store; None where it is not staged.

        Raises:
            DamagedError: it is not the pack that was written.
            OSError: the disk cannot be read.
        """
        digest = os.pread(self._digests, _DIGEST_BYTES, pack_id * _DIGEST_BYTES)
        if digest in (b"", bytes(_DIGEST_BYTES)):
            return None
        slot = np.empty(self._slot_bytes, np.uint8)
        slot = slot[: os.preadv(self._packs, [slot.data], pack_id * self._slot_bytes)]
        pack = self._parse(slot, digest)
        if pack is None or pack.pack_id != pack_id:
            raise DamagedError(self.folder / "packs", f"pack {pack_id} is not what was staged (its hash differs)")
        return pack

    def write(self, pack: Pack) -> None:
        """Stage a pack; it may be there already.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        header = np.array([pack.pack_id, len(pack.example_ids), len(pack.input_ids)])
        content = np.concatenate([header, pack.example_ids, pack.cu_seqlens]).astype(np.int64).tobytes()
        content += pack.input_ids.astype(self._dtype).tobytes() + pack.loss_mask.tobytes()
        _write_whole(self._packs, content, pack.pack_id * self._slot_bytes)
        _write_whole(self._digests, _hash(content), pack.pack_id * _DIGEST_BYTES)

    def free_share(self) -> float:
        """The share of the disk that is free."""
        disk = os.fstatvfs(self._packs)
        return disk.f_bavail / disk.f_blocks

    def _parse(self, slot: npt.NDArray[np.uint8], digest: bytes) -> Pack | None:
        if len(slot) < 24:
            return None
        pack_id, num_segments, num_tokens = slot[:24].view(np.int64).tolist()
        if num_segments < 0 or num_tokens < 0 or (end := self._num_bytes(num_segments, num_tokens)) > len(slot):
            return None
        if _hash(slot[:end].data) != digest:
            return None
        numbers = slot[24 : 24 + 8 * (2 * num_segments + 1)].view(np.int64)
        tokens, mask = slot[24 + numbers.nbytes : end - num_tokens], slot[end - num_tokens : end]
        return Pack(
            pack_id, numbers[:num_segments], tokens.view(self._dtype), mask.view(np.bool_), numbers[num_segments:]
        )


def plan_key(plan: PackPlan, store: TokenStore) -> str:
    """The name of a plan's folder: different plans have different names, and runs of the same plan share one."""
    return fingerprint({"format": _FORMAT, "store": store.path.name, "plan": plan.manifest})


def remove_staged(folder: Path) -> None:
    """Delete the staged packs of a plan. Processes that read them keep their open files, or read from the store."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_unused(root: Path) -> None:
    """Delete the staged packs of plans that nobody has used for a week."""
    for folder in root.iterdir():
        with suppress(OSError):  # another process may remove it too
            if time.time() - (folder / "digests").stat().st_mtime > _UNUSED_SECONDS:
                remove_staged(folder)


def _hash(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _write_whole(descriptor: int, content: bytes, offset: int) -> None:
    # A disk that is almost full writes a part first.
    if os.pwrite(descriptor, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
