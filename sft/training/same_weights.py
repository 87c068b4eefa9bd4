"""Each rank reads its own part of a model's weights, so all nodes have to hold the same.

A Hub model may have changed between the downloads of two nodes, and a path may be a disk of each node's own.
"""

from sft.errors import UserError
from sft.model.weight_files import content_sample, finder, weight_files
from sft.ranks.ranks import Ranks


def check_same_weights(model_path: str, ranks: Ranks) -> None:
    """Compare samples of the files, of one rank on each node; all ranks call it together.

    Raises:
        UserError: on all ranks: some nodes hold other weights than others.
    """
    world, mine = ranks.world, ""
    if world.local_rank == 0:
        mine = f"{content_sample(weight_files(model_path, finder(model_path, download=False)))} {world.node}"
    nodes: dict[str, list[str]] = {}
    for text in filter(None, ranks.gather(mine)):
        sample, _, node = text.partition(" ")
        nodes.setdefault(sample, []).append(node)
    if len(nodes) > 1:
        groups = "; ".join(sorted(", ".join(sorted(each)) for each in nodes.values()))
        raise UserError(
            f"model: the weights of {model_path} are not the same on all nodes. Nodes that hold the same: {groups}. "
            "Needed: a folder in a file system that all nodes share, or the same download on each of them.",
            is_everywhere=True,
        )
