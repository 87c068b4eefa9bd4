"""Every kind of file gives the same records, wherever it is cut, and what cannot be read is named with its place."""

import csv
import gzip
import json
import lzma
import math
import pickle
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import SourceConfig
from sft.data.reading import blocks
from sft.data.reading.sources import content_hash, decode_block, read_blocks, read_records
from sft.errors import UserError
from sft.schema import Record, RecordLocation, Rejected

TEXT_ROWS = [
    {"question": "What is 6 × 7?", "context": "", "answer": "42", "kind": "1"},
    {"question": "Which country has the code?", "context": "NA", "answer": "None", "kind": "2"},
    {"question": "Two\nlines, a comma and \"quotes\"", "context": "数学 🙂", "answer": "007", "kind": "1"},
    {"question": "NaN", "context": " true ", "answer": "1e3", "kind": "null"},
]  # fmt: skip
NESTED_ROWS = [
    {"chat": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "42"}], "n": 1},
    {"chat": [{"role": "user", "content": "é\n"}, {"role": "assistant", "content": " a "}], "n": None},
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_list(path, rows):
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)


def write_arrow(path, rows, new):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_arrow_stream(path, rows):
    write_arrow(path, rows, pa.ipc.new_stream)


def write_arrow_file(path, rows):
    write_arrow(path, rows, pa.ipc.new_file)


def zstd(content):
    with pa.BufferOutputStream() as sink:
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".zst": zstd, ".xz": lzma.compress}


def zipped(write):
    def write_zipped(path, rows):
        write(path, rows)
        path.write_bytes(COMPRESS[path.suffix](path.read_bytes()))

    return write_zipped


WRITERS = {
    "list.json": write_list,
    "lines.json": write_lines,
    "lines.jsonl": write_lines,
    "lines.ndjson": write_lines,
    "table.csv": write_csv,
    "table.parquet": write_parquet,
    "stream.arrow": write_arrow_stream,
    "file.arrow": write_arrow_file,
    "lines.jsonl.gz": zipped(write_lines),
    "lines.jsonl.zst": zipped(write_lines),
    "lines.jsonl.xz": zipped(write_lines),
    "list.json.zst": zipped(write_list),
    "table.csv.gz": zipped(write_csv),
    "table.parquet.gz": zipped(write_parquet),
}
# A cell of a CSV file holds no list.
CASES = [
    (name, rows) for name in WRITERS for rows in (TEXT_ROWS, NESTED_ROWS) if rows is TEXT_ROWS or ".csv" not in name
]


def source_of(path, **settings):
    return SourceConfig(name="here", path=str(path), **settings)


def read(path):
    return list(read_records(source_of(path)))


@pytest.fixture
def block_bytes(monkeypatch):
    """Set how large a block is."""
    return lambda num_bytes: monkeypatch.setattr(blocks, "BLOCK_BYTES", num_bytes)


@pytest.mark.parametrize(("name", "rows"), CASES)
def test_every_kind_of_file_gives_the_same_records(tmp_path, name, rows):
    WRITERS[name](tmp_path / name, rows)
    records = read(tmp_path / name)
    assert [record.fields for record in records] == rows
    assert [record.index for record in records] == list(range(len(rows)))
    assert {(record.source, record.where.file) for record in records} == {("here", str(tmp_path / name))}
    lines = [2, 3, 4, 6] if "csv" in name else list(range(1, len(rows) + 1))  # the third row of the CSV file has two
    assert [record.where.number for record in records] == lines
    assert {record.where.is_line for record in records} == {"lines" in name or "csv" in name}


CELLS = st.dictionaries(st.sampled_from(["a", "b", "Ä"]), st.text(max_size=9), min_size=3, max_size=3)


OF_A_FORMAT = settings(max_examples=settings.default.max_examples // 2)
"""There are many of them, and each example is a file."""


@pytest.mark.parametrize("name", [name for name in WRITERS if name.count(".") == 1])
@OF_A_FORMAT
@given(rows=st.lists(CELLS, min_size=1, max_size=40), num_bytes=st.integers(1, 600))
def test_wherever_a_file_is_cut_its_records_places_and_indices_are_the_same(tmp_path_factory, name, rows, num_bytes):
    path = tmp_path_factory.mktemp("cut") / name
    rows = [{key: row[key].replace("\r", "\n") or "x" for key in ("a", "b", "Ä")} for row in rows]
    WRITERS[name](path, rows)
    whole = read(path)
    assert [record.fields for record in whole] == rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", num_bytes)
        cut = list(read_blocks(source_of(path)))
        assert [block.content for block in read_blocks(source_of(path))] == [block.content for block in cut]
    # Blocks are decoded in other processes.
    assert [record for block in pickle.loads(pickle.dumps(cut)) for record in decode_block(block)] == whole
    assert [block.number for block in cut] == list(range(len(cut)))
    for block in cut:
        first = next(decode_block(block))
        assert (block.first_index, block.where) == (first.index, first.where)
    shares = [block.done for block in cut]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1


@pytest.mark.parametrize("name", [name for name in WRITERS if name.count(".") == 1])
@OF_A_FORMAT
@given(num_rows=st.integers(1, 30), most=st.integers(1, 40), num_bytes=st.integers(1, 600))
def test_the_first_records_are_those_of_the_whole(tmp_path_factory, name, num_rows, most, num_bytes):
    path = tmp_path_factory.mktemp("first") / name
    WRITERS[name](path, [{"a": f"row {i}", "b": "x" * i, "Ä": "y"} for i in range(num_rows)])
    whole, first = read(path), source_of(path).model_copy(update={"max_records": most})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", num_bytes)
        cut = list(read_blocks(first))
    assert [record for block in cut for record in decode_block(block)] == whole[:most]
    assert cut[-1].done == 1
    assert content_hash(first) == content_hash(source_of(path))


@given(
    lines=st.lists(st.sampled_from([b'{"a": 1}', b"", b" ", b"{", b'{"b": "\xff"}', b'{"c": "' + b"x" * 90 + b'"}'])),
    end=st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    num_bytes=st.integers(1, 60),
)
def test_blocks_of_lines_are_the_file(tmp_path_factory, lines, end, line_end, num_bytes):
    """And every line that is not blank is a record or rejected, at its own number."""
    path = tmp_path_factory.mktemp("lines") / "some.jsonl"
    content = line_end.join([b"{}", *lines]) + end
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", num_bytes)
        patch.setattr(blocks, "MAX_RECORD_BYTES", 60)
        cut = list(read_blocks(source_of(path)))
    numbered = enumerate(content.split(b"\n"), start=1)
    expected = {number: line for number, line in numbered if line.strip()}
    rows = [row for block in cut for row in decode_block(block)]
    assert [row.where for row in rows] == [RecordLocation(str(path), number) for number in expected]
    assert [row.index + 1 for row in rows] == list(expected)
    too_long = [number for number, line in expected.items() if len(line) > 60]
    assert [row.where.number for row in rows if "at most 60 are read" in getattr(row, "reason", "")] == too_long
    # What is left out between the blocks is blank.
    if not too_long:
        kept = b"".join(block.content for block in cut)
        assert [line for line in kept.split(b"\n") if line.strip()] == list(expected.values())
        assert all(block.content in content for block in cut)


def test_a_line_that_cannot_be_read_is_rejected_in_its_place(tmp_path):
    path = tmp_path / "mixed.jsonl"
    lines = [
        b'{"a": 1}',
        b'{"a": 1,}',
        b"",
        b'{"a": "\xff"}',
        b"[1, 2]",
        b'"text"',
        b"9" * 5000,
        b"[" * 200_000,
        b'\xef\xbb\xbf{"a": 2}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": 3}',
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read(path)
    assert [type(row) for row in rows] == [Record] + [Rejected] * 6 + [Record, Rejected, Record]
    assert [str(row.where) for row in rows] == [f"{path}:{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)]
    assert [row.index for row in rows] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    reasons = [row.reason for row in rows if isinstance(row, Rejected)]
    assert reasons[0].startswith("broken JSON: ")
    assert reasons[0].endswith(" at column 9")
    assert reasons[1] == "invalid UTF-8 at byte 7 of the line"
    assert reasons[2] == "the record is a list, not an object with fields"
    assert reasons[3] == "the record is text, not an object with fields"
    assert all(reason.startswith("broken JSON: ") for reason in reasons[4:6])
    assert reasons[6] == "invalid UTF-8 at byte 7 of the line"


@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz", "long.json"])
def test_a_line_of_50_mb_is_rejected_and_never_held(tmp_path, name, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_RECORD_BYTES", 16 << 20)
    path, length = tmp_path / name, 50 * 2**20
    with gzip.open(path, "wb", compresslevel=1) if name.endswith("gz") else path.open("wb") as file:
        file.write(b'{"a": 1}\n')
        for _ in range(50):
            file.write(b"x" * 2**20)
        file.write(b'\n{"a": 2}\n')
    tracemalloc.start()
    first, rejected, last = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (first.fields, last.fields) == ({"a": 1}, {"a": 2})
    assert (rejected.index, last.where.number) == (1, 3)
    assert rejected.reason == f"the line has {length:,} bytes; at most 16,777,216 are read"
    assert peak < 42 * 2**20


def test_the_longest_line_that_is_read_is_read(tmp_path, monkeypatch, block_bytes):
    block_bytes(16)
    monkeypatch.setattr(blocks, "MAX_RECORD_BYTES", 50)
    path = tmp_path / "edge.jsonl"
    for line_end in (b"\n", b""):
        for num_bytes, is_read in ((49, True), (50, True), (51, False)):
            path.write_bytes(b'{"a": "' + b"x" * (num_bytes - 9) + b'"}' + line_end)
            (row,) = read(path)
            assert isinstance(row, Record) == is_read


def test_a_byte_order_mark_and_line_ends_of_windows_do_not_count(tmp_path):
    for name, text in (
        ("a.jsonl", '{"a": "1"}\r\n{"a": "2"}'),
        ("b.csv", 'a\r\n1\r\n"2"'),
        ("c.json", '[{"a": "1"},{"a": "2"}]'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert [record.fields for record in read(tmp_path / name)] == [{"a": "1"}, {"a": "2"}]


def test_a_json_file_that_is_one_object_is_one_record(tmp_path, block_bytes):
    """Such as a task file of Super-NaturalInstructions."""
    task = {"Definition": ["Add."], "Instances": [{"input": "1 1", "output": ["2"]}] * 3}
    path = tmp_path / "task001_add.json"
    for text, is_line in (
        (json.dumps(task, indent=4), False),
        (json.dumps(task), True),
        (f"\n{json.dumps(task)}\n", True),
    ):
        path.write_text(text)
        block_bytes(16)
        (record,) = read(path)
        assert (record.fields, record.where.is_line) == (task, is_line)
    path.write_text('{"a": 1,\n "b": \n}')
    (rejected,) = read(path)
    assert str(rejected.where) == f"{path}, record 1"
    assert rejected.reason == "broken JSON: Expecting value at line 3 column 1"
    path.write_bytes(b'{"a":\n "\xff"}')
    assert read(path)[0].reason == "invalid UTF-8 at byte 8 of the file"


def test_a_broken_json_list_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('[\n {"a": 1},\n {"a": }\n]', encoding="utf-8")
    with pytest.raises(UserError, match=r"source here: .*broken\.json:3: broken JSON: Expecting value at column 8"):
        read(path)
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(UserError, match="invalid UTF-8 at byte 8"):
        read(path)
    path.write_bytes(b'[{"a": 1}')
    with pytest.raises(UserError, match="broken JSON"):
        read(path)


def test_rows_of_a_json_list_that_are_no_objects_are_rejected(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, null, {"a": 2}]', encoding="utf-8")
    first, rejected, last = read(path)
    assert (first.fields, last.fields) == ({"a": 1}, {"a": 2})
    place = RecordLocation(str(path), 2, is_line=False)
    assert rejected == Rejected("here", 1, place, "the record is null, not an object with fields")


def test_rows_of_csv_that_cannot_be_read_are_rejected_with_their_lines(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,2\n\n1\n"x\ny",3\n"x"y,3\n\xff,4\n5,6\n')
    rows = read(path)
    assert [(row.where.number, row.index) for row in rows] == [(2, 0), (4, 1), (5, 2), (7, 3), (8, 4), (9, 5)]
    assert [row.fields for row in rows if isinstance(row, Record)] == [
        {"a": "1", "b": "2"},
        {"a": "x\ny", "b": "3"},
        {"a": "5", "b": "6"},
    ]
    assert [row.reason for row in rows if isinstance(row, Rejected)] == [
        "the row has 1 cells; the header has 2",
        "broken CSV: ',' expected after '\"'",
        "invalid UTF-8 in column a",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'a,b\n1,2\n3,"4\n5,6\n',
            r"rows\.csv:3: broken CSV: .*a quote that is opened here is not closed.*quote: \"\"",
        ),
        (b"a,b,a\n1,2,3\n", "the header names a column twice: a"),
        ("ä,b\n1,2\n".encode("latin-1"), "the header is not UTF-8"),
        (b"a,b\n", "holds no records"),
    ],
)
def test_a_csv_file_that_cannot_be_told_apart_is_the_users_to_mend(tmp_path, content, message):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "rows.csv")


def test_rows_of_a_table_with_broken_text_are_rejected(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    pyarrow.parquet.write_table(pa.table({"n": [1, 2], "text": broken}), tmp_path / "t.parquet")
    first, rejected = read(tmp_path / "t.parquet")
    assert first.fields == {"n": 1, "text": "a"}
    assert (rejected.index, rejected.reason) == (1, "invalid UTF-8 in column text")


def test_values_that_are_no_text_come_through_as_they_are(tmp_path):
    table = pa.table({"x": pa.array([1.5, None, math.nan]), "ids": [[1, 2], [], None]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    a, b, c = (record.fields for record in read(tmp_path / "t.parquet"))
    assert (a, b) == ({"x": 1.5, "ids": [1, 2]}, {"x": None, "ids": []})
    assert math.isnan(c["x"])


@pytest.mark.parametrize("name", ["table.parquet", "file.arrow", "stream.arrow"])
def test_blocks_of_a_table_are_small_however_it_was_written(tmp_path, name, block_bytes):
    rows = [{"a": "x" * 1000, "n": n} for n in range(5000)]
    WRITERS[name](tmp_path / name, rows)
    block_bytes(100_000)
    cut = list(read_blocks(source_of(tmp_path / name)))
    sizes = [len(pickle.dumps(block)) for block in cut]
    assert max(sizes) < 120_000
    assert sorted(sizes)[1] > 60_000  # the last one may be small
    block_bytes(10**9)
    cut = list(read_blocks(source_of(tmp_path / name)))
    assert [len(list(decode_block(block))) for block in cut] == pytest.approx([4096, 904], abs=3)


def test_a_block_pickles_to_about_its_size(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"a": "x" * 1000}] * 5000)
    block = next(read_blocks(source_of(tmp_path / "a.jsonl")))
    assert blocks.BLOCK_BYTES <= len(block.content) <= len(pickle.dumps(block)) < len(block.content) + 1000


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_a_damaged_compressed_file_is_the_users_to_mend(tmp_path, kind, ending):
    plain = tmp_path / f"plain.{kind}"
    {"jsonl": write_lines, "json": write_list, "csv": write_csv, "parquet": write_parquet}[kind](
        plain, [{"a": str(n * n)} for n in range(9000)]
    )
    whole = COMPRESS[ending](plain.read_bytes())
    path = tmp_path / f"damaged.{kind}{ending}"
    for content in (whole[:-1], whole[:-20], whole[: len(whole) // 2], whole[:3], b'{"a": 1}\n' * 9):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"source here: .*damaged\.{kind}\{ending} cannot be read: "):
            read(path)


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_files_one_behind_the_other_are_read_to_the_end(tmp_path, ending):
    part = COMPRESS[ending](b'{"a": 1}\n' * 1000)
    (tmp_path / f"a.jsonl{ending}").write_bytes(part * 3)
    assert len(read(tmp_path / f"a.jsonl{ending}")) == 3000


@pytest.mark.parametrize("name", ["table.parquet", "table.arrow", "table.csv"])
def test_a_table_that_cannot_be_read_is_the_users_to_mend(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe no table\x00")
    with pytest.raises(UserError, match=r"source here: .*table\.\w+(:1)?(: the header is not UTF-8| cannot be read: )"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n \n\n" * 9])
def test_a_source_without_records_is_the_users_to_mend(tmp_path, name, content, block_bytes):
    block_bytes(3)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"source here: .*{name} holds no records"):
        read(tmp_path / name)


def test_the_files_of_a_folder_are_one_source(tmp_path, block_bytes):
    block_bytes(8)
    write_lines(tmp_path / "a.jsonl", [{"n": 0}, {"n": 1}])
    (tmp_path / "b.jsonl").write_text("\n")
    write_list(tmp_path / "c.json", [{"n": 3}, {"n": 4}])
    write_parquet(tmp_path / "d.parquet", [{"n": 5}])
    cut = list(read_blocks(source_of(tmp_path)))
    records = [record for block in cut for record in decode_block(block)]
    assert [(record.fields["n"], record.index) for record in records] == [(n, n) for n in (0, 1, 3, 4, 5)]
    assert [Path(record.where.file).name[0] for record in records] == ["a", "a", "c", "c", "d"]
    assert [record.where.number for record in records] == [1, 2, 1, 2, 1]
    sizes = [(tmp_path / name).stat().st_size for name in ("a.jsonl", "b.jsonl", "c.json", "d.parquet")]
    assert cut[1].done == pytest.approx(sizes[0] / sum(sizes))
    assert cut[-1].done == 1


def test_the_hash_is_of_the_content_and_not_of_the_place(tmp_path):
    def hash_of(*contents, names="abcdef", folder="x"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for name, content in zip(names, contents, strict=False):
            (place / f"{name}.jsonl").write_bytes(content)
        return content_hash(source_of(place))

    one, two = b'{"a": 1}\n', b'{"a": 2}\n'
    assert hash_of(one, two) == hash_of(one, two, names="pq") == hash_of(one, two, folder="y")
    others = [
        hash_of(*contents) for contents in ((one,), (two,), (two, one), (one, two, one), (one + two,), (one[:-1], two))
    ]
    assert len({hash_of(one, two), *others}) == 7
    before = hash_of(one)
    (tmp_path / "x" / "notes.txt").write_text("of no account")
    (tmp_path / "alone.jsonl").write_bytes(one)
    assert content_hash(source_of(tmp_path / "x")) == content_hash(source_of(tmp_path / "alone.jsonl")) == before
