"""`python -m sft.quickstart OUT_DIR` makes OUT_DIR/model and OUT_DIR/data/stdlib.jsonl and shows their size.

Running it again keeps a finished model and writes the same records.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sft.errors import UserError
from sft.printable import fit_message
from sft.quickstart.gguf_model import publish_model
from sft.quickstart.stdlib_tasks import Record, build_records, write_records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, or 2 for an error that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m sft.quickstart", description=__doc__.split("\n")[0])
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the folder to make; may exist")
    out_dir: Path = parser.parse_args(arguments).out_dir
    try:
        publish_model(out_dir / "model")
        records = build_records()
        write_records(out_dir / "data" / "stdlib.jsonl", records)
    except UserError as error:
        sys.stderr.write(f"{fit_message(str(error))}\n")
        return 2
    console = Console()
    console.print(_table(records))
    # Not wrapped, so that people can copy the path.
    console.print(f"model  {out_dir / 'model'}", soft_wrap=True, highlight=False)
    console.print(f"data   {out_dir / 'data' / 'stdlib.jsonl'}", soft_wrap=True, highlight=False)
    return 0


def _table(records: list[Record]) -> Table:
    table = Table("task")
    table.add_column("records", justify="right")
    table.add_column("mean characters", justify="right")
    by_task: dict[str, list[int]] = {}
    for record in records:
        num_chars = len(record["instruction"]) + len(record["input"]) + len(record["output"])
        by_task.setdefault(record["task"], []).append(num_chars)
    by_task = dict(sorted(by_task.items(), key=lambda item: (-len(item[1]), item[0])))
    by_task["all"] = [num_chars for lengths in by_task.values() for num_chars in lengths]
    for task, lengths in by_task.items():
        table.add_row(task, f"{len(lengths):,}", f"{sum(lengths) / len(lengths):.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
