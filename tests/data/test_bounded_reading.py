"""However large a file is unpacked, reading it takes little memory: what is too large for it is refused in words."""

import gzip
import json
import subprocess
import sys
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import SourceConfig
from sft.data.reading import blocks
from sft.data.reading.arrow_messages import bodies
from sft.data.reading.row_sizes import row_sizes
from sft.data.reading.sources import decode_block, read_blocks, read_records
from sft.errors import UserError
from sft.schema import Rejected

MIB = 1 << 20

READ = """
import resource, sys
from sft.config import SourceConfig
from sft.data.reading.sources import read_records
from sft.errors import UserError
from sft.schema import Rejected

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for path in sys.argv[1:]:
    before, reasons, num = peak(), [], 0
    try:
        for record in read_records(SourceConfig(name="here", path=path)):
            num += 1
            reasons += [record.reason] if isinstance(record, Rejected) else []
    except UserError as error:
        reasons.append(str(error))
    print(peak() - before, num, *reasons[:2], sep="|", flush=True)
"""


def write_bomb(path, num_bytes, before, behind=b""):
    """A gzip file of so many letters `x` between two texts, in no time: what 16 MiB become is repeated."""

    def packed(text, mode):
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(text) + packer.flush(mode)

    middle = packed(b"x" * 16 * MIB, zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(before)
    for _ in range(num_bytes // (16 * MIB) if behind else 0):
        crc = zlib.crc32(b"x" * 16 * MIB, crc)
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + packed(before, zlib.Z_FULL_FLUSH))
        for _ in range(num_bytes // (16 * MIB)):
            file.write(middle)
        size = len(before) + num_bytes + len(behind)
        file.write(packed(behind, zlib.Z_FINISH))
        file.write(zlib.crc32(behind, crc).to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"))


def repeated(text, num_rows):
    """A column that holds one text, and says so often that it is there."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array([text]))


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """File → what is said of it: the number of records, and words of the first reason."""
    folder = tmp_path_factory.mktemp("bombs")
    much = 512 * MIB  # twice what reading may take
    write_bomb(folder / "cell.csv.gz", much, b'a,b\n1,"')
    write_bomb(folder / "plain cell.tsv.gz", much, b"a\tb\n1\t")
    write_bomb(folder / "header.csv.gz", much, b"a,")
    write_bomb(folder / "list.json.gz", much, b'[{"a": "b"}, {"a": "')
    write_bomb(folder / "list.jsonl.gz", much, b'[{"a": "')
    write_bomb(folder / "object.json.gz", much, b'{"a":\n"')
    write_bomb(folder / "line.jsonl.gz", 160 * MIB, b'{"a": 1}\n', b'\n{"a": 2}\n')
    with gzip.open(folder / "long.json.gz", "wb", compresslevel=1) as file:
        row = json.dumps({"a": "x" * 4000}).encode()
        file.write(b"[" + b",".join([row] * 1000))
        for _ in range(3):
            file.write(b"," + b",".join([row] * 1000))
        file.write(b"]")
    texts = pa.table({"a": repeated("x" * MIB, 300)})
    pq.write_table(texts, folder / "texts.parquet", compression="zstd")
    turns = pa.StructArray.from_arrays([repeated("x" * MIB, 300)], names=["content"])
    turns = pa.ListArray.from_arrays(list(range(0, 301, 2)), turns)
    pq.write_table(pa.table({"a": turns}), folder / "turns.parquet", compression="zstd")
    pq.write_table(pa.table({"a": repeated("x" * 40 * MIB, 3)}), folder / "row.parquet", compression="zstd")
    with pa.OSFile(str(folder / "texts.arrow"), "wb") as file, pa.ipc.new_file(file, texts.schema) as writer:
        writer.write_table(texts)
    return {
        folder / name: said
        for name, said in {
            "cell.csv.gz": (0, ":2: the row that begins here has more than 33,554,432 characters"),
            "plain cell.tsv.gz": (0, ":2: the row that begins here has more than 33,554,432 characters"),
            "header.csv.gz": (0, ":1: the row that begins here has more than 33,554,432 characters"),
            "list.json.gz": (0, ":1: the record has more bytes than can be held: at most 33,554,432 are read"),
            "list.jsonl.gz": (0, ":1: the record has more bytes than can be held: at most 33,554,432 are read"),
            "object.json.gz": (1, "the record has more bytes than can be held: at most 33,554,432 are read"),
            "line.jsonl.gz": (3, "the line has 167,772,160 bytes; at most 33,554,432 are read"),
            "long.json.gz": (4_000, ""),
            "texts.parquet": (300, ""),
            "turns.parquet": (150, ""),
            "row.parquet": (3, "the row has about 41,943,041 bytes; at most 33,554,432 are read"),
            "texts.arrow": (300, ""),
        }.items()
    }


def test_small_files_that_are_very_large_unpacked_are_read_in_little_memory_or_refused(bombs):
    assert max(path.stat().st_size for path in bombs) < 8 * MIB
    command = [sys.executable, "-c", READ, *map(str, bombs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    for line, (path, (num_records, said)) in zip(done.stdout.splitlines(), bombs.items(), strict=True):
        grown, num, *reasons = line.split("|")
        assert (path.name, int(num)) == (path.name, num_records)
        assert said in (reasons or [""])[0]
        assert bool(reasons) == bool(said), path
        assert int(grown) < 250, path


def read(path):
    return list(read_records(SourceConfig(name="here", path=str(path))))


def test_what_a_batch_of_an_arrow_file_becomes_is_known_before(tmp_path, monkeypatch):
    table = pa.table({"a": ["x" * 100_000, None], "b": [1, 2], "c": repeated("y" * 5000, 2)})
    for compression in ("zstd", "lz4", None):
        for new in (pa.ipc.new_file, pa.ipc.new_stream):
            path = tmp_path / "a.arrow"
            options = pa.ipc.IpcWriteOptions(compression=compression)
            with pa.OSFile(str(path), "wb") as file, new(file, table.schema, options=options) as writer:
                writer.write_table(table)
            with pa.memory_map(str(path)) as mapped:
                found = list(bodies(mapped))
            assert len(found) == (2 if compression else 0)  # the dictionary and the rows
            assert sum(body.num_unpacked for body in found) > 100_000 or not compression
            assert all(body.num_stored < 5000 for body in found)
            assert [record.fields for record in read(path)] == table.to_pylist()
            with monkeypatch.context() as patch:
                patch.setattr(blocks, "MAX_UNPACKED_BYTES", 50_000)
                patch.setattr(blocks, "MAX_RATIO", 10)
                if compression:
                    with pytest.raises(UserError, match="bytes of a batch of rows unpack to 100,0.. bytes"):
                        read(path)
                else:
                    assert len(read(path)) == 2


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string()), pa.struct([("t", pa.list_(pa.string()))])])
def test_an_arrow_file_whose_places_lie_outside_of_it_is_damaged_and_broken_text_is_not(tmp_path, kind):
    value = {pa.string(): "abc", pa.list_(pa.string()): ["abc"]}.get(kind, {"t": ["abc"]})
    table = pa.table({"a": pa.array([value] * 9, kind)})
    with pa.OSFile(str(tmp_path / "whole.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    whole = (tmp_path / "whole.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole.replace(b"abcabcabc", b"abcab\xffabc", 1))
    rows = read(tmp_path / "a.arrow")
    assert len(rows) == 9
    assert sum(isinstance(row, Rejected) for row in rows) == 1
    places = b"".join(n.to_bytes(4, "little") for n in (0, 3, 6))
    assert places in whole
    for start in (0, 1 << 30):
        outside = b"".join(n.to_bytes(4, "little") for n in (start, 1 << 30, 6))
        (tmp_path / "a.arrow").write_bytes(whole.replace(places, outside).replace(b"abcabcabc", b"abcab\xffabc", 1))
        with pytest.raises(UserError, match=r"a\.arrow cannot be read: "):
            read(tmp_path / "a.arrow")


def test_a_compressed_table_is_not_unpacked_to_a_whole_disk(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": ["x" * MIB]}), tmp_path / "t", compression=None, use_dictionary=False)
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress((tmp_path / "t").read_bytes()))
    assert len(read(tmp_path / "t.parquet.gz")) == 1
    monkeypatch.setattr(blocks, "MAX_UNPACKED_BYTES", MIB // 2)
    with pytest.raises(UserError, match=r"t\.parquet\.gz unpacks to more than [\d,]+ bytes, more than any table"):
        read(tmp_path / "t.parquet.gz")


def test_a_column_of_lists_that_a_few_bytes_stand_for_is_refused(tmp_path, monkeypatch):
    """One of its rows may have all of the values, and is not read in parts."""
    lists = pa.ListArray.from_arrays([0, 1, MIB], pa.array(bytes(MIB), pa.uint8()).cast(pa.int64()))
    pq.write_table(pa.table({"a": lists}), tmp_path / "t.parquet", compression="zstd")
    assert len(read(tmp_path / "t.parquet")) == 2
    monkeypatch.setattr(blocks, "MAX_UNPACKED_BYTES", MIB)
    with pytest.raises(UserError, match=r"column a\.list\.element in row group 1 unpack to 8,388,608 bytes"):
        read(tmp_path / "t.parquet")
    ids = pa.ListArray.from_arrays([0, 1, MIB], pa.array(range(MIB), pa.int64()))
    pq.write_table(pa.table({"a": ids}), tmp_path / "t.parquet", compression="zstd")
    assert len(read(tmp_path / "t.parquet")) == 2


def test_values_that_repeat_the_one_before_are_read_a_few_at_a_time(tmp_path):
    rows = [{"a": "x" * 10_000 + str(n)} for n in range(300)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert [record.fields for record in read(tmp_path / "t.parquet")] == rows


# ---------------------------------------------------------------- the size of a row

TEXTS = st.text("aé", max_size=5)
VALUES = {
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.string_view(): TEXTS | st.text("a", min_size=13, max_size=40),
    pa.binary(): st.binary(max_size=5),
    pa.int64(): st.integers(0, 9),
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
}


def kinds():
    flat = st.sampled_from(list(VALUES))
    return st.recursive(
        flat,
        lambda inner: st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            inner.map(pa.list_view),
            inner.map(lambda kind: pa.list_(kind, 2)),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
            ),
            inner.map(lambda kind: pa.map_(pa.string(), kind)),
        ),
        max_leaves=4,
    )


def values_of(kind):
    if kind in VALUES:
        return VALUES[kind] | st.none()
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    if pa.types.is_map(kind):
        return st.lists(st.tuples(TEXTS, values_of(kind.item_type)), max_size=3)
    if pa.types.is_fixed_size_list(kind):
        return st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    return st.lists(values_of(kind.value_type), max_size=3) | st.none()


def slow_size(kind, value):
    """The same by looking at the value: a byte for each value, and its own bytes."""
    if pa.types.is_struct(kind):
        return 1 + sum(slow_size(field.type, (value or {}).get(field.name)) for field in kind)
    if pa.types.is_map(kind):
        return 1 + sum(slow_size(pa.string(), k) + slow_size(kind.item_type, v) for k, v in value or ())
    if pa.types.is_nested(kind):
        return 1 + sum(slow_size(kind.value_type, inner) for inner in value or ())
    if pa.types.is_null(kind):
        return 1
    if pa.types.is_primitive(kind):
        return 1 + kind.bit_width // 8
    return 1 + len(value.encode() if isinstance(value, str) else value or b"")


@given(st.data())
def test_the_size_of_a_row_is_that_of_its_values_wherever_it_is_cut(data):
    kind = data.draw(kinds())
    rows = data.draw(st.lists(values_of(kind), min_size=1, max_size=6))
    batch = pa.RecordBatch.from_arrays([pa.array(rows, kind)], ["a"])
    expected = [slow_size(kind, value) for value in rows]
    assert row_sizes(batch).tolist() == expected
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    assert row_sizes(batch.slice(start, end - start)).tolist() == expected[start:end]


@given(st.lists(st.none() | TEXTS, min_size=1, max_size=9))
def test_what_is_held_once_counts_in_each_row(texts):
    expected = [slow_size(pa.string(), text) for text in texts]
    plain = pa.array(texts, pa.string())
    for array in (plain.dictionary_encode(), pa.compute.run_end_encode(plain)):
        for start in range(len(texts)):
            batch = pa.RecordBatch.from_arrays([array.slice(start)], ["a"])
            assert row_sizes(batch).tolist() == expected[start:]


def test_dictionaries_inside_lists_are_unpacked_block_by_block(tmp_path, monkeypatch):
    rows = [{"m": [{"role": "user", "content": f"{n % 3}" * 50}], "t": "abc"[n % 3]} for n in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    cut = list(read_blocks(SourceConfig(name="here", path=str(tmp_path / "t.parquet"))))
    assert len(cut) > 20
    assert [record.fields for block in cut for record in decode_block(block)] == rows
