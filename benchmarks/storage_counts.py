"""What checkpoints and starts ask of the storage by the number of ranks: operations, and bytes that are read.

    python -m benchmarks.storage_counts --ranks 8 64 512 4096

The real code (`sft.checkpoint`, `sft.training.failures`), its ranks one after another, on a folder in memory and on an
object storage in memory, both watched from below (`tests.checkpoint.counting`). The model has 139,264 parameters in six
sizes whatever the number of ranks, so that nearly all bytes are what ranks say of themselves. Operations of a folder
are opens, listings, looks at a file, and changes of names; those of the object storage its requests, with those of the
temporary files. The first rank's save comes last here, and so looks for receipts once; in a run it looks again, once a
second at the most.
"""

import argparse
import tempfile
from pathlib import Path

from sft.checkpoint.open_storage import open_storage
from sft.run_folder import RunFolder
from tests.checkpoint.counting import Cost, CountedStorage, resume, save
from tests.training.test_restart_reads import fail_and_start_again

FAILED_ATTEMPTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    options = parser.parse_args()
    print("| | ranks | files | another rank: operations | first rank: operations | first rank reads, kB |")
    print("|---|---:|---:|---:|---:|---:|")
    for num_ranks in options.ranks:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            count(num_ranks, Path(folder))


def count(num_ranks: int, folder: Path) -> None:
    for name, location in (("folder", f"{folder}/c"), ("object storage", f"counted://{num_ranks}")):
        storage = open_storage(location)
        saved = save(storage, num_ranks, 1)
        num_files = (
            len(list((folder / "c" / "step-00000001").iterdir())) if name == "folder" else len(CountedStorage.store)
        )
        show(f"{name}: save", num_ranks, num_files, saved.last, saved.first)
        saved = save(storage, num_ranks, 2)
        show(f"{name}: save, and delete the one before", num_ranks, None, saved.last, saved.first)
        for text, readers in (("as many ranks", num_ranks), ("half as many", num_ranks // 2)):
            resumed = resume(storage, readers)
            show(f"{name}: resume with {text}", readers, None, resumed.last, resumed.first)
        CountedStorage.store.clear()
    run = RunFolder(folder / "run")
    learned = fail_and_start_again(run, num_ranks, FAILED_ATTEMPTS)
    num_files = len(list(run.attempt(FAILED_ATTEMPTS).path.iterdir()))
    show(f"learn from {FAILED_ATTEMPTS} attempts that failed", num_ranks, num_files, None, learned)


def show(what: str, num_ranks: int, num_files: int | None, other: Cost | None, first: Cost) -> None:
    cells = [what, f"{num_ranks:,}", "" if num_files is None else f"{num_files:,}"]
    cells += [
        "" if other is None else f"{other.operations:,}",
        f"{first.operations:,}",
        f"{first.bytes_read / 1000:,.0f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
