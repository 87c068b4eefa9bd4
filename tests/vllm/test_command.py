"""The command that starts vLLM: what the user says, what a measurement adds, and what is refused."""

import sys
from dataclasses import replace

import pytest

from launcher.command_line import build_parser, parse
from launcher.vllm_options import vllm_of
from sft.errors import UserError
from sft.vllm.command import ServedFolder, read_command

FOLDER = ServedFolder("/a model", "/tokens", "bfloat16", 300)
PROGRAM = f"{sys.executable} serve"


def test_what_a_measurement_needs_is_added_and_what_the_user_says_counts() -> None:
    words = read_command(f"{PROGRAM} --dtype=float16 --max_model_len 4096 -tp 4").words(FOLDER, "name", 17)
    assert words[:7] == [sys.executable, "serve", "/a model", "--dtype=float16", "--max_model_len", "4096", "-tp"]
    assert words[-6:] == ["--served-model-name", "name", "--host", "127.0.0.1", "--port", "17"]
    assert words[words.index("--tokenizer") + 1] == "/tokens"
    assert words[words.index("--generation-config") + 1] == "vllm"
    assert not {"--dtype", "--max-model-len", "--trust-remote-code"} & {*words}
    assert "--trust-remote-code" in read_command(PROGRAM).words(replace(FOLDER, trust_remote_code=True), "name", 17)


def test_answers_are_apart_by_what_a_model_computes_with_and_not_by_how_it_fits() -> None:
    assert read_command(f"{PROGRAM} -tp 4 --enforce-eager --max_num_seqs=8").identity == ()
    assert read_command(f"{PROGRAM} --quantization fp8 -tp 4 --seed -1").identity == (
        *("--quantization", "fp8"),
        *("--seed", "-1"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evaluate.shots=[0]", "does not start vLLM.*at the end of the line"),
        ("", "does not start vLLM"),
        ("vllm 'serve", "is no command: No closing quotation"),
        ("/nowhere/bin/vllm", "/nowhere/bin/vllm is not found here.*environment of its own"),
        (f"{PROGRAM} /models/other -tp 4", "leave out /models/other: which models are served, --model says"),
        (f"{PROGRAM} --port=9 --api_key x", "leave out --port, --api-key: each model gets a server"),
    ],
)
def test_what_starts_no_server_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_command(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vllm", "--endpoint", "http://127.0.0.1:1/v1"], "give one of them"),
        (["--vllm-minutes", "5"], "--vllm-minutes needs --vllm"),
        (["--vllm", PROGRAM, "--vllm-minutes", "0"], "give a number above 0"),
    ],
)
def test_options_that_contradict_are_refused(words: list[str], message: str) -> None:
    options = parse(build_parser(), ["evaluate", "my.yaml", *words])
    with pytest.raises(UserError, match=message):
        vllm_of(options)
