"""A job that is submitted to a real Ray on this machine: what is sent, how it is followed, and what comes of it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ray.job_submission import JobSubmissionClient

from launcher.cli import main
from launcher.submission.ray_job_log import follow
from launcher.submission.shipped_package import read_package
from sft.checkpoint.local_storage import published_steps
from sft.errors import UserError
from sft.job_config import load_job
from sft.run_folder import RunFolder
from tests.cluster.running import ROOT, SFT, metrics, wait_until
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job
from tests.ray_folder import ray_folder

STEPS = {"broad": 2, "words": 60}
START_SECONDS = 200
CONFIG = """
run: {name: small, dir: /shared/run}
model: {path: owner/model}
data: {sources: [{name: only, path: owner/data, format: messages}], cache_dir: ~/cache}
stages: [{name: broad, budget: {epochs: 2}, optimizer: {lr: 1.0e-5}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


class LocalRay(NamedTuple):
    """A Ray on this machine that wants a token, its client, and the variables that say where the token is."""

    address: str
    client: JobSubmissionClient
    variables: dict[str, str]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[LocalRay]:
    """With two CPUs, and on free ports: this machine may have another Ray."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        port, client_port = (listener.getsockname()[1] for listener in listeners)
    with ray_folder() as folder:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2", "--port=0"]
        command += [f"--dashboard-port={port}", f"--ray-client-server-port={client_port}", f"--temp-dir={folder}"]
        command += ["--dashboard-agent-listen-port=0", "--object-store-memory=100000000", "--disable-usage-stats"]
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT)}
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, env=variables | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        )
        address = f"http://127.0.0.1:{port}"
        try:
            # The dashboard is there before the agent that starts jobs.
            wait_until(lambda: takes_jobs(address, token.read_text(), process), 120, "Ray takes no jobs")
            yield LocalRay(address, client_of(address, token.read_text()), variables)
        finally:
            process.terminate()
            process.wait(60)


def client_of(address: str, token: str) -> JobSubmissionClient:
    # Not by variables: Ray would keep to them in this process, which runs other tests.
    return JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})


def takes_jobs(address: str, token: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "Ray has ended; see its messages"
    with suppress(ConnectionError, RuntimeError):
        client_of(address, token).submit_job(entrypoint="true")
        return True
    return False


def test_a_dry_run_prints_what_would_be_sent_and_needs_no_cluster(
    clean: None, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "ray", str(config), "run.seed=7", "--dry-run", "--package", str(ROOT)]) == 0
    request, sent = yaml.safe_load_all(capsys.readouterr().out)
    assert request["entrypoint"] == "python -m launcher train config.yaml"
    assert int(request["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600, "a stop needs the time of a save"
    assert request["metadata"] == {"sft_run_dir": "/shared/run"}
    (tmp_path / "sent.yaml").write_text(yaml.safe_dump(sent))
    given, read = load_job(config, ["run.seed=7"]), load_job(tmp_path / "sent.yaml")
    assert (read.sft, read.cluster) == (given.sft, given.cluster)


def test_paths_of_this_machine_are_refused_all_at_once(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    changes = ["run.dir=runs/a", "data.cache_dir=cache", "checkpoint.dir=saved", "model.chat_template=chat.jinja"]
    changes += ["model.path=models/base", "model.tokenizer=./tokenizer", "data.sources.only.path=data/*.jsonl"]
    assert main(["submit", "ray", str(config), "--dry-run", *changes]) == 2
    message = capsys.readouterr().err
    assert "7 problems" in message
    for change in changes:
        field, _, value = change.partition("=")
        assert f"  {field}: '{value}'\n" in message
    # Ids on the Hub, URLs, and what a node finds in its own home.
    changes = ["model.path=gpt2", "model.tokenizer=owner/tokenizer", "checkpoint.dir=s3://bucket/run", "run.dir=~/run"]
    assert (
        main(["submit", "ray", str(config), "--dry-run", *changes, "data.sources.only.path=https://host/a.jsonl"]) == 0
    )


def test_secrets_in_urls_are_refused_and_not_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["data.sources.only.path=https://user:canary@host/a.jsonl", "checkpoint.dir=s3://canary:x@bucket/run"]
    assert main(["submit", "ray", str(config), "--dry-run", *changes]) == 2
    out, err = capsys.readouterr()
    assert "2 problems" in err
    assert "canary" not in out + err


def test_a_wheel_and_a_checkout_are_sent_alike_and_nothing_beside_the_program(tmp_path: Path) -> None:
    checkout, wheel = tmp_path / "checkout", tmp_path / "sft.whl"
    program = {f"{package}/{name}": b"1" for package in ("sft", "launcher") for name in ("__init__.py", "a/page.j2")}
    beside = (
        "data/big.jsonl",
        "README.md",
        "sft/__pycache__/a.pyc",
        "launcher/.hidden",
        ".git/config",
        "sft.egg-info/x",
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in (program | dict.fromkeys(beside, b"2")).items():
            path = checkout / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            archive.writestr(name, content)
    assert read_package(checkout) == read_package(wheel) == program

    (checkout / "sft" / "weights.bin").write_bytes(b"0" * (16 * 2**20 + 1))
    with pytest.raises(UserError, match="more than the limit of 16 MiB; sft/weights.bin has 16.0"):
        read_package(checkout)
    (tmp_path / "no.whl").write_text("this is no archive")
    with pytest.raises(UserError, match="this is not a wheel"):
        read_package(tmp_path / "no.whl")
    with pytest.raises(UserError, match="there are no packages sft and launcher in it"):
        read_package(tmp_path)


def test_another_program_than_the_submitters_ends_before_it_has_done_anything(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config), "--expect-source", "0123456789ab"]) == 2
    assert "submitted with the program 0123456789ab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "Which cluster? Give --address"),
        (["--address", "127.0.0.1:8265"], "give the URL of Ray's dashboard"),
        (["--address", "http://127.0.0.1:1"], "Failed to connect to Ray at address: http://127.0.0.1:1"),
        (["--address", "http://127.0.0.1:1", "--package", "nowhere"], "there are no packages sft and launcher"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_message(
    clean: None, config: Path, options: list[str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "ray", str(config), *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert reason in err
    assert "Traceback" not in err


@pytest.mark.long
@pytest.mark.timeout(900)
# Ray's client gives aiohttp an argument that is out of date.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
def test_left_stopped_and_submitted_again_the_job_goes_on_and_a_lost_connection_loses_no_line(
    local_ray: LocalRay, tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    content = two_stage_job("local", tmp_path, tiny_model_dir, small_records, STEPS)
    content |= {"ray": {"python": sys.executable}, "cluster": {"workers": 1, "preflight": False}}
    config, run = tmp_path / "local.yaml", RunFolder(tmp_path / "local")
    config.write_text(yaml.safe_dump(content))
    client = local_ray.client

    # Followed until Ctrl-C, which the job does not notice. The preflight compares the programs of driver and node.
    checkout = changed_checkout(tmp_path)
    with submitted(config, local_ray, tmp_path / "first.log", "cluster.preflight=true", package=checkout) as first:
        wait_until(lambda: "is on the cluster" in (tmp_path / "first.log").read_text(), 60, "it is not submitted")
        with submitted(config, local_ray, tmp_path / "second.log") as second:
            assert second.wait(60) == 2
        wait_for_more_steps(run, 2, first)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
    assert "is under way on this cluster: job local-1 is" in (tmp_path / "second.log").read_text()
    seen = (tmp_path / "first.log").read_text()
    assert "this is the checkout" in seen
    assert "nothing is wrong" in seen
    assert "No longer followed. Job local-1 goes on." in seen
    assert client.get_job_status("local-1") == "RUNNING"
    assert "canary" not in str(client.list_jobs())

    # Stopped: the checkpoint is that of the last step.
    client.stop_job("local-1")
    assert follow(client, "local-1") == 3
    stopped_at = len(metrics(run, "words"))
    assert max(published_steps(run.stage(1, "words").checkpoints)) == stopped_at < STEPS["words"]

    # Followed to its end over a connection that breaks.
    with (
        breaking_connection(local_ray.address) as (address, break_all),
        submitted(config, local_ray._replace(address=address), tmp_path / "third.log", only_stdout=True) as third,
    ):
        wait_for_more_steps(run, stopped_at, third)
        break_all()
        assert third.wait(START_SECONDS) == 0
    assert (tmp_path / "third.log").read_text() == client.get_job_logs("local-2")
    assert [line["step"] for line in metrics(run, "words")] == list(range(STEPS["words"]))

    # The exit code is the job's: 2, with its own message.
    with submitted(config, local_ray, tmp_path / "last.log", "data.sources.words.path=/nowhere.jsonl") as last:
        assert last.wait(START_SECONDS) == 2
    assert "/nowhere.jsonl" in (tmp_path / "last.log").read_text()


def wait_for_more_steps(run: RunFolder, num_steps: int, follower: "subprocess.Popen[bytes]") -> None:
    def are_there() -> bool:
        assert follower.poll() is None, "the job has ended by itself; see the log of its follower"
        return len(metrics(run, "words")) > num_steps

    wait_until(are_there, START_SECONDS, "it does not train")


def changed_checkout(folder: Path) -> Path:
    """A checkout whose program says that it is this one."""
    for name, content in read_package(ROOT).items():
        path = folder / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    path = folder / "checkout" / "launcher" / "__main__.py"
    path.write_text(path.read_text().replace("import sys", 'import sys\nprint("this is the checkout", flush=True)'))
    return folder / "checkout"


@contextmanager
def submitted(
    config: Path, ray: LocalRay, log: Path, *overrides: str, package: Path | None = None, only_stdout: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [*SFT, "submit", "ray", str(config), *overrides, "--address", ray.address]
    command += ["--package", str(package)] if package else []
    with log.open("wb") as file:
        errors: Any = subprocess.DEVNULL if only_stdout else file
        variables = ray.variables | {"HF_TOKEN": "canary"}
        process = subprocess.Popen(command, stdout=file, stderr=errors, cwd=ROOT, env=variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def breaking_connection(address: str) -> Iterator[Any]:
    """Another address for the same server, and a function that breaks every connection over it."""
    host, _, port = address.removeprefix("http://").partition(":")
    open_sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        break_both(source, sink)

    def break_both(*ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                open_sockets.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", lambda: break_both(*open_sockets)
        listener.shutdown(socket.SHUT_RDWR)
    break_both(*open_sockets)
    for end in open_sockets:
        end.close()
