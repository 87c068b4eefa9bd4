"""What differs between nodes is found, all of it, each thing once, with the nodes that it is about; nothing else is."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.preflight.comparison import (
    DRIVER,
    ClockOffset,
    check_clocks,
    check_connections,
    check_folder,
    check_host_addresses,
    check_limits,
    check_processors,
    compare_contents,
    compare_environments,
    compare_sources,
    compare_versions,
)
from launcher.preflight.findings import About, Finding, in_order
from launcher.preflight.gpus import Gpu
from launcher.preflight.network import Peer
from launcher.preflight.node_facts import Contents, GpuFacts, NodeFacts
from launcher.preflight.shared_folders import SharedFolder

MODEL = "/models/llama"
HEALTHY = NodeFacts(
    versions={"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
    contents={MODEL: Contents({"config.json": "ab12", "model.safetensors": "81 bytes"})},
    environment={"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "8"},
    temp_folder="/tmp",
    temp_free_bytes=50 * 10**9,
    shm_bytes=64 * 10**9,
    num_open_files=65536,
    host_address="10.0.0.1",
    staging_problem=None,
    gpus=GpuFacts((Gpu(0, "H100", "550", 81559, 4, False, 0),), None, "12.8", True),
)
FOLDER = SharedFolder("run.dir", "/runs/one", nodes_write=True)
Change = Callable[[NodeFacts], NodeFacts]


def with_file(name: str, identity: str | None) -> Change:
    def change(facts: NodeFacts) -> NodeFacts:
        files = dict(facts.contents[MODEL].files)
        if identity is None:
            del files[name]
        else:
            files[name] = identity
        return facts._replace(contents={MODEL: Contents(files)})

    return change


# What may be wrong with a node: (what changes, words of the finding, whether it is an error).
WRONG: dict[str, tuple[Change, str, bool]] = {
    "package": (lambda f: f._replace(versions={**f.versions, "torch": "2.12.1"}), "torch differs", True),
    "no package": (lambda f: f._replace(versions={**f.versions, "python": "not installed"}), "python differs", True),
    "file": (
        with_file("config.json", "cd34"),
        f"({MODEL}) differs from what the driver reads there: config.json",
        True,
    ),
    "variable": (
        lambda f: f._replace(environment={**f.environment, "NCCL_DEBUG": "INFO"}),
        "NCCL_DEBUG differs",
        False,
    ),
    "no variable": (
        lambda f: f._replace(environment={k: v for k, v in f.environment.items() if k != "OMP_NUM_THREADS"}),
        "OMP_NUM_THREADS differs",
        False,
    ),
    "open files": (lambda f: f._replace(num_open_files=1024), "1024 files open", False),
    "temporary folder": (lambda f: f._replace(temp_free_bytes=10**6), "(/tmp) has 1.0 MB left", False),
    "/dev/shm": (lambda f: f._replace(shm_bytes=64 * 10**6), "/dev/shm has 64.0 MB", False),
    "staging": (lambda f: f._replace(staging_problem="/scratch: Read-only"), "no packs can be staged: /scratch", False),
    "processor": (lambda f: f._replace(slow_arithmetic="no instructions"), ": no instructions", False),
}


def compare(driver: NodeFacts, nodes: dict[str, NodeFacts]) -> tuple[Finding, ...]:
    everyone = {DRIVER: driver, **nodes}
    return in_order(
        compare_versions({name: facts.versions for name, facts in everyone.items()})
        + compare_contents({name: facts.contents[MODEL] for name, facts in everyone.items()}, "model.path", MODEL)
        + compare_environments({name: facts.environment for name, facts in nodes.items()})
        + check_limits(nodes)
        + check_processors(nodes)
    )


@given(
    st.integers(3, 9).flatmap(
        lambda size: st.dictionaries(
            st.sampled_from(sorted(WRONG)),
            # Fewer than half of the nodes, so that the others are those that are right.
            st.sets(st.integers(0, size - 1), min_size=1, max_size=(size - 1) // 2),
        ).map(lambda wrong: (size, wrong))
    )
)
def test_all_that_is_wrong_is_found_once_with_its_nodes_and_nothing_else_is(
    case: tuple[int, dict[str, set[int]]],
) -> None:
    size, wrong = case
    nodes = {f"node-{i}": HEALTHY for i in range(size)}
    for name, numbers in wrong.items():
        for i in numbers:
            nodes[f"node-{i}"] = WRONG[name][0](nodes[f"node-{i}"])
    findings = compare(HEALTHY, nodes)
    assert len(findings) == len(wrong)
    for name, numbers in wrong.items():
        _, words, is_error = WRONG[name]
        (finding,) = (finding for finding in findings if words in finding.text)
        assert set(finding.nodes) == {f"node-{i}" for i in numbers}
        assert finding.is_error == is_error
    assert [finding.is_error for finding in findings] == sorted((f.is_error for f in findings), reverse=True)


def test_what_cannot_be_read_or_is_not_whole_is_said_with_path_and_file() -> None:
    contents = {
        DRIVER: HEALTHY.contents[MODEL],
        "a": Contents({}, "is not there"),
        "b": Contents({}, "cannot be read: Permission denied"),
        "c": Contents({"config.json": "ab12"}),
        "d": HEALTHY.contents[MODEL]._replace(files={**HEALTHY.contents[MODEL].files, "more.txt": "of its own"}),
    }
    assert [(finding.text, finding.nodes) for finding in compare_contents(contents, "model.path", MODEL)] == [
        ("a: model.path (/models/llama) is not there", ("a",)),
        ("b: model.path (/models/llama) cannot be read: Permission denied", ("b",)),
        ("c: model.path (/models/llama) lacks model.safetensors", ("c",)),
    ]


def test_what_the_driver_itself_cannot_read_is_said_of_it_alone() -> None:
    contents = {DRIVER: Contents({}, "is not there"), "a": HEALTHY.contents[MODEL]}
    (finding,) = compare_contents(contents, "model.path", MODEL)
    assert finding.nodes == (DRIVER,)


def test_another_source_is_an_error_of_the_node_that_differs_from_most() -> None:
    (finding,) = compare_sources({DRIVER: "aaa", "a": "aaa", "b": "bbb"})
    assert finding.text.startswith("the source of this program differs: aaa on driver, a; bbb on b.")
    assert (finding.about, finding.nodes, finding.is_error) == (About.VERSIONS, ("b",), True)
    assert compare_sources({DRIVER: "aaa", "a": "aaa"}) == []


def test_a_folder_is_an_error_of_the_nodes_that_do_not_share_it() -> None:
    problems = {"a": None, "b": "is not there", "c": "is not there"}
    (finding,) = check_folder(FOLDER, problems)
    assert (finding.text, finding.nodes) == ("b, c: run.dir (/runs/one) is not there", ("b", "c"))
    assert check_folder(FOLDER, {"a": None}) == []
    (finding,) = check_folder(FOLDER._replace(location="sftp://me:hunter2@host/run"), problems)
    assert finding.text == "b, c: run.dir (sftp://host/run) is not there"


@pytest.mark.parametrize(
    ("seconds", "bound", "kinds"),
    [
        (0.1, 0.01, []),
        (3.0, 0.01, [False]),
        (-3.0, 0.01, [False]),
        (3.0, 1.5, []),  # the messages alone may have taken that long
        (400.0, 0.01, [True]),
        (-400.0, 150.0, [False]),
    ],
)
def test_only_what_a_clock_is_off_for_certain_counts(seconds: float, bound: float, kinds: list[bool]) -> None:
    findings = check_clocks({"a": ClockOffset(seconds, bound), "b": ClockOffset(0.0, 0.001)})
    assert [finding.is_error for finding in findings] == kinds
    for finding in findings:
        assert finding.nodes == ("a",)
        assert ("ahead of" if seconds > 0 else "behind") in finding.text


def test_pairs_that_cannot_connect_are_named_with_address_and_port() -> None:
    peers = {name: Peer(f"10.0.0.{i}", 4000 + i) for i, name in enumerate("abcd")}
    (finding,) = check_connections(peers, {"a": {"b": "timed out"}, "b": {}, "c": {}, "d": {}})
    assert finding.text.startswith("b cannot be reached at 10.0.0.1, port 4001, from a: timed out.")
    assert set(finding.nodes) == {"a", "b"}
    (finding,) = check_connections(peers, {"a": {"d": "timed out"}, "b": {"d": "timed out"}, "c": {"d": "timed out"}})
    assert "d cannot be reached at 10.0.0.3, port 4003, from all other nodes" in finding.text
    assert finding.nodes == ("d",)
    assert check_connections(peers, dict.fromkeys(peers, {})) == []


def test_a_host_name_that_leads_nowhere_is_an_error_where_gloo_needs_it() -> None:
    nodes = {"a": HEALTHY, "b": HEALTHY._replace(host_address="127.0.1.1")}
    (finding,) = check_host_addresses(nodes, {"a": "10.0.0.1", "b": "10.0.0.2"})
    assert finding.nodes == ("b",)
    assert "127.0.1.1" in finding.text
    assert check_host_addresses(nodes, {"a": "10.0.0.1", "b": "10.0.0.1"}) == [], "both are one machine"
    named = nodes["b"]._replace(environment={"GLOO_SOCKET_IFNAME": "eth0"})
    assert check_host_addresses({"a": HEALTHY, "b": named}, {"a": "10.0.0.1", "b": "10.0.0.2"}) == []


def test_dev_shm_is_nothing_to_a_job_without_gpus() -> None:
    assert check_limits({"a": HEALTHY._replace(shm_bytes=0, gpus=None)}) == []
    assert check_limits({"a": HEALTHY._replace(num_open_files=None)}) == [], "any number may be open"
