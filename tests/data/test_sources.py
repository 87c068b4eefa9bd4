"""Every kind of file gives the same records, and what cannot be read is named with its place."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from sft.config import SourceConfig
from sft.data.formatting import format_record
from sft.data.sources import content_hash, read_records
from sft.errors import UserError
from sft.schema import Record, Rejected

ROWS = {
    "instruction": [
        {"question": "What is 6 × 7?", "context": "", "answer": "42", "kind": "1"},
        {"question": "Which country has the code?", "context": "NA", "answer": "None", "kind": "2"},
        {"question": "Two\nlines, a comma and \"quotes\"", "context": "数学 🙂", "answer": "007", "kind": "1"},
        {"question": "Is it?", "context": " true ", "answer": "true", "kind": "3"},
    ],
    "prompt_completion": [
        {"text": "1 2 3", "next": "4"},
        {"text": "été", "next": "null"},
        {"text": "NaN", "next": "1e3"},
    ],
    "messages": [
        {"chat": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "42"}]},
        {"chat": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "é\n"},
                  {"role": "assistant", "content": " a "}, {"role": "user", "content": "b"},
                  {"role": "assistant", "content": "c"}]},
    ],
}  # fmt: skip
COLUMNS = {
    "instruction": {"instruction": "question", "input": "context", "output": "answer"},
    "prompt_completion": {"prompt": "text", "completion": "next"},
    "messages": {"messages": "chat"},
}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_list(path, rows):
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def write_zipped_lines(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\r\n" for row in rows).encode()))


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_zipped_csv(path, rows):
    plain = path.with_name("plain.csv")
    write_csv(plain, rows)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def write_arrow_stream(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_arrow_file(path, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "list.json": write_list,
    "lines.json": write_lines,
    "lines.jsonl": write_lines,
    "lines.jsonl.gz": write_zipped_lines,
    "list.json.gz": lambda path, rows: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    "table.csv": write_csv,
    "table.csv.gz": write_zipped_csv,
    "table.parquet": write_parquet,
    "stream.arrow": write_arrow_stream,
    "file.arrow": write_arrow_file,
}


def source_of(path, form="instruction", columns=None):
    return SourceConfig(name="here", path=str(path), format=form, columns=columns or {})


def read(path, **settings):
    return list(read_records(source_of(path, **settings)))


# A cell of a CSV file holds no list.
CASES = [(name, form) for name in WRITERS for form in ROWS if not (form == "messages" and ".csv" in name)]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_every_kind_of_file_gives_the_same_conversations(tmp_path, name, form):
    WRITERS[name](tmp_path / name, ROWS[form])
    source = source_of(tmp_path / name, form, COLUMNS[form])
    task = {"column": "kind"} if form == "instruction" else "fixed"
    source = SourceConfig.model_validate(source.model_dump() | {"task": task})
    made = [format_record(record, source) for record in read_records(source)]
    assert [c.index for c in made] == list(range(len(ROWS[form])))
    assert [c.task for c in made] == [row.get("kind", "fixed") for row in ROWS[form]]
    contents = [[(m.role, m.content) for m in c.messages] for c in made]
    if form == "instruction":
        prompts = [f"{r['question']}\n\n{r['context']}" if r["context"] else r["question"] for r in ROWS[form]]
        assert contents == [[("user", p), ("assistant", r["answer"])] for p, r in zip(prompts, ROWS[form], strict=True)]
    elif form == "prompt_completion":
        assert contents == [[("user", r["text"]), ("assistant", r["next"])] for r in ROWS[form]]
    else:
        assert contents == [[(m["role"], m["content"]) for m in r["chat"]] for r in ROWS[form]]


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
        b'{"a": 3}',
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read(path)
    assert [type(row) for row in rows] == [Record] + [Rejected] * 6 + [Record] * 2
    assert [row.where for row in rows] == [f"{path}:{n}" for n in (1, 2, 4, 5, 6, 7, 8, 9, 10)]
    assert [row.index for row in rows] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    reasons = [row.reason for row in rows if isinstance(row, Rejected)]
    assert reasons[0].startswith("broken JSON: ")
    assert reasons[0].endswith(" at column 9")
    assert reasons[1] == "invalid UTF-8 at byte 7 of the line"
    assert reasons[2] == "the record is a list, not an object with fields"
    assert reasons[3] == "the record is a str, not an object with fields"
    assert all(reason.startswith("broken JSON: ") for reason in reasons[4:])


def test_a_broken_json_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('[\n {"a": 1},\n {"a": }\n]', encoding="utf-8")
    with pytest.raises(UserError, match=r"source here: .*broken\.json:3: broken JSON: Expecting value at column 8"):
        read(path)
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(UserError, match="invalid UTF-8 at byte 8"):
        read(path)
    path.write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(UserError, match="holds a dict; needed: a list of records"):
        read(path)


def test_rows_of_a_json_list_that_are_no_objects_are_rejected(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, null, {"a": 2}]', encoding="utf-8")
    first, rejected, last = read(path)
    assert (first.fields, last.fields) == ({"a": 1}, {"a": 2})
    assert rejected == Rejected("here", 1, f"{path}, record 2", "the record is a NoneType, not an object with fields")


@pytest.mark.parametrize("content", [gzip.compress(b'{"a": 1}\n' * 5000)[:-20], b'{"a": 1}\n'])
@pytest.mark.parametrize("name", ["cut.jsonl.gz", "cut.json.gz"])
def test_a_damaged_gzip_file_is_the_users_to_mend(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"source here: .*cut\.jsonl?\.gz cannot be read: "):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["table.parquet", "table.arrow", "table.csv"])
def test_a_table_that_cannot_be_read_is_the_users_to_mend(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe no table\x00")
    with pytest.raises(UserError, match=r"source here: the file .* cannot be read: "):
        read(tmp_path / name)


def test_a_missing_file_suggests_a_near_name(tmp_path):
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "readme.md").touch()
    with pytest.raises(UserError, match=r"there is no file .*trian\.jsonl; near it: train\.jsonl\."):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match=r"there is no file .*trian\.jsonl\. "):
        read(tmp_path / "absent" / "trian.jsonl")


def test_what_is_not_a_file_of_a_known_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"ends in \.txt; needed: \.json, \.jsonl, \.csv, \.parquet, \.arrow"):
        read(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)


def test_the_hash_is_of_the_content_and_not_of_the_place(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "c.jsonl").write_text('{"a": 2}\n')
    a, b, c = (content_hash(source_of(tmp_path / f"{name}.jsonl")) for name in "abc")
    assert a == b != c
