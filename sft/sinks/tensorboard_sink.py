"""Event files for TensorBoard, in a folder for each stage, written by TensorBoard's own package without torch.

When a restart goes back, a session begins at that step: TensorBoard then forgets the later steps that it had read.
"""

from collections.abc import Sequence

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sft.config_logging import LoggingConfig
from sft.sinks.sink import End, Point, Purpose


class TensorBoardSink:
    """Keeps a file open for each stage that it has written."""

    replaces = True
    id = ""

    def __init__(self, purpose: Purpose) -> None:
        """See `Sink`."""
        self._folder = purpose.tensorboard
        self.where = str(self._folder)
        self._writers: dict[str, EventFileWriter] = {}

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        """See `Sink`."""
        return ""

    def add(self, points: Sequence[Point]) -> None:
        """See `Sink`."""
        for point in points:
            writer = self._writers.get(point.stage) or self._open(point.stage)
            if point.rolls_back:
                start = SessionLog(status=SessionLog.START)
                writer.add_event(Event(wall_time=point.time, step=point.step, session_log=start))
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            writer.add_event(Event(wall_time=point.time, step=point.step, summary=Summary(value=values)))
        for stage in {point.stage for point in points}:
            self._writers[stage].flush()

    def close(self, end: End) -> None:
        """See `Sink`."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, stage: str) -> EventFileWriter:
        return self._writers.setdefault(stage, EventFileWriter(str(self._folder / stage)))
