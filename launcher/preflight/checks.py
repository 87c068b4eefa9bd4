"""The preflight: what it checks, in which order, and what it found."""

import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from launcher.cluster.connection import ray_session
from launcher.console import say_error
from launcher.plan import plan_job
from launcher.preflight import comparison as compare
from launcher.preflight.comparison import DRIVER, ClockOffset
from launcher.preflight.disk_need import check_disk, plan_disk
from launcher.preflight.findings import About, Finding, in_order, join_names
from launcher.preflight.gpu_comparison import OfferedGpus, compare_gpus, free_devices
from launcher.preflight.gpu_speed import find_slow
from launcher.preflight.joint_checks import check_folders, check_gathers, check_network
from launcher.preflight.network import AllReduce
from launcher.preflight.node_facts import NodeFacts, Request, look, source_hash
from launcher.preflight.probes import ANSWER_SECONDS, Node, Probes, list_nodes, placed_probes
from launcher.preflight.shared_folders import SharedFolder, marked
from sft.checkpoint.open_storage import open_storage
from sft.config import SftConfig
from sft.job_config import ClusterConfig, JobConfig


class NodeReport(NamedTuple):
    """What was seen on a node, as far as it answered. `room`: for how many workers."""

    name: str
    address: str
    room: int
    source: str | None
    facts: NodeFacts | None
    clock: ClockOffset | None


class Preflight(NamedTuple):
    """The result. `nodes`: those with room for a worker; `all_reduce` is None where it was not measured."""

    nodes: tuple[NodeReport, ...]
    all_reduce: AllReduce | None
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def errors(self) -> list[Finding]:
        """What keeps the job from starting."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """What does not keep it from starting."""
        return [finding for finding in self.findings if not finding.is_error]


def check(job: JobConfig, answer_seconds: float = ANSWER_SECONDS) -> Preflight:
    """Check the nodes of the cluster that `RAY_ADDRESS` names; without one, check this machine alone.

    Args:
        job: its local paths are absolute.
        answer_seconds: a node that takes longer to answer is a finding.

    Raises:
        UserError: the cluster cannot be reached.
    """
    started = time.monotonic()
    if not os.environ.get("RAY_ADDRESS"):
        nodes, all_reduce, findings = _check_machine(job)
    else:
        with ray_session(0, 0, 0) as session:
            if session.note:
                say_error(session.note)
            nodes, all_reduce, findings = _check_cluster(job, answer_seconds)
    return Preflight(tuple(nodes), all_reduce, in_order(findings), time.monotonic() - started)


def _check_machine(job: JobConfig) -> tuple[list[NodeReport], None, list[Finding]]:
    paths, folders, plan = _read_paths(job.sft), _shared_folders(job.sft), plan_job(job)
    name = socket.gethostname()
    facts = {name: look(_request(job))}
    with marked(folders, uuid.uuid4().hex) as refused:
        findings = [f for folder in folders for f in compare.check_folder(folder, {name: refused.get(folder.field)})]
        findings += check_disk(need for need in plan_disk(job.sft) if need.field not in refused)
    num_gpus = plan.gpus * plan.min_workers // plan.max_workers
    findings += _check_contents(paths, facts) + _check_nodes(facts, {name: OfferedGpus(num_gpus, num_gpus)})
    return [NodeReport(name, "this machine", plan.max_workers, source_hash(), facts[name], None)], None, findings


def _check_cluster(job: JobConfig, answer_seconds: float) -> tuple[list[NodeReport], AllReduce | None, list[Finding]]:
    paths, folders, word = _read_paths(job.sft), _shared_folders(job.sft), uuid.uuid4().hex
    here = look(Request(tuple(paths)))
    nodes = {node.name: node for node in list_nodes() if _room(node, job.cluster)}
    with placed_probes(list(nodes.values()), answer_seconds) as probes, marked(folders, word) as refused:
        sources: dict[str, str] = probes.ask("source")
        facts: dict[str, NodeFacts] = probes.ask("look", _request(job))
        clocks = probes.clock_offsets()
        findings = compare.compare_sources({DRIVER: source_hash(), **sources})
        findings += compare.compare_versions({DRIVER: here.versions, **{n: f.versions for n, f in facts.items()}})
        findings += _check_contents(paths, {DRIVER: here, **facts})
        findings += _check_nodes(facts, {name: _offered(node) for name, node in nodes.items()})
        findings += _measure_gpus(probes, facts, nodes)
        findings += compare.check_clocks(clocks)
        if not job.cluster.gpus_per_worker:
            findings += compare.check_host_addresses(facts, {name: nodes[name].address for name in facts})
        findings += check_folders(probes, folders, refused, word)
        findings += check_disk(need for need in plan_disk(job.sft) if need.field not in refused)
        all_reduce, unconnected = check_network(probes, word)
        dead = probes.dead()
        findings = _without(dead, findings + unconnected) + _lost(probes, nodes, dead)
    findings += _check_room(job, {name: node for name, node in nodes.items() if name not in dead})
    reports = [NodeReport(DRIVER, "", 0, source_hash(), here, None)]
    reports += [
        NodeReport(n, node.address, _room(node, job.cluster), sources.get(n), facts.get(n), clocks.get(n))
        for n, node in nodes.items()
    ]
    return reports, all_reduce, findings


def _check_contents(paths: Mapping[str, str], facts: Mapping[str, NodeFacts]) -> list[Finding]:
    return [
        finding
        for path, field in paths.items()
        for finding in compare.compare_contents({n: f.contents[path] for n, f in facts.items()}, field, path)
    ]


def _check_nodes(facts: Mapping[str, NodeFacts], offered: Mapping[str, OfferedGpus]) -> list[Finding]:
    findings = compare.compare_environments({name: of_node.environment for name, of_node in facts.items()})
    findings += compare.check_limits(facts) + compare.check_processors(facts)
    return findings + compare_gpus({name: f.gpus for name, f in facts.items() if f.gpus is not None}, offered)


def _measure_gpus(probes: Probes, facts: Mapping[str, NodeFacts], nodes: Mapping[str, Node]) -> list[Finding]:
    """How fast the GPUs are, alone and between nodes, where they may be measured."""
    devices = {n: free_devices(f.gpus, _offered(nodes[n])) for n, f in facts.items() if f.gpus is not None}
    first = {name: found[0] for name, found in devices.items() if found}
    findings = find_slow(probes.ask_each("measure_gpus", {name: (devices[name],) for name in first}))
    return findings if any(f.is_error for f in findings) else findings + check_gathers(probes, first)


def _offered(node: Node) -> OfferedGpus:
    return OfferedGpus(int(node.resources.get("GPU", 0)), int(node.free.get("GPU", 0)))


def _without(dead: set[str], findings: Iterable[Finding]) -> list[Finding]:
    """Drop findings about dead nodes only, and network findings that dead nodes caused on others."""
    return [
        finding
        for finding in findings
        if not (finding.nodes and dead.issuperset(finding.nodes))
        and not (finding.about is About.NETWORK and dead.intersection(finding.nodes))
    ]


def _lost(probes: Probes, nodes: Mapping[str, Node], dead: set[str]) -> list[Finding]:
    findings = []
    for name, loss in probes.lost.items():
        if name in dead:
            findings.append(Finding(About.NODES, f"{name} has left the cluster meanwhile", (name,), is_error=False))
        else:
            findings.append(Finding(About.NODES, f"{name} ({nodes[name].address}) {loss.reason}", (name,)))
    return findings


def _request(job: JobConfig) -> Request:
    data = job.sft.data
    wants_gpus, stages_packs = job.cluster.gpus_per_worker > 0, data.staging == "node_local"
    in_bfloat16 = not wants_gpus and job.sft.model.dtype == "bfloat16"
    return Request(tuple(_read_paths(job.sft)), wants_gpus, stages_packs, data.staging_dir, in_bfloat16)


def _read_paths(config: SftConfig) -> dict[str, str]:
    """Local files and folders that every worker reads → what the config calls them."""
    model = config.model
    named = {"model.chat_template": model.chat_template, "model.tokenizer": model.tokenizer, "model.path": model.path}
    if config.from_ and config.from_.checkpoints and config.from_.step:
        named["from.checkpoints"] = open_storage(config.from_.checkpoints).where(config.from_.step)
    return {path: field for field, path in named.items() if path is not None and Path(path).is_absolute()}


def _shared_folders(config: SftConfig) -> list[SharedFolder]:
    folders = [
        SharedFolder("run.dir", str(config.run.dir), nodes_write=True),
        SharedFolder("data.cache_dir", str(config.data.cache_dir), nodes_write=False),
    ]
    if config.checkpoint.dir is not None:
        folders.append(SharedFolder("checkpoint.dir", config.checkpoint.dir, nodes_write=True))
    return folders


def _room(node: Node, cluster: ClusterConfig) -> int:
    """How many workers a node has room for when nothing else runs on it."""
    needs = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    return int(min(node.resources.get(name, 0.0) // need for name, need in needs.items() if need))


def _check_room(job: JobConfig, nodes: Mapping[str, Node]) -> list[Finding]:
    cluster, least = job.cluster, plan_job(job).min_workers
    room = {name: _room(node, cluster) for name, node in nodes.items()}
    if sum(room.values()) >= least:
        return []
    there = join_names([f"{num} on {name}" for name, num in room.items()]) or "none on any node"
    cpus, gpus = least * cluster.cpus_per_worker, least * int(cluster.gpus_per_worker)
    text = (
        f"{least} workers need {cpus} CPUs and {gpus} GPUs; there is room for {sum(room.values())} ({there}). "
        "Ask for fewer workers, or join more nodes to the cluster."
    )
    return [Finding(About.NODES, text)]
