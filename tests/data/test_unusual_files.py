"""A file that is not what its name says is read where that is certain; where not, the reason is in the message."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import DataConfig, SourceConfig
from sft.config_sources import CsvConfig
from sft.data.formats.text_fields import read_text
from sft.data.reading import blocks
from sft.data.reading.sources import content_hash, read_blocks, read_records
from sft.data.store_recipe import resolve_sources
from sft.errors import RecordError, UserError
from sft.schema import Record

ROWS = [{"prompt": f"{n}?", "completion": "é"} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def zstd(content):
    with pa.BufferOutputStream() as sink:
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def source_of(path, **settings):
    return SourceConfig(name="here", path=str(path), **settings)


def read(path, **settings):
    return list(read_records(source_of(path, **settings)))


def fields(path, **settings):
    return [record.fields for record in read(path, **settings) if isinstance(record, Record)]


def reasons(path, **settings):
    return [record.reason for record in read(path, **settings) if not isinstance(record, Record)]


def refusal(path, **settings):
    with pytest.raises(UserError) as error:
        read(path, **settings)
    return str(error.value)


# ---------------------------------------------------------------- JSON in any form


FORMS = {
    "lines": LINES,
    "list": json.dumps(ROWS, indent=2),
    "list on one line": json.dumps(ROWS),
    "list, an item a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "list that begins with its first item": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "objects over several lines": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "objects end to end": "".join(json.dumps(row, indent=1) for row in ROWS),
    "objects over two lines": "\n".join(json.dumps(row).replace(", ", ",\n") for row in ROWS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.jsonl.gz"])
@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_json_is_read_in_whatever_form_it_is(tmp_path, monkeypatch, form, name, block_bytes):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    for start, line_end in (("", "\n"), ("\ufeff", "\r\n"), (" \n\n", "\n")):
        content = (start + FORMS[form].replace("\n", line_end)).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert fields(tmp_path / name) == ROWS
        shares = [block.done for block in read_blocks(source_of(tmp_path / name))]
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_nested_objects_over_several_lines_are_no_lines(tmp_path):
    rows = [{"x": [{"y": 1}, {"y": 2}]}, {"x": [{"y": 3}]}]
    for text in (
        '{"x": [\n{"y": 1},\n{"y": 2}]}\n{"x": [\n{"y": 3}\n]}',
        '{"x":\n[{"y": 1},{"y": 2}]}{"x": [{"y": 3}]}',
    ):
        (tmp_path / "a.jsonl").write_text(text)
        assert fields(tmp_path / "a.jsonl") == rows


def test_a_broken_first_line_is_still_a_line(tmp_path):
    for first in ('{"prompt": "a",', "{", '{"a": 1}}', "{]", "nonsense", '{"a": "\\ud83d'):
        (tmp_path / "a.jsonl").write_text(f"{first}\n{LINES}")
        assert fields(tmp_path / "a.jsonl") == ROWS
        assert len(reasons(tmp_path / "a.jsonl")) == 1
    (tmp_path / "a.jsonl").write_text(f"[1]\n{LINES}")
    assert fields(tmp_path / "a.jsonl") == ROWS
    assert reasons(tmp_path / "a.jsonl") == ["the record is a list, not an object with fields"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1},\n {"a": 2,}]', r":2: broken JSON: .* at column 10"),
        ('[{"a": 1}\n {"a": 2}]', r":2: broken JSON: Expecting ',' delimiter at column 2"),
        ('[{"a": 1}\n][{"a": 2}]\n{', r":2: broken JSON: Extra data behind the list at column 2"),
        ('[{"a": 1},', r":1: broken JSON: Expecting value at column 11"),
        ("[", r":1: broken JSON: Expecting value"),
        ('{"a":\n1}\n{"a": }', r":3: broken JSON: Expecting value at column 7"),
        ("[" * 100_000, r":1: broken JSON: "),
        ('[{"n": ' + "9" * 5000 + "}]", r":1: broken JSON: .*digits"),
        ('[{"a": "\\x"}]', r":1: broken JSON: Invalid \\escape"),
    ],
)
def test_json_that_is_broken_is_named_with_its_place(tmp_path, monkeypatch, text, said):
    (tmp_path / "a.json").write_text(text)
    for block_bytes in (1, 1 << 20):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        with pytest.raises(UserError, match=rf"a\.json{said}"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("form", ["{}\n{}\n", "[{}, {}]", "{}{}".replace("{}", "\n{}\n")])
def test_a_key_that_stands_twice_makes_its_record_bad_and_no_other(tmp_path, form):
    good = '{"a": {"b": 1}}'
    for bad in ('{"a": 1, "a": 1}', '{"x": [{"a": {"a": 1, "b": 2, "a": 3}}]}'):
        (tmp_path / "a.json").write_text(form.replace("{}", "%s") % (bad, good))
        assert fields(tmp_path / "a.json") == [{"a": {"b": 1}}]
        assert reasons(tmp_path / "a.json") == ["the key 'a' stands twice in an object; needed: once"]


# ---------------------------------------------------------------- compression and other kinds of files


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "t.parquet", "t.arrow", "c.csv"])
def test_what_is_compressed_is_read_whatever_its_name_says(tmp_path, kind, name):
    plain = tmp_path / "plain"
    table = pa.Table.from_pylist(ROWS)
    if name.endswith("parquet"):
        pq.write_table(table, plain)
    elif name.endswith("arrow"):
        with pa.OSFile(str(plain), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        plain.write_text("prompt,completion\n0?,é\n1?,é\n2?,é\n" if name.endswith("csv") else LINES, encoding="utf-8")
    (tmp_path / name).write_bytes(COMPRESS[kind](plain.read_bytes()))
    assert fields(tmp_path / name) == ROWS


NOT_RECORDS = {
    "is a Git LFS pointer, not the file itself": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n",
    "is a web page": b"\n <!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "is a zip archive": b"PK\x03\x04\x14\x00\x00\x00",
    "is a PDF": b"%PDF-1.7\n",
}
NOT_TEXT = {
    "is UTF-16. Save it as UTF-8": LINES.encode("utf-16"),
    "is UTF-16. Save it as UTF-8 ": LINES.encode("utf-16-le"),
    "is UTF-16. Save it as UTF-8  ": LINES.encode("utf-16-be"),
    "is UTF-32. Save it as UTF-8": LINES.encode("utf-32"),
    "is Parquet. Rename it to end in .parquet": b"PAR1\x15\x04",
    "is Arrow. Rename it to end in .arrow": b"ARROW1\x00\x00",
    "begins with zero bytes": bytes(4096),
    "is compressed twice": gzip.compress(gzip.compress(b"{}")),
}


@pytest.mark.parametrize("said", [*NOT_RECORDS, *NOT_TEXT])
def test_a_file_that_holds_no_records_says_what_it_is(tmp_path, said):
    content = (NOT_RECORDS | NOT_TEXT)[said]
    names = ["a.jsonl", "a.json", "a.csv", "a.tsv"] + ["a.parquet", "a.arrow"] * (said in NOT_RECORDS)
    for name in names:
        (tmp_path / name).write_bytes(content)
        assert f"{name} cannot be read: it {said.strip()}" in refusal(tmp_path / name)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        assert f"{name}.gz cannot be read: it {said.strip()}" in refusal(tmp_path / f"{name}.gz")


def why(path, **settings):
    with pytest.raises(UserError) as error:
        resolve_sources(DataConfig(sources=(source_of(path, **settings),)))
    return str(error.value)


def test_where_no_record_can_be_read_the_reason_of_each_file_is_given(tmp_path):
    latin = LINES.encode("latin-1")
    (tmp_path / "a.jsonl").write_bytes(latin)
    (tmp_path / "b.jsonl").write_text("prompt: a\ncompletion: b\n")
    (tmp_path / "c.jsonl").write_text('"text"\n"more"\n')
    text = why(tmp_path)
    assert text.startswith("source here: no record can be read, to tell the format from:\n")
    assert f"{tmp_path}/a.jsonl:1: invalid UTF-8 at byte {latin.index(0xE9)} of the line\n" in text
    assert f"{tmp_path}/b.jsonl:1: broken JSON: Expecting value at column 1\n" in text
    assert f"{tmp_path}/c.jsonl:1: the record is text, not an object with fields\n" in text
    assert text.endswith("save a file in Latin-1 or Windows-1252 as UTF-8.")
    (tmp_path / "d.jsonl").write_text("{}\n{}\n")
    assert "all that there are have no fields" in why(tmp_path / "d.jsonl")


@pytest.mark.parametrize("nothing", [{}, {"messages": None}, {"messages": []}, {"messages": ""}, {"other": 1}])
def test_a_first_record_without_content_does_not_decide_the_format(tmp_path, nothing):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    lines = [json.dumps(nothing), "broken", json.dumps({"messages": turns})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (found,) = resolve_sources(DataConfig(sources=(source_of(tmp_path / "a.jsonl"),))).sources
    assert (found.format, found.columns) == ("sharegpt", {"conversations": "messages"})


# ---------------------------------------------------------------- CSV and TSV


CSV = [
    ("a.csv", None, 'a,b\n1,"x,\ny"\n'),
    ("a.tsv", None, 'a\tb\n1\t"x,\ny"\n'),
    ("a.tsv.gz", None, 'a\tb\n1\t"x,\ny"\n'),
    ("a.csv", {"delimiter": ";"}, 'a;b\n1;"x,\ny"\n'),
    ("a.csv", {"delimiter": "\\t"}, 'a\tb\n1\t"x,\ny"\n'),
    ("a.tsv", {"delimiter": "|", "quote": "'"}, "a|b\n1|'x,\ny'\n"),
]


@pytest.mark.parametrize(("name", "rules", "text"), CSV)
def test_cells_are_told_apart_as_the_name_or_the_config_says(tmp_path, name, rules, text):
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert fields(tmp_path / name, csv=rules and CsvConfig(**rules)) == [{"a": "1", "b": "x,\ny"}]


def test_where_nothing_is_quoted_a_quote_is_a_character(tmp_path):
    (tmp_path / "a.tsv").write_text('a\tb\n5" screen\t"so"\n')
    assert fields(tmp_path / "a.tsv", csv=CsvConfig(quote="")) == [{"a": '5" screen', "b": '"so"'}]


def test_a_header_of_one_column_shows_which_delimiter_to_write(tmp_path):
    for mark, written in ((";", ";"), ("\t", "\\t"), ("|", "|")):
        (tmp_path / "a.csv").write_text(f"prompt{mark}completion\na{mark}b\n")
        assert f'csv: {{delimiter: "{written}"}}' in refusal(tmp_path / "a.csv")
        assert fields(tmp_path / "a.csv", csv=CsvConfig(delimiter=written)) == [{"prompt": "a", "completion": "b"}]
    (tmp_path / "a.csv").write_text('messages\n"[1]"\n')
    assert fields(tmp_path / "a.csv") == [{"messages": "[1]"}]


def test_rules_of_csv_are_not_given_in_vain(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    for call in (content_hash, lambda source: list(read_blocks(source))):
        with pytest.raises(UserError, match=r"csv: is given, but .*a\.jsonl is not a CSV file. Remove it"):
            call(source_of(tmp_path / "a.jsonl", csv=CsvConfig(delimiter=";")))
    (tmp_path / "b.csv").write_text("prompt;completion\n3?;é\n", encoding="utf-8")
    assert len(fields(tmp_path, csv=CsvConfig(delimiter=";"))) == 4


# ---------------------------------------------------------------- anything at all


PIECES = st.sampled_from(
    [b'{"a": 1}', b'{"a": "x\\n"}', b"[", b"]", b"{", b"}", b",", b";", b"\t", b'"', b"'", b"a,b", b'{"a": ', b" "]
    + [b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud83d"]
    + [b"NaN", b"1e999", b"-", b"9" * 5000, b"[" * 3000]
    + [b"\x1f\x8b", b"BZh9", b"PK\x03\x04", b"<html>", gzip.compress(b'{"a": 1}\n')]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PIECES, max_size=12).map(b"".join),
    st.sampled_from(["a.json", "a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.parquet", "a.arrow"]),
    st.integers(1, 40),
)
def test_any_bytes_are_records_or_an_error_in_words(tmp_path_factory, content, name, num_bytes):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", num_bytes)
        patch.setattr(blocks, "MAX_RECORD_BYTES", 200)
        try:
            rows = read(path)
        except UserError:
            return
    assert [row.index for row in rows] == sorted({row.index for row in rows})
    assert all(row.reason for row in rows if not isinstance(row, Record))


# ---------------------------------------------------------------- tables


def test_of_a_value_that_python_has_no_form_for_the_other_columns_are_read(tmp_path):
    far = pa.array([0, 10**15, None], pa.timestamp("s"))
    fine = pa.array([[1], [], [1000]], pa.list_(pa.timestamp("ns")))
    pq.write_table(pa.table({"far": far, "prompt": ["a", "b", "c"], "fine": fine}), tmp_path / "t.parquet")
    first, second, third = fields(tmp_path / "t.parquet")
    assert [row["prompt"] for row in (first, second, third)] == ["a", "b", "c"]
    assert first["far"].year == 1970
    assert third["far"] is None
    assert isinstance(second["far"], blocks.Unreadable)
    assert second["fine"] == []
    with pytest.raises(RecordError, match="the field 'far' holds a value that cannot be read"):
        read_text(second, "far")


def test_columns_of_one_name_are_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "t.parquet")
    nested = pa.table({"n": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["y", "y"])})
    for table, name, said in (
        (twice, "t.arrow", "it has two fields x"),
        (nested, "n.arrow", "the column n has two fields y"),
    ):
        with pa.OSFile(str(tmp_path / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        assert said in refusal(tmp_path / name)
    assert "it has two fields x" in refusal(tmp_path / "t.parquet")
