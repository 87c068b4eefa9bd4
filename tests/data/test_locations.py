"""A path leads to the same files in the same order wherever it lies, and what cannot be found is explained."""

import glob
import http.server
import json
import os
import stat
import threading
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from fsspec.registry import known_implementations

from sft.config import SourceConfig
from sft.data.reading import tables
from sft.data.reading.locations import find_files, is_on_hub, split_endings
from sft.data.reading.sources import content_hash, read_blocks, read_records
from sft.errors import UserError
from sft.url_secrets import without_secrets


def source_of(path, **settings):
    return SourceConfig(name="here", path=str(path), **settings)


def names(path, root):
    return [file.name.removeprefix(f"{root}/") for file in find_files(source_of(path))]


def write(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"n": value}) + "\n" for value in values), encoding="utf-8")


def numbers(path):
    return [record.fields["n"] for record in read_records(source_of(path))]


@pytest.fixture
def folder(tmp_path):
    """Three files that can be read, and some that are to be left out."""
    root = tmp_path / "data"
    write(root / "b.jsonl", 2)
    write(root / "a.jsonl", 0, 1)
    write(root / "deep" / "er" / "c.jsonl", 3)
    write(root / ".hidden.jsonl", 9)
    write(root / ".cache" / "d.jsonl", 9)
    (root / "README.md").write_text("no data")
    return root


@pytest.fixture
def memory(folder):
    """The same files in fsspec's memory."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    for path in folder.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"/data/{path.relative_to(folder)}", path.read_bytes())
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture
def served(folder):
    """The URL of a web server of this process with the same files."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


PATTERNS = {
    "": ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"],
    "/deep": ["deep/er/c.jsonl"],
    "/*.jsonl": ["a.jsonl", "b.jsonl"],
    "/*": ["a.jsonl", "b.jsonl"],
    "/?.jsonl": ["a.jsonl", "b.jsonl"],
    "/[b-z].jsonl": ["b.jsonl"],
    "/**/c.jsonl": ["deep/er/c.jsonl"],
    "/**": ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"],
    "/.cache/*.jsonl": [".cache/d.jsonl"],
    "/b.jsonl": ["b.jsonl"],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_path_leads_to_its_files_in_order_here_and_elsewhere(folder, memory, pattern):
    assert names(f"{folder}{pattern}", folder) == PATTERNS[pattern]
    # The name of a single file is the path as it was given.
    root = "memory://data" if pattern == "/b.jsonl" else "memory:///data"
    assert names(f"memory://data{pattern}", root) == PATTERNS[pattern]
    assert numbers(f"memory://data{pattern}") == numbers(f"{folder}{pattern}")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write(tmp_path / "a[1].jsonl", 1)
    write(tmp_path / "a1.jsonl", 2)
    assert numbers(tmp_path / "a[1].jsonl") == [1]
    assert numbers(tmp_path / "a?.jsonl") == [2]


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    write(tmp_path / "elsewhere" / "e.jsonl", 7)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "f.jsonl").symlink_to(tmp_path / "elsewhere" / "e.jsonl")
    (folder / "deep" / "circle").symlink_to(folder)
    (folder / "deep" / "another").symlink_to(folder)
    (folder / "a_link").symlink_to(folder / "deep")
    expected = ["a.jsonl", "b.jsonl", "deep/er/c.jsonl", "f.jsonl"]
    assert names(folder, folder) == names(folder / "**", folder) == expected
    assert names(folder / "**" / "*.jsonl", folder) == expected
    assert names(folder / "**" / "er" / "*", folder) == ["deep/er/c.jsonl"]
    assert names(folder / "**" / "er" / "**", folder) == ["deep/er/c.jsonl"]
    (folder / "f.jsonl").unlink()
    assert names(folder, folder) == [*expected[:-1], "link/e.jsonl"]


def test_patterns_match_as_those_of_python_do(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder / "a b" / "[x]" / "c.jsonl", 4)
    patterns = [
        "**",
        "**/*.jsonl",
        "*/**",
        "./**/c.jsonl",
        "**/er/**",
        "a*/**/*",
        "deep/**/er/*",
        "*/[[]x]/**",
        "**/**",
    ]
    for pattern in patterns:
        expected = {Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file() and p.endswith("l")}
        assert {Path(file.path) for file in find_files(source_of(pattern))} == expected, pattern
        absolute = find_files(source_of(folder / pattern))
        assert {Path(file.path) for file in absolute} == {folder / path for path in expected}, pattern


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
def test_a_pipe_or_a_socket_is_refused_and_not_waited_for(folder, make):
    make(folder / "pipe.jsonl")
    paths = (folder, folder / "pipe.jsonl", folder / "*.jsonl")
    for path in (*paths, *(f"file://{path}" for path in paths)):
        for call in (content_hash, lambda source: list(read_blocks(source))):
            with pytest.raises(UserError, match=r"pipe\.jsonl is a pipe, a socket or a device. Needed: a file"):
                call(source_of(path))
    (folder / "pipe.jsonl").unlink()
    make(folder / "pipe")
    assert numbers(folder) == [0, 1, 2, 3]
    (folder / "README.md").unlink()
    make(folder / "README.md")
    with pytest.raises(UserError, match="README.md is a pipe"):
        find_files(source_of(folder))
    with pytest.raises(UserError, match="null is a pipe, a socket or a device"):
        find_files(source_of("/dev/null"))


def test_what_datasets_writes_about_its_tables_is_no_record(tmp_path):
    table = pa.table({"n": [1, 2]})
    with pa.OSFile(str(tmp_path / "data-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    assert numbers(tmp_path) == [1, 2]
    with pytest.raises(UserError, match=r"holds no file of records: there are dataset_info\.json, state\.json"):
        find_files(source_of(tmp_path / "*.json"))
    assert names(tmp_path / "state.json", tmp_path) == ["state.json"]


def test_a_missing_file_suggests_a_near_name(tmp_path):
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "readme.md").touch()
    with pytest.raises(UserError, match=r"there is no file .*trian\.jsonl; near it: train\.jsonl\."):
        find_files(source_of(tmp_path / "trian.jsonl"))
    with pytest.raises(UserError, match=r"there is no file .*trian\.jsonl\. "):
        find_files(source_of(tmp_path / "absent" / "trian.jsonl"))
    with pytest.raises(UserError, match=r"there is no file that matches .*trian\*\.jsonl; near it: train\.jsonl\."):
        find_files(source_of(tmp_path / "trian*.jsonl"))
    with pytest.raises(UserError, match=r"there is no file memory://absent/a\.jsonl\."):
        find_files(source_of("memory://absent/a.jsonl"))


def test_what_holds_no_records_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(UserError, match="holds no file of records: it is empty; needed: .json, .jsonl"):
        find_files(source_of(tmp_path))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt ends in \.txt; needed: \.json, \.jsonl"):
        find_files(source_of(tmp_path / "notes.txt"))
    for name in "abcdef":
        (tmp_path / f"{name}.md").touch()
    with pytest.raises(UserError, match=r"there are a\.md, b\.md, c\.md, d\.md, e\.md and 2 more"):
        find_files(source_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("a.jsonl", (".jsonl", "")),
        ("a.b.csv.gz", (".csv", ".gz")),
        ("a.jsonl.zst", (".jsonl", ".zst")),
        ("a.gz", ("", ".gz")),
        ("a", ("", "")),
    ],
)
def test_endings_say_what_is_inside(name, endings):
    assert split_endings(name) == endings


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("owner/name", True),
        ("owner-1/na.me_2", True),
        ("owner/name.jsonl", False),
        ("owner/name.jsonl.gz", False),
        ("./owner/name", False),
        ("~/name", False),
        ("/owner/name", False),
        ("name", False),
        ("a/b/c", False),
        ("owner/*", False),
        ("s3://owner/name", False),
    ],
)
def test_an_id_of_the_hub_is_told_from_a_path(path, expected):
    assert is_on_hub(source_of(path)) == expected


def test_a_folder_that_is_here_is_not_looked_for_on_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    write(folder.parent / "data" / "deep" / "x.jsonl", 5)
    assert numbers("data/deep") == [3, 5]


def test_a_data_set_of_the_hub_that_cannot_be_had_is_the_users_to_mend():
    for call in (content_hash, lambda source: next(read_blocks(source))):
        with pytest.raises(UserError, match=r"the data set on the Hub owner/no-such-name .* cannot be read: "):
            call(source_of("owner/no-such-name"))


def test_a_data_set_is_asked_of_the_hub_as_the_config_says(monkeypatch):
    """The one thing that is not real here is the Hub."""
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return tables.datasets.Dataset.from_dict({"n": [1, 2, 3], "t": ["a", None, "c"]})

    monkeypatch.setattr(tables.datasets, "load_dataset", load_dataset)
    source = source_of("owner/name", subset="main", split="test", revision="v1")
    records = list(read_records(source))
    assert asked == [(("owner/name", "main"), {"split": "test", "revision": "v1"})]
    assert [record.fields for record in records] == [{"n": 1, "t": "a"}, {"n": 2, "t": None}, {"n": 3, "t": "c"}]
    assert str(records[2].where) == "owner/name, record 3"
    assert len(content_hash(source)) == 16


def test_files_of_a_web_server_are_read(folder, served):
    table = pa.table({"n": [5, 6]})
    pa.parquet.write_table(table, folder / "t.parquet")
    assert numbers(f"{served}/a.jsonl") == [0, 1]
    assert numbers(f"{served}/t.parquet") == [5, 6]
    assert numbers(f"{served}/*.jsonl") == [0, 1, 2]
    before = content_hash(source_of(f"{served}/a.jsonl"))
    assert before == content_hash(source_of(f"{folder}/a.jsonl"))  # this server keeps no checksum
    write(folder / "a.jsonl", 0, 2)
    assert content_hash(source_of(f"{served}/a.jsonl")) != before
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:\d+/absent\.jsonl cannot be read: 404"):
        find_files(source_of(f"{served}/absent.jsonl"))


def test_no_secret_of_a_url_is_shown(served):
    secret = served.replace("http://", "http://user:pass@word@") + "/a.jsonl?token=hush"
    (block,) = read_blocks(source_of(secret))
    assert block.where.file == f"{served}/a.jsonl"
    for path in (secret.replace("a.jsonl", "absent.jsonl"), "http://user:hush@127.0.0.1:1/a.jsonl?hush=hush"):
        with pytest.raises(UserError, match="cannot be read") as error:
            list(read_blocks(source_of(path)))
        assert "hush" not in str(error.value)
        assert "pass" not in str(error.value)
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a.jsonl", "s3://bucket/a.jsonl"),
        ("s3://bucket/data/?.jsonl", "s3://bucket/data/?.jsonl"),
        ("s3://bucket/a.jsonl?versionId=1", "s3://bucket/a.jsonl"),
        ("404, url='https://h/a.jsonl?sig=x&y=z'", "404, url='https://h/a.jsonl'"),
        ("https://h/a.jsonl?secret", "https://h/a.jsonl"),
        ("zip://a.csv::https://u:p@h/b.zip?t=1", "zip://a.csv::https://h/b.zip"),
        ("/data/who@where/a?.jsonl", "/data/who@where/a?.jsonl"),
    ],
)
def test_secrets_are_taken_out_of_urls(text, shown):
    assert without_secrets(text) == shown


def test_a_url_that_no_package_knows_is_the_users_to_mend():
    with pytest.raises(UserError, match="nosuch://a/b.jsonl cannot be read: Protocol not known: nosuch"):
        find_files(source_of("nosuch://a/b.jsonl"))


def test_a_package_that_is_missing_is_named(monkeypatch):
    missing = {"class": "no_such_package.FileSystem", "err": "Install no_such_package to access it"}
    monkeypatch.setitem(known_implementations, "missing", missing)
    with pytest.raises(
        UserError, match="missing://a.jsonl needs a package that is not installed: Install no_such_pack"
    ):
        find_files(source_of("missing://a.jsonl"))


def test_the_hash_of_a_remote_file_is_its_checksum_or_its_content(memory, monkeypatch):
    source = source_of("memory://data/a.jsonl")
    before = content_hash(source)
    memory.pipe_file("/data/a.jsonl", memory.cat_file("/data/a.jsonl"))
    assert content_hash(source) == before
    memory.pipe_file("/data/a.jsonl", b'{"n": 5}\n')
    assert content_hash(source) != before
    info = type(memory).info
    for etag in ("1", "2"):
        monkeypatch.setattr(
            type(memory), "info", lambda self, path, etag=etag, **k: {**info(self, path, **k), "ETag": etag}
        )
        assert content_hash(source) != before
        before = content_hash(source)


def test_a_link_to_nothing_is_the_users_to_mend(folder):
    (folder / "gone.jsonl").symlink_to(folder / "nowhere.jsonl")
    for path in (folder, folder / "*.jsonl", folder / "gone.jsonl"):
        for call in (content_hash, lambda source: list(read_blocks(source))):
            with pytest.raises(UserError, match=r"gone\.jsonl cannot be read: .*No such file"):
                call(source_of(path))
