"""Who speaks to the other ranks: `sft.ranks` alone. import-linter sees no parts of third parties, such as this one."""

import ast
from pathlib import Path

from tests.architecture.test_layout import PACKAGES, python_files

ALLOWED = {
    "sft/ranks/torch_ranks.py": "the collectives",
    "sft/ranks/process_group.py": "the group that they are of",
    "sft/engine/zero3_release.py": "a group that DeepSpeed has made",
    "launcher/preflight/gpu_gather.py": "a group that measures two GPUs, in a process of its own",
    "launcher/preflight/network.py": "a group that measures the network before there are ranks",
    "launcher/preflight/node_probe.py": "imported early, as it takes seconds",
}


def uses_torch_distributed(path: Path) -> bool:
    text = path.read_text()
    if "distributed" not in text:
        return False
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
    return any(f"{name}.".startswith("torch.distributed.") for name in names)


def test_only_the_ranks_call_collectives(root):
    using = {str(path.relative_to(root)) for path in python_files(root, *PACKAGES) if uses_torch_distributed(path)}
    assert using == set(ALLOWED)
