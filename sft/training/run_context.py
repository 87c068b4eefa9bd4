"""What a rank knows about its run, from the first stage to the last."""

from dataclasses import dataclass

from sft.config import SftConfig
from sft.data.staging import fetch_packs
from sft.run_folder import RunFolder
from sft.training.attempt import Attempt
from sft.training.control_signals import ControlSignals
from sft.training.prepared import Workload
from sft.training.staging import Fetch


@dataclass(frozen=True)
class RunContext:
    """What each rank gets from the code that starts it."""

    config: SftConfig
    workload: Workload
    """Where the prepared data is."""
    attempt: Attempt
    """This start of the job, with the ranks."""
    signals: ControlSignals
    """Requests that are checked between steps."""
    fetch: Fetch = fetch_packs
    """Copies packs to this node's disk, if `data.staging` asks for it."""
    engine: str | None = None
    """A name in `sft.engine.engines`; None: as the config says."""

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.config.run.dir)
