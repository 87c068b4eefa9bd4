"""The options of a verb that name a served model."""

import argparse

from sft.endpoint.endpoint import Endpoint
from sft.errors import UserError


def add_endpoint_arguments(parser: argparse.ArgumentParser, text: str) -> None:
    """Add them; `text` says what the server is asked for."""
    parser.add_argument("--endpoint", metavar="URL", help=text)
    text = "which model of the server. Default: the only one that it has"
    parser.add_argument("--endpoint-model", metavar="NAME", default="", help=text)
    text = "the variable that holds the key of the server. Default: OPENAI_API_KEY, if it is set"
    parser.add_argument("--endpoint-key-env", metavar="NAME", default="", help=text)


def endpoint_of(options: argparse.Namespace) -> Endpoint | None:
    """The server that the options name, if they do.

    Raises:
        UserError: they name a model or a key without a server.
    """
    if options.endpoint:
        return Endpoint(options.endpoint, options.endpoint_model, options.endpoint_key_env)
    if options.endpoint_model or options.endpoint_key_env:
        raise UserError("--endpoint-model and --endpoint-key-env need an --endpoint URL.")
    return None
