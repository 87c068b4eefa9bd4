"""Measures a served model by what it writes, beside the whole models of a run."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from sft.answering.served import ServedModel
from sft.config import SftConfig
from sft.endpoint.client import EndpointClient
from sft.errors import UserError
from sft.progress import Tell
from sft.training.whole_evaluation import LoadedModel, Measurement, WholeModelPath


class ServedModels:
    """`OpenModel` of the model of an endpoint."""

    def __init__(self, client: EndpointClient) -> None:
        """Look whether it answers.

        Raises:
            EndpointError: it does not, or has no such model.
        """
        self._client = client
        self._endpoint = client.check()
        self.in_vain: Counter[str] = Counter()
        """Why questions got no answer."""

    @property
    def model(self) -> WholeModelPath:
        """How it is called, in tables and files."""
        endpoint = self._endpoint
        name = "/".join(endpoint.model.split("/")[-2:])
        return WholeModelPath(f"{name} at {urlsplit(endpoint.url).netloc}", f"{endpoint.url} {endpoint.model}")

    @contextmanager
    def open(
        self, config: SftConfig, measurement: Measurement, model: WholeModelPath, tell: Tell
    ) -> Iterator[LoadedModel]:
        """See `OpenModel`."""
        asked = measurement.asked
        if asked is None:
            raise UserError(
                "--endpoint: a served model is measured by its answers alone, and no prompt is asked. "
                "Set evaluate.answers_per_task=50, for example."
            )
        served = ServedModel(self._client, asked.style, asked.tokenizer, tell, self.in_vain)
        yield LoadedModel(None, served.ask)
