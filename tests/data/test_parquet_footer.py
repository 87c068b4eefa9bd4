"""A Parquet footer is read as pyarrow reads it; where it is damaged, that is said, and the process goes on."""

import subprocess
import sys
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft.data.reading.parquet_footer import read_row_groups

TABLE = pa.table(
    {
        "prompt": [f"question {i}" for i in range(50)],
        "completion": ["yes"] * 50,
        "messages": [[{"role": "user", "content": "x"}]] * 50,
        "day": [date(2024, 1, 1)] * 50,
        "done": [True, False] * 25,
    }
)

# A byte or two of the footer are others, in hundreds of ways, the same ones each time.
READ_DAMAGED = """
import random, sys
from pathlib import Path
from sft.config import SourceConfig
from sft.data.reading.sources import read_records
from sft.errors import UserError

file = Path(sys.argv[1])
whole = file.read_bytes()
start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
rng = random.Random(0)
num_refused = 0
for _ in range(400):
    damaged = bytearray(whole)
    for _ in range(rng.choice([1, 2])):
        damaged[rng.randrange(start, len(whole) - 8)] = rng.choice([rng.randrange(256), 0, 0x7F, 0x80, 0xFF])
    file.write_bytes(damaged)
    try:
        list(read_records(SourceConfig(name="here", path=str(file))))
    except UserError:
        num_refused += 1
print(num_refused)
"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 7, "compression": "zstd"},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    ],
)
def test_what_is_said_of_columns_is_what_pyarrow_says(tmp_path, options):
    table = TABLE.select(["prompt", "completion"]) if "column_encoding" in options else TABLE
    pq.write_table(table, tmp_path / "a.parquet", **options)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    groups = read_row_groups(tmp_path / "a.parquet")
    assert len(groups) == metadata.num_row_groups
    for i, group in enumerate(groups):
        known = [metadata.row_group(i).column(j) for j in range(metadata.num_columns)]
        assert [tuple(chunk) for chunk in group] == [
            (
                column.path_in_schema,
                column.num_values,
                column.total_compressed_size,
                column.total_uncompressed_size,
                column.has_dictionary_page,
                "DELTA_BYTE_ARRAY" in column.encodings,
            )
            for column in known
        ]


def test_a_damaged_footer_is_an_error_in_words_and_does_not_end_the_process(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    command = [sys.executable, "-c", READ_DAMAGED, str(tmp_path / "a.parquet")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-500:]
    assert int(run.stdout) > 200


def test_a_footer_that_lacks_what_is_asked_for_is_damaged(tmp_path):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:-8] + (1).to_bytes(4, "little") + content[-4:])
    with pytest.raises(ValueError, match="its footer is damaged"):
        read_row_groups(tmp_path / "a.parquet")
