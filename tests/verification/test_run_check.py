"""A run that is as it says has no findings; whatever is changed in it is found, and said in a sentence."""

import json
import shutil

import fsspec
import numpy as np
import pytest

from sft.atomic_files import publish_folder, read_json, read_manifest, written_aside
from sft.attempt_record import End, write_end
from sft.checkpoint.open_storage import open_storage
from sft.checkpoint.storage import SaveKey
from sft.data.planning.pack_plan import PackPlan
from sft.evaluation.run_records import read_run
from sft.monitoring.run_status import RunWatcher
from sft.run_events import EventLog
from sft.verification.findings import MAX_SHOWN, Kind
from sft.verification.run_check import verify_run


def texts(verified, kind=None):
    return [text for findings in verified.findings for text in findings.first if kind in (None, findings.kind)]


def edit_ledger(trained, name, edit):
    """`edit` gets the objects of the lines and returns those to be written."""
    path = trained.stage(name).ledger
    lines = edit([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def publish_anew(path, change):
    """Replace a published folder by one in which `change` was applied, with a manifest that is true."""
    manifest = read_manifest(path)
    with written_aside(path, "test") as aside:
        shutil.copytree(path, aside, dirs_exist_ok=True)
        change(aside)
        shutil.rmtree(path)
        publish_folder(aside, path, {key: value for key, value in manifest.items() if key != "files"})


def test_a_run_with_restarts_on_other_numbers_of_ranks_and_a_skipped_step_is_exactly_once(finished):
    verified = verify_run(finished.run)
    assert texts(verified) == []
    assert verified.is_finished
    broad, words = verified.stages
    assert (broad.num_steps, broad.num_packs, broad.num_rolled_back) == (8, 32, 3)
    assert (broad.skipped_steps, broad.newest_checkpoint) == ((6,), 8)
    assert (words.num_steps, words.num_packs, words.num_rolled_back) == (5, 20, 0)
    assert verified.restarts == {"broad": (3, 3), "words": ()}
    plan = PackPlan.open(finished.stage("broad").packs)
    assert broad.num_supervised_tokens == plan.num_supervised_tokens(range(32)) - plan.num_supervised_tokens(
        range(24, 28)
    )
    # The store, two plans and that of the held-out examples, three checkpoints, two models.
    manifests = [*finished.run.path.rglob("manifest.json"), finished.store / "manifest.json"]
    files = [read_json(path)["files"] for path in manifests if path != finished.run.manifest]
    assert len(files) == 9
    assert verified.files.num_files == sum(map(len, files))
    assert verified.files.num_bytes == sum(entry["num_bytes"] for named in files for entry in named.values())


def test_the_report_status_and_the_verification_count_the_same_restarts_and_steps(planned):
    """Killed between two stages, before it trained, and behind the last step; the last start finds all done."""
    planned.train("broad", 0, 8, attempt=1, world_size=2)
    planned.finish("broad")
    planned.train("words", 0, 5, attempt=3, world_size=2, skipped=(4,))
    planned.train("words", 5, 5, attempt=4, world_size=2)
    planned.finish("words")
    for number in range(1, 6):
        planned.run.attempt(number).path.mkdir(parents=True)
        if number in (1, 3, 4):
            EventLog(planned.run.attempt(number), 0).add("resumed", "going on")
    for number in (4, 5):
        write_end(planned.run.attempt(number), End("done"))
    verified, records = verify_run(planned.run), read_run(planned.run)
    status = RunWatcher(planned.run).read()
    assert [restart.attempt for restart in status.restarts] == [2, 3, 4]
    assert verified.num_restarts == records.num_restarts == 3
    assert {stage.name: stage.restarts for stage in records.stages} == {"broad": (), "words": (0, 5)}
    assert verified.restarts == {"broad": (), "words": (0, 5)}
    for found in (status.stages, records.stages):
        assert [stage.num_done for stage in found] == [stage.num_steps for stage in verified.stages] == [8, 5]


@pytest.mark.parametrize(
    "where", ["store", "broad/packs", "words/packs", "heldout", "broad/checkpoint", "broad/model", "words/model"]
)
def test_a_byte_changed_in_any_file_is_found(finished, where):
    name, _, what = where.partition("/")
    if where == "store":
        folder = finished.store
    elif where == "heldout":
        folder = finished.run.evaluations / "packs"
    elif what == "checkpoint":
        folder = finished.stage(name).checkpoints / "step-00000003"
    else:
        folder = getattr(finished.stage(name), what)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        content = path.read_bytes()
        position = len(content) * 2 // 3
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        found = texts(verify_run(finished.run), Kind.FILES)
        assert any(str(folder) in text and path.name in text for text in found), (path, found)
        path.write_bytes(content)
    assert texts(verify_run(finished.run)) == []


def test_a_file_cut_off_or_gone_and_a_checkpoint_without_manifest_are_found(finished):
    (finished.stage("words").model / "b.json").unlink()
    (finished.stage("broad").model / "a.safetensors").write_bytes(b"")
    (finished.stage("broad").checkpoints / "step-00000003" / "manifest.json").unlink()
    found = texts(verify_run(finished.run))
    assert len(found) == 3
    for words in ("b.json is missing", "a.safetensors has 0 bytes", "checkpoint after 3 steps"):
        assert any(words in text for text in found)


def without_step(lines, step):
    return [line for line in lines if line.get("step") != step or line["attempt"] != 3]


def changed(lines, step, **fields):
    return [{**line, **fields} if (line.get("step"), line["attempt"]) == (step, 3) else line for line in lines]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda lines: without_step(lines, 5), ["stage broad: step 5 was never trained"]),
        (
            lambda lines: without_step(lines, 7),
            [
                "stage broad: step 7 was never trained",
                "stage broad: a checkpoint has 8 steps, but the ledger ends after 7",
            ],
        ),
        (
            lambda lines: [*lines, lines[-1]],
            ["stage broad: step 7 was trained again without being rolled back"]
            + [f"stage broad: pack {pack} was trained 2 times (steps 7 and 7)" for pack in range(28, 32)],
        ),
        (
            lambda lines: changed(lines, 4, packs=[16, 17, 19, 15]),
            [
                "stage broad: pack 15 was trained 2 times (steps 3 and 4)",
                "stage broad: pack 18 was never trained, though step 4 was",
            ],
        ),
        (
            lambda lines: changed(changed(lines, 4, packs=[20, 17, 18, 19]), 5, packs=[16, 21, 22, 23]),
            [
                "stage broad: pack 16 was trained in step 5, but belongs to step 4",
                "stage broad: pack 20 was trained in step 4, but belongs to step 5",
            ],
        ),
        (
            lambda lines: changed(lines, 7, packs=[28, 29, 30, 31, 32]),
            ["stage broad: pack 32 of step 7 is not one of the plan's 32"],
        ),
        (
            lambda lines: changed(lines, 5, digest=1),
            ["stage broad, step 5: what was fed as packs 20 to 23 is not what the plan says"],
        ),
        (
            lambda lines: [*lines, {**lines[-1], "step": 8, "packs": []}],
            ["stage broad: step 8 was trained, but the plan has 8 steps"],
        ),
        (
            lambda lines: [*lines[:-2], "{damaged\n", lines[-1]],
            [
                "stage broad: ledger.jsonl, line 13 is damaged (JSONDecodeError)",
                "stage broad: step 6 was never trained",
            ],
        ),
        (
            lambda lines: changed(lines, 6, attempt=2),
            ["stage broad: ledger.jsonl, line 13 is of attempt 2, but attempt 3 was training"],
        ),
        (
            lambda lines: [*lines, {"resumed_at": 7, "attempt": 4}],
            ["stage broad: step 7 was never trained"],
        ),
    ],
)
def test_a_ledger_that_is_not_the_plan_is_found(finished, edit, expected):
    edit_ledger(finished, "broad", edit)
    verified = verify_run(finished.run)
    assert texts(verified) == expected


def test_any_number_that_is_changed_in_a_line_that_stands_is_found(finished):
    path = finished.stage("broad").ledger
    content = path.read_bytes()
    for step in (0, 2, 3, 7):  # the first and the last of each attempt
        attempt = 1 if step < 3 else 3
        for field in ("step", "attempt", "digest", "packs"):

            def change(line, step=step, attempt=attempt, field=field):
                if (line.get("step"), line["attempt"]) != (step, attempt):
                    return line
                packs = [*line["packs"][:2], line["packs"][2] + 1, line["packs"][3]]
                return {**line, field: packs if field == "packs" else line[field] + 1}

            edit_ledger(finished, "broad", lambda lines, change=change: list(map(change, lines)))
            assert texts(verify_run(finished.run)), (step, field)
            path.write_bytes(content)


@pytest.mark.parametrize("name", ["tokens", "loss_mask"])
def test_one_other_token_or_mask_bit_is_found_by_what_was_fed_even_where_the_files_are_whole(finished, name):
    plan = PackPlan.open(finished.stage("words").packs)
    example = int(plan.pack_examples(9)[0])  # of step 2

    def change(folder):
        array = np.load(folder / f"{name}.npy", mmap_mode="r+")
        array[int(np.load(folder / "offsets.npy")[example + 1]) - 1] ^= 1
        array.flush()

    publish_anew(finished.store, change)
    found = texts(verify_run(finished.run))
    assert "stage words, step 2: what was fed as packs 8 to 11 is not what the plan says" in found
    assert all("is not what the plan says" in text for text in found)


def test_a_run_under_way_is_verified_so_far(planned):
    assert verify_run(planned.run).stages == ()
    planned.train("broad", 0, 5, attempt=1, world_size=2)
    planned.save("broad", 4)
    with planned.stage("broad").ledger.open("a") as file:
        file.write('{"step": 5, "att')  # being written
    verified = verify_run(planned.run)
    assert texts(verified) == []
    assert not verified.is_finished
    (broad,) = verified.stages
    assert (broad.num_steps, broad.num_steps_planned, broad.newest_checkpoint) == (5, 8, 4)


def test_a_checkpoint_ahead_of_the_ledger_is_found(planned):
    planned.train("broad", 0, 5, attempt=1, world_size=2)
    planned.save("broad", 6)
    expected = ["stage broad: a checkpoint has 6 steps, but the ledger ends after 5"]
    assert texts(verify_run(planned.run)) == expected


def test_a_checkpoint_that_goes_while_the_files_are_hashed_is_no_finding(finished):
    old = finished.stage("broad").checkpoints / "step-00000003"
    whole = verify_run(finished.run).files.num_files

    def report(what, num_done, num_total):
        if old.exists():
            old.rename(old.with_name(".going"))

    verified = verify_run(finished.run, report)
    assert texts(verified) == []
    assert verified.files.num_files == whole - 2


def test_a_checkpoint_that_was_quarantined_is_told(finished):
    aside = finished.stage("broad").checkpoints / "damaged-step-00000003"
    (finished.stage("broad").checkpoints / "step-00000003").rename(aside)
    verified = verify_run(finished.run)
    assert texts(verified) == []
    assert verified.quarantined == (str(aside),)


def test_checkpoints_in_a_folder_of_their_own_are_looked_at_there(finished, tmp_path):
    storage = tmp_path / "elsewhere"
    for name in ("broad", "words"):
        folder = finished.stage(name)
        (storage / folder.path.name).parent.mkdir(exist_ok=True)
        folder.checkpoints.rename(storage / folder.path.name)
    text = finished.run.config.read_text()
    finished.run.config.write_text(text.replace("  dir: null\n", f"  dir: {storage}\n"))
    assert texts(verify_run(finished.run)) == []
    (storage / "0-broad" / "step-00000003" / "b.json").write_text("[]")
    (found,) = texts(verify_run(finished.run))
    assert str(storage) in found


def test_checkpoints_in_object_storage_are_brought_and_hashed(finished):
    storage = open_storage("memory://verified/0-broad")
    key = SaveKey(8, 3, 1)
    storage.write_part(key, "rank-00000-of-00001.safetensors", lambda path: {"size": path.write_bytes(b"state" * 99)})
    storage.publish(key, {"kind": "checkpoint", "step": 8}, storage.receipts(key))
    text = finished.run.config.read_text()
    finished.run.config.write_text(text.replace("  dir: null\n", "  dir: memory://verified\n"))
    verified = verify_run(finished.run)
    assert texts(verified) == []
    assert verified.stages[0].newest_checkpoint == 8
    (part,) = fsspec.filesystem("memory").glob("verified/0-broad/step-00000008/*/rank-*.safetensors")
    fsspec.filesystem("memory").pipe_file(part, b"State" * 99)
    (found,) = texts(verify_run(finished.run))
    assert "memory://verified/0-broad/step-00000008" in found


def test_what_a_finished_stage_must_have_is_missed(finished):
    shutil.rmtree(finished.store)
    shutil.rmtree(finished.stage("words").model)
    finished.stage("broad").ledger.unlink()
    found = texts(verify_run(finished.run))
    assert len(found) == 3
    for words in ("the token store", "stage words is finished, but its model", "stage broad was trained, but has no"):
        assert any(words in text for text in found)


def test_of_many_findings_the_first_are_kept_and_all_counted(finished):
    edit_ledger(finished, "broad", lambda lines: [{**line, "packs": []} if "packs" in line else line for line in lines])
    (findings,) = verify_run(finished.run).findings
    assert (findings.kind, findings.num, len(findings.first)) == (Kind.PACKS, 32, MAX_SHOWN)
