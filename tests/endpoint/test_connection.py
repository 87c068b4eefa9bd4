"""What HTTP does to a client: connections, certificates, proxies, and whom the key reaches."""

import gzip
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from sft.endpoint import connection
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.endpoint.connection import asked_pause
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience
from tests.endpoint.chat_server import KEY, chat_server
from tests.endpoint.raw_server import Line, raw_server, sends, whole

FINE = json.dumps({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}).encode()
ONE_TRY = Patience(at_once=1, seconds=5, seconds_in_all=8, retries=0, most_bytes=100_000)


@pytest.fixture(autouse=True)
def key_and_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def asked(url: str, num: int = 1, patience: Patience = ONE_TRY) -> list[ChatReply | NoReply]:
    found: list[ChatReply | NoReply] = []
    requests = (ChatRequest(str(number), [{"role": "user", "content": str(number)}], 8) for number in range(num))
    EndpointClient(Endpoint(url, "tiny"), patience).chat_all(requests, lambda _, outcome: found.append(outcome))
    return found


def texts(found: list[ChatReply | NoReply]) -> list[str]:
    return [one.text if isinstance(one, ChatReply) else f"none: {one.reason}" for one in found]


def outcome_of(sent: bytes) -> str:
    """Of a request to which a server answers this, and hangs up."""
    with raw_server(lambda line: line.send(sent * bool(line.request()))) as (port, _):
        return texts(asked(f"http://127.0.0.1:{port}/v1"))[0]


def test_many_are_asked_at_once_and_each_connection_is_used_again() -> None:
    num_lines = 0

    def talk(line: Line) -> None:
        nonlocal num_lines
        num_lines = max(num_lines, line.number)
        while line.request():
            if line.number == len(lines):
                everyone.set()
            everyone.wait(10)
            line.send(whole(FINE))

    lines, everyone = range(128), threading.Event()
    with raw_server(talk) as (port, heads):
        found = asked(f"http://127.0.0.1:{port}/v1", 512, Patience(at_once=128, seconds=20, retries=0))
    assert texts(found) == ["fine"] * 512
    assert (num_lines, len(heads)) == (128, 512)


def test_a_connection_that_the_server_has_closed_between_two_requests_is_no_failure() -> None:
    def talk(line: Line) -> None:
        line.request()
        line.send(whole(FINE))
        line.request()  # and is gone

    with raw_server(talk) as (port, heads):
        assert texts(asked(f"http://127.0.0.1:{port}/v1", 4)) == ["fine"] * 4
    assert len(heads) == 7  # all but the first met a closed connection


def test_a_new_connection_that_ends_without_an_answer_is_a_failure_and_asked_no_more_than_agreed() -> None:
    def hangs_up(line: Line) -> None:
        line.request()

    with raw_server(hangs_up) as (port, heads):
        assert "disconnected" in texts(asked(f"http://127.0.0.1:{port}/v1"))[0]
    assert len(heads) == 1


def test_a_connection_that_is_not_made_in_time_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as waiting:
        address = listening.getsockname()
        for _ in range(3):  # nobody takes them, so the system answers to no more
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}/v1"
        assert texts(asked(url)) == ["none: no connection within 0.3 seconds"]
        with pytest.raises(EndpointError, match=r"nothing answers at .*: no connection within 0\.3 seconds"):
            EndpointClient(Endpoint(url), ONE_TRY).check()


def test_when_time_is_over_connections_are_closed() -> None:
    closed = threading.Event()

    def talk(line: Line) -> None:
        line.request()
        if not line.request():
            closed.set()

    with raw_server(talk) as (port, _):
        client = EndpointClient(Endpoint(f"http://127.0.0.1:{port}/v1", "tiny"), ONE_TRY)
        client.chat_all([ChatRequest("", [], 8)], lambda *_: None, max_seconds=0.2)
        assert closed.wait(2)


@pytest.mark.parametrize(
    ("path", "sent_to"),
    [("/v1", "/v1"), ("/v1/", "/v1"), ("", ""), ("/a/b%2Fc/v1//", "/a/b%2Fc/v1"), ("/v1?", "/v1"), ("/ü", "/%C3%BC")],
)
def test_what_is_asked_stands_behind_the_path_of_the_address(path: str, sent_to: str) -> None:
    with raw_server(sends(whole(FINE))) as (port, heads):
        assert texts(asked(f"http://127.0.0.1:{port}{path}")) == ["fine"]
    assert heads[0].startswith(f"POST {sent_to}/chat/completions HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n" in heads[0]
    assert f"Authorization: Bearer {KEY}\r\n" in heads[0]


def test_who_pays_is_sent_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(sends(whole(FINE))) as (port, heads):
        asked(f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-2")
        asked(f"http://127.0.0.1:{port}/v1")
    assert "OpenAI-" not in heads[0]
    assert "OpenAI-Organization: org-1\r\nOpenAI-Project: proj-2\r\n" in heads[1]


def test_a_prompt_of_megabytes_is_sent_whole_and_again() -> None:
    with chat_server(lambda content: str(len(content["messages"][0]["content"]))) as server:
        server.num_cut_off = 1
        prompt, found = [{"role": "user", "content": "x" * 3_000_000}], []
        client = EndpointClient(Endpoint(server.url, "tiny"), ONE_TRY)
        client.chat_all([ChatRequest("", prompt, 8)], lambda _, outcome: found.append(outcome))
    assert texts(found) == ["3000000"]


def test_an_address_of_ipv6_is_asked() -> None:
    with raw_server(sends(whole(FINE)), "::1") as (port, heads):
        assert texts(asked(f"http://[::1]:{port}/v1")) == ["fine"]
    assert f"Host: [::1]:{port}\r\n" in heads[0]


NO_UTF8, READ = FINE.replace(b"fine", b"f\xff\xfe"), "f\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
STRANGE = {
    "no UTF-8": (whole(NO_UTF8), READ),
    "a mark of UTF-8": (whole(b"\xef\xbb\xbf" + FINE), "fine"),
    "another success": (whole(FINE, status="201 Created"), "fine"),
    "nothing": (whole(b"", status="204 No Content"), "none: nothing"),
    "a bomb": (whole(gzip.compress(bytes(50 << 20), 1), "Content-Encoding: gzip\r\n"), "is compressed ('gzip')"),
    "deep": (whole(b"[" * 90_000), "what came is no JSON"),
    "digits": (whole(b'{"choices": ' + b"1" * 9000 + b"}"), "what came is no JSON"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
    "long head": (whole(FINE, f"X-Long: {'x' * 200_000}\r\n"), "none: "),
    "no chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk"),
    "no length": (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "Content-Length"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "disconnected"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_answer_is_read_or_told_in_one_line(name: str) -> None:
    sent, told = STRANGE[name]
    outcome = outcome_of(sent)
    assert told in outcome
    assert outcome.isprintable()
    assert len(outcome) < 400


@pytest.mark.parametrize(
    ("status", "told"), [("200 OK", "larger than 100,000 bytes"), ("400 Bad Request", "status 400: 'xxx")]
)
def test_an_endless_answer_is_not_read_to_its_end(status: str, told: str) -> None:
    def talk(line: Line) -> None:
        line.request()
        line.send(f"HTTP/1.1 {status}\r\n\r\n".encode())
        while True:
            line.send(b"x" * (1 << 16))

    with raw_server(talk) as (port, _):
        assert told in texts(asked(f"http://127.0.0.1:{port}/v1"))[0]


def test_an_error_that_comes_in_pieces_is_told_whole() -> None:
    def talk(line: Line) -> None:
        line.request()
        line.send(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 32\r\n\r\n{"error": {"mess')
        time.sleep(0.1)  # else both may come in one packet
        line.send(b'age": "in two"}}')

    with raw_server(talk) as (port, _):
        assert texts(asked(f"http://127.0.0.1:{port}/v1")) == ["none: the server answers with status 400: 'in two'"]


@pytest.mark.parametrize("given", ["", "0", "-3", "1e9", "inf", "nan", "soon", "Mon, 99 Foo 2020", "9" * 400])
def test_a_retry_after_that_says_nothing_is_not_kept(given: str) -> None:
    assert asked_pause({"Retry-After": given}) is None


def test_retry_after_is_seconds_or_a_date() -> None:
    assert [asked_pause({"Retry-After": given}) for given in ("7", "0.25", "120")] == [7, 0.25, 120]
    pause = asked_pause({"Retry-After": formatdate(time.time() + 60, usegmt=True)})
    assert pause is not None
    assert 40 < pause <= 60
    assert asked_pause({"Retry-After": formatdate(time.time() - 60, usegmt=True)}) is None
    assert asked_pause({}) is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_not_followed(status: str) -> None:
    with chat_server() as other:
        sent = whole(b"", f"Location: {other.url}/chat/completions\r\n", status)
        with raw_server(sends(sent)) as (port, heads), pytest.raises(EndpointError, match="which is not followed"):
            asked(f"http://127.0.0.1:{port}/v1")
        assert (len(heads), other.asked) == (1, [])


def test_no_log_and_no_reason_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reasons = [
        outcome_of(whole(f"you sent {KEY}".encode(), status="400 Bad Request")),
        outcome_of(whole(f"you sent {KEY}".encode())),
        outcome_of(f"{KEY}\r\n".encode()),
        outcome_of(f"HTTP/1.1 200 OK\r\nX {KEY}\r\n\r\n".encode()),
    ]
    assert all(reason.startswith("none: ") for reason in reasons)
    assert KEY not in "".join(reasons) + caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of localhost, with its key, which nobody vouches for."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    about = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = f"openssl req -x509 {about} -addext subjectAltName=DNS:localhost -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def tls_server(certificate: Path) -> Iterator[tuple[int, list[str]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with raw_server(sends(whole(FINE)), tls=context) as served:
        yield served


def test_only_a_server_that_the_certificates_vouch_for_is_asked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_server(certificate) as (port, heads):
        url = f"https://localhost:{port}/v1"
        with pytest.raises(EndpointError, match=r"certificate verify failed.*SSL_CERT_FILE"):
            EndpointClient(Endpoint(url), ONE_TRY).check()
        assert heads == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert texts(asked(url, 3)) == ["fine"] * 3
        assert "IP address mismatch" in texts(asked(f"https://127.0.0.1:{port}/v1"))[0]
        assert len(heads) == 3


seen_by_proxy: list[bytes] = []


def tunnel(line: Line) -> None:
    """A proxy that opens tunnels to this machine."""
    head = line.request()
    if not head:
        return
    if "Proxy-Authorization: Basic a2ltOnNlc2FtZQ==" not in head:  # kim:sesame
        line.send(whole(b"", status="407 Proxy Authentication Required"))
        return
    target = socket.create_connection(("127.0.0.1", int(head.split()[1].partition(":")[2])))
    with target:
        line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        def pass_back() -> None:
            with suppress(OSError):  # closed
                while part := target.recv(1 << 16):
                    line.send(part)

        threading.Thread(target=pass_back, daemon=True).start()
        while part := line.socket.recv(1 << 16):
            seen_by_proxy.append(part)
            target.sendall(part)


def test_a_proxy_of_the_environment_opens_tunnels_and_sees_neither_key_nor_text(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server(certificate) as (port, heads), raw_server(tunnel) as (proxy_port, proxy_heads):
        url = f"https://localhost:{port}/v1"
        monkeypatch.setenv("HTTPS_PROXY", f"http://kim:sesame@127.0.0.1:{proxy_port}")
        assert texts(asked(url, 3)) == ["fine"] * 3
        assert len(proxy_heads) == 1
        assert proxy_heads[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n")
        assert b"messages" not in b"".join(seen_by_proxy)
        assert KEY not in proxy_heads[0] + b"".join(seen_by_proxy).decode(errors="replace")
        assert "sesame" not in "".join(heads)

        monkeypatch.setenv("HTTPS_PROXY", f"http://kim:mustard@127.0.0.1:{proxy_port}")
        (refused,) = texts(asked(url))
        assert refused == "none: the proxy answers with status 407: 'Proxy Authentication Required'"

        monkeypatch.setenv("HTTPS_PROXY", "kim:mustard@127.0.0.1:9")
        (away,) = texts(asked(url))
        assert away.startswith("none: the proxy: ")
        assert "mustard" not in away

        monkeypatch.setenv("NO_PROXY", "example.org,localhost")
        assert texts(asked(url)) == ["fine"]
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("HTTPS_PROXY")
        monkeypatch.setenv("ALL_PROXY", "socks5://kim:mustard@127.0.0.1:9")
        with pytest.raises(EndpointError, match=r"socks5://127.0.0.1:9, the proxy .* is none of HTTP.*NO_PROXY"):
            asked(url)
