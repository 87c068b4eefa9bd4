"""Where the prepared data and the plans of a run are: what its ranks are told, and what they open."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Workload:
    """Where the prepared data and the plans are.

    A stage that was extended has several plans. All ranks open the one named here, whatever their node sees already.
    """

    store: Path
    heldout: Path | None
    plans: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """The form in which it is sent to the workers."""
        heldout = str(self.heldout) if self.heldout else None
        return {"store": str(self.store), "heldout": heldout, "plans": list(map(str, self.plans))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Workload":
        """The inverse of `as_json`."""
        heldout = content["heldout"]
        return cls(Path(content["store"]), Path(heldout) if heldout else None, tuple(map(Path, content["plans"])))
