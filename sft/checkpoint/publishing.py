"""What a thread of the first rank does for a save: wait for all parts, publish, delete old checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from sft import __version__
from sft.checkpoint.formats import FORMAT_VERSION
from sft.checkpoint.retention import Retention, checkpoints_to_delete, delete_checkpoints
from sft.checkpoint.storage import CheckpointStorage, SaveKey
from sft.checkpoint.tries import try_again

_FIRST_POLL_SECONDS, _LAST_POLL_SECONDS = 0.05, 1.0


@dataclass(frozen=True)
class Publisher:
    """Publishes saves of `world_size` ranks; the fields are those of `CheckpointSaver`."""

    storage: CheckpointStorage
    world_size: int
    retention: Retention
    report: Callable[[str], None]
    before_publish: Callable[[], None] | None
    pauses_seconds: Sequence[float]

    def publish(self, key: SaveKey, manifest: Mapping[str, Any], give_up: Event) -> None:
        """Publish a save once all ranks have written their part; return without publishing when told to give up.

        Raises:
            OSError: it could not be published.
        """
        if not self._all_parts_are_there(key, give_up):
            return
        about = {"kind": "checkpoint", "format": FORMAT_VERSION, "written_by": f"sft {__version__}"}
        about |= {"step": key.step, "world_size": self.world_size}
        receipts: dict[str, Any] = {}

        def publish() -> None:
            # A local storage removes the receipts when it publishes: a retry uses those of the first try.
            receipts.update(self.storage.receipts(key))
            if len(receipts) < self.world_size:
                raise FileNotFoundError(f"parts of {self.storage.where(key.step)} that were written are gone")
            spans = {name: receipt["spans"] for name, receipt in receipts.items()}
            if self.before_publish is not None:
                self.before_publish()
            self.storage.publish(key, {**about, **manifest, "spans": spans}, receipts)

        try_again(publish, f"publishing the checkpoint of step {key.step}", self.report, self.pauses_seconds)
        self._delete_old()

    def _all_parts_are_there(self, key: SaveKey, give_up: Event) -> bool:
        """Wait without a time limit; False when told to give up. A rank whose part is missing notices that itself."""
        what = f"counting the parts of the checkpoint of step {key.step}"
        num_seen, pause = 0, _FIRST_POLL_SECONDS
        while True:
            num_parts = try_again(lambda: self.storage.num_parts(key), what, self.report, self.pauses_seconds)
            if num_parts >= self.world_size:
                return True
            if num_parts != num_seen:
                num_seen = num_parts
                self.storage.progress.tell()
            if give_up.wait(pause):
                return False
            pause = min(2 * pause, _LAST_POLL_SECONDS)

    def _delete_old(self) -> None:
        try:
            published = [step for step in self.storage.steps() if self.storage.is_published(step)]
            old = checkpoints_to_delete(published, self.retention)
        except OSError as error:
            self.report(f"old checkpoints could not be listed, so none was deleted: {error}")
            return
        delete_checkpoints(self.storage, old, self.report)
