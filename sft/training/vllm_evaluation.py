"""Measures whole models by what they answer in vLLM: one server after the other, of this machine."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sft.answering.asking import Ask, KeepAnswers
from sft.answering.completing import CompletingModel, longest_request
from sft.config import SftConfig
from sft.endpoint.client import EndpointClient
from sft.endpoint.endpoint import EndpointError, Patience
from sft.errors import TrainingError, UserError
from sft.model.architecture import read_config
from sft.model.positions import num_positions
from sft.progress import Tell
from sft.questions.question import Question
from sft.training.whole_evaluation import LoadedModel, Measurement, WholeModelPath
from sft.vllm.command import ServedFolder, VllmCommand
from sft.vllm.server import VllmServer, serving

_PATIENCE = Patience(at_once=256, seconds=3600.0, seconds_in_all=3600.0, retries=1, most_bytes=64 << 20)
"""vLLM orders the requests itself: the more it has, the fuller its batches. The server is ours, so it is watched
rather than doubted."""


@dataclass
class VllmModels:
    """`OpenModel` of models that vLLM serves."""

    command: VllmCommand
    minutes: float
    """How long a server may load."""
    say: Callable[[str], None]
    """Says what is waited for."""
    in_vain: Counter[str] = field(default_factory=Counter)
    """Why questions got no answer."""

    def of(self, model: WholeModelPath) -> WholeModelPath:
        """The model as vLLM computes with it: its answers are kept apart."""
        return model._replace(in_vllm=self.command.identity)

    @contextmanager
    def open(
        self, config: SftConfig, measurement: Measurement, model: WholeModelPath, tell: Tell
    ) -> Iterator[LoadedModel]:
        """See `OpenModel`.

        Raises:
            TrainingError: the server does not start, or ends before all is answered.
        """
        asked = measurement.asked
        if asked is None:
            raise UserError(
                "--vllm: models are measured by their answers alone there, and no prompt is asked. "
                "Set evaluate.answers_per_task=50, for example."
            )
        log = measurement.folder / f"{model.file_name}.vllm.log"
        self.say(f"{model.title}: vLLM loads the model; its output is in {log}")
        folder = _served(config, model, asked.questions)
        with serving(self.command, folder, log, self.minutes * 60) as server:
            self.say(f"{model.title}: vLLM answers")
            client = EndpointClient(server.endpoint, _PATIENCE)
            completing = CompletingModel(client, asked.style, asked.tokenizer, tell, self.in_vain)
            yield LoadedModel(None, _watched(completing.ask, server))


def _watched(ask: Ask, server: VllmServer) -> Ask:
    """As `ask`; the end of the server is the reason for all that gets no answer then."""

    def watched(questions: Sequence[Question], keep: KeepAnswers) -> None:
        try:
            ask(questions, keep)
        except EndpointError:
            if ended := server.how_it_ended():
                raise TrainingError(f"{ended} {_GOES_ON}") from None
            raise
        if ended := server.how_it_ended():
            raise TrainingError(f"{ended} {_GOES_ON}")

    return watched


def _served(config: SftConfig, model: WholeModelPath, questions: Sequence[Question]) -> ServedFolder:
    """What the server is told; a prompt that is too long for the model is refused there, by itself."""
    positions = num_positions(read_config(config.model, model.path))
    needed = longest_request(questions)
    return ServedFolder(
        path=model.path,
        tokenizer=config.model.tokenizer or config.model.path,
        dtype=config.model.dtype,
        max_len_tokens=needed if positions is None else min(needed, positions),
        trust_remote_code=config.model.trust_remote_code,
    )


_GOES_ON = "What was answered is kept, and the same command goes on with the rest."
