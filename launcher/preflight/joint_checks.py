"""Checks for which driver and nodes work together: shared folders, connections, an all-reduce."""

from collections.abc import Mapping, Sequence

from launcher.preflight.comparison import DRIVER, check_connections, check_folder
from launcher.preflight.findings import About, Finding, same_on_many
from launcher.preflight.gpu_gather import Pair, find_slow_links, pairs_in_rounds
from launcher.preflight.network import AllReduce, Peer, summarize
from launcher.preflight.probes import Probes
from launcher.preflight.shared_folders import FolderAnswer, SharedFolder, reason_of, sees_mark


def check_folders(
    probes: Probes, folders: Sequence[SharedFolder], refused: Mapping[str, str], word: str
) -> list[Finding]:
    """Whether each folder is the same everywhere, while the driver's marks are there.

    Args:
        probes: of the nodes.
        folders: to check.
        refused: field → why the driver itself cannot use the folder; nodes are not asked then.
        word: a part of the names of the marks.
    """
    usable = [folder for folder in folders if folder.field not in refused]
    answers: dict[str, dict[str, FolderAnswer]] = probes.ask("use_folders", usable, word)
    findings = []
    for folder in folders:
        if folder.field in refused:
            findings += check_folder(folder, {DRIVER: refused[folder.field]})
        else:
            told = {node: answer[folder.field] for node, answer in answers.items()}
            findings += check_folder(folder, {node: _problem(folder, answer) for node, answer in told.items()})
    probes.ask("remove_marks", usable, word)
    return findings


def check_network(probes: Probes, word: str) -> tuple[AllReduce | None, list[Finding]]:
    """Whether each node reaches every other, and then how fast they are together: None if that was not measured."""
    heard: dict[str, Peer | str] = probes.ask("listen")
    findings = same_on_many(About.NETWORK, {name: a if isinstance(a, str) else None for name, a in heard.items()})
    peers = {name: answer for name, answer in heard.items() if isinstance(answer, Peer)}
    others = {name: ({n: peer for n, peer in peers.items() if n != name}, word) for name in peers}
    findings += check_connections(peers, probes.ask_each("reach", others))
    ranks = {name: rank for rank, name in enumerate(name for name in peers if name in probes.names)}
    if findings or len(ranks) < 2:
        return None, findings
    stores: dict[str, Peer | None] = probes.ask_each("begin_all_reduce", {n: (rank == 0,) for n, rank in ranks.items()})
    first = next(iter(ranks))
    if len(stores) < len(ranks):
        return None, []  # the lost node is a finding of its own
    asked = {name: (rank, len(ranks), stores[first]) for name, rank in ranks.items()}
    answers: dict[str, list[float] | str] = probes.ask_each("all_reduce", asked)
    seconds = [answer for answer in answers.values() if not isinstance(answer, str)]
    if len(seconds) == len(ranks):
        return summarize(seconds), []
    if len(answers) < len(ranks):
        return None, []
    return None, same_on_many(
        About.NETWORK,
        {n: f"the all-reduce failed: {answer}" for n, answer in answers.items() if isinstance(answer, str)},
    )


def check_gathers(probes: Probes, devices: Mapping[str, str]) -> list[Finding]:
    """How fast neighbours gather from each other; node → the device that it gathers on."""
    speeds: dict[Pair, float | str] = {}
    for pairs in pairs_in_rounds([name for name in devices if name in probes.names]):
        stores: dict[str, Peer] = probes.ask_each("open_store", {first: () for first, _ in pairs})
        asked = {
            node: (devices[node], stores[pair[0]], rank)
            for pair in pairs
            if pair[0] in stores
            for rank, node in enumerate(pair)
        }
        answers: dict[str, float | str] = probes.ask_each("gather", asked)
        for pair in pairs:
            of_pair = [answers[node] for node in pair if node in answers]
            if len(of_pair) == 2:  # a lost node is a finding of its own
                speeds[pair] = next((a for a in of_pair if isinstance(a, str)), None) or min(map(float, of_pair))
    return find_slow_links(speeds)


def _problem(folder: SharedFolder, answer: FolderAnswer) -> str | None:
    if answer.problem is not None or answer.mark is None:
        return answer.problem
    try:
        if sees_mark(folder.location, answer.mark):
            return None
    except OSError as error:
        return f"cannot be read by the driver: {reason_of(error)}"
    return "is not the driver's folder: the driver does not see what the node writes"
