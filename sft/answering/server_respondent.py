"""What answers to questions need of a server, however it is asked: by turns, or by token ids."""

from collections import Counter
from dataclasses import dataclass, field

from sft.answering.writing import Style
from sft.data.tokenization import ExampleTokenizer
from sft.endpoint.client import EndpointClient
from sft.progress import Tell


@dataclass
class ServerRespondent:
    """Is asked questions; what got no answer is counted by its reason."""

    client: EndpointClient
    style: Style
    tokenizer: ExampleTokenizer
    """The run's."""
    tell: Tell
    in_vain: Counter[str] = field(default_factory=Counter)
