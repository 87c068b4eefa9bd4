"""`python -m tests.approval.appending FILE REVIEWER NUM`: a process that appends so many decisions."""

import sys
from pathlib import Path

from sft.approval.decisions import Decision, DecisionFile

if __name__ == "__main__":
    file = DecisionFile(Path(sys.argv[1]))
    for i in range(int(sys.argv[3])):
        name = f"{sys.argv[2]}-{i}"
        file.append(Decision(name, f"r{i}", "reject", sys.argv[2], "2026-11-28T12:00:00Z", 1.5, "x" * 5000))
