"""A probe on each node, as a Ray actor that holds none of the node's resources.

A node that does not answer in time, or with an error, is lost: it is not asked again.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import ray
import ray._private.state
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.preflight.comparison import ClockOffset
from launcher.preflight.node_probe import NodeProbe

ANSWER_SECONDS = 120.0
"""The first import of torch, from a file system that all nodes read at the same time, takes a long time."""

_NUM_PINGS = 5

_DEAD_WITHIN_SECONDS = 30.0
"""Ray counts a node as dead a little after its processes are gone."""


class Node(NamedTuple):
    """A living node of the cluster; `name` is unique, `resources` and `free` are Ray's."""

    name: str
    id: str
    address: str
    resources: Mapping[str, float]
    free: Mapping[str, float]


class Loss(NamedTuple):
    """Why a node does not answer, and whether that may be because it is dead."""

    reason: str
    may_be_dead: bool


def list_nodes() -> list[Node]:
    """The living nodes that are not about to leave, by name."""
    leaving = ray._private.state.state.get_draining_nodes()
    known: list[dict[str, Any]] = ray.nodes()
    free = ray._private.state.state.available_resources_per_node()
    alive = [node for node in known if node["Alive"] and node["NodeID"] not in leaving]
    names = [_name(node) for node in alive]
    # Several nodes on one machine have its name.
    unique = [n if names.count(n) == 1 else f"{n}-{node['NodeID'][:6]}" for n, node in zip(names, alive, strict=True)]
    return sorted(
        Node(name, node["NodeID"], node["NodeManagerAddress"], node["Resources"], free.get(node["NodeID"], {}))
        for name, node in zip(unique, alive, strict=True)
    )


class Probes:
    """Asks all nodes the same question at the same time."""

    def __init__(self, nodes: Sequence[Node], answer_seconds: float) -> None:
        """Start the probes, without waiting for them."""
        self._nodes = {node.name: node for node in nodes}
        self._answer_seconds = answer_seconds
        self._actors: dict[str, Any] = {}
        self.lost: dict[str, Loss] = {}
        """The nodes that do not answer."""
        for node in nodes:
            there: Any = NodeAffinitySchedulingStrategy(node.id, soft=False)  # Ray's stubs know only other strategies
            remote = ray.remote(num_cpus=0, num_gpus=0, scheduling_strategy=there)(NodeProbe).remote
            self._actors[node.name] = remote(node.address, node.id)

    @property
    def names(self) -> list[str]:
        """The nodes that have answered so far."""
        return list(self._actors)

    def ask(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Node → its answer."""
        return self.ask_each(method, dict.fromkeys(self._actors, arguments))

    def ask_each(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """The same, with each node's own arguments; others are not asked."""
        asked = {name: getattr(self._actors[name], method).remote(*given) for name, given in arguments.items()}
        deadline = time.monotonic() + self._answer_seconds
        answers = {}
        for name, reference in asked.items():
            try:
                answers[name] = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
            except GetTimeoutError:
                self._lose(name, Loss(f"did not answer within {self._answer_seconds:g} s ({method})", False))
            except RayError as error:
                is_away = isinstance(error, ActorUnschedulableError | RayActorError)
                is_broken = isinstance(error, RayActorError) and error.actor_init_failed
                self._lose(name, Loss(f"cannot be asked: {_last_line(error)}", is_away and not is_broken))
        return answers

    def clock_offsets(self) -> dict[str, ClockOffset]:
        """How far each node's clock is from this machine's, by the quickest of several questions (Cristian's
        algorithm).

        The node read its clock at some time between question and answer. Taking the middle is wrong by at most half of
        that time.
        """
        offsets: dict[str, ClockOffset] = {}
        for name in self.names:
            for _ in range(_NUM_PINGS):
                asked, started = time.time(), time.perf_counter()
                answer = self.ask_each("clock", {name: ()})
                bound = (time.perf_counter() - started) / 2
                if not answer:
                    break
                if name not in offsets or bound < offsets[name].bound:
                    offsets[name] = ClockOffset(answer[name] - asked - bound, bound)
        return offsets

    def dead(self) -> set[str]:
        """Of the lost nodes, those that Ray counts as dead by now: no worker is placed there."""
        waited_for = {name for name, loss in self.lost.items() if loss.may_be_dead}
        deadline = time.monotonic() + _DEAD_WITHIN_SECONDS
        while True:
            alive = {node.id for node in list_nodes()}
            dead = {name for name in self.lost if self._nodes[name].id not in alive}
            if waited_for <= dead or time.monotonic() > deadline:
                return dead
            time.sleep(0.5)

    def end(self) -> None:
        """End all probes."""
        for name in self.names:
            self._kill(name)

    def _lose(self, name: str, loss: Loss) -> None:
        self.lost[name] = loss
        self._kill(name)

    def _kill(self, name: str) -> None:
        with suppress(RayError):
            ray.kill(self._actors.pop(name))


@contextmanager
def placed_probes(nodes: Sequence[Node], answer_seconds: float = ANSWER_SECONDS) -> Iterator[Probes]:
    """Probes on these nodes, as long as this is open."""
    probes = Probes(nodes, answer_seconds)
    try:
        yield probes
    finally:
        probes.end()


def _name(node: Mapping[str, Any]) -> str:
    given, address = str(node["NodeName"]), node["NodeManagerAddress"]
    return given if given != address else str(node["NodeManagerHostname"])


def _last_line(error: Exception) -> str:
    """What was raised, without Ray's words and the traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
