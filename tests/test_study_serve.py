"""`m4v-eval study serve` as a process: what it says, who may hold a study, and how it ends."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from evalkit.cli import main
from evalkit.errors import RunFailed
from evalkit.lock import holding
from evalkit.study.links import read_links
from evalkit.study.plan_file import LINKS, SECRET, VOTES
from evalkit.study.votes import VoteStore
from tests.served_study import Kit, link, make_plan, token, write_study
from tests.study_server import Server, serving

Command = Callable[..., "Refused"]
KIT = Kit(kinds=("vote",), n_raters=1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "study"
    write_study(folder, KIT)
    return folder


@pytest.fixture(scope="module")
def server(study: Path) -> Iterator[Server]:
    with serving(study) as running:
        yield running


@dataclass(frozen=True)
class Refused:
    returncode: object
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Refused]:
    """Run a command that is refused before anything is served."""

    def run(*arguments: object) -> Refused:
        monkeypatch.setattr(sys, "argv", ["m4v-eval", "study", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Refused(ended.value.code, capsys.readouterr().err)

    return run


def test_it_says_where_the_links_are(server: Server, study: Path) -> None:
    assert f"Raters:  {study / LINKS}, each link after {server.origin}\n" in server.said
    assert f"Admin:   {server.origin}{link('admin')}\n" in server.said
    assert "warning" not in server.said, "on this machine alone there is nothing to warn of"
    assert httpx.get(server.origin + link("admin")).status_code == 303
    names = {name.lower() for name in httpx.get(server.origin + "/nothing").headers}
    assert "server" not in names


def test_a_second_server_is_told_who_holds_the_study(server: Server, study: Path, command: Command) -> None:
    assert server.process is not None
    done = command(study, "--port", "0")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"{study} is in use. It is served by process {server.process.pid} on {socket.gethostname()}" in said
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(server: Server, tmp_path: Path, command: Command) -> None:
    write_study(tmp_path / "other", KIT)
    done = command(tmp_path / "other", "--port", server.port)
    assert done.returncode == 2
    assert f"Cannot listen on 127.0.0.1, port {server.port}" in done.stderr
    assert "--port" in done.stderr
    with holding(tmp_path / "other"):
        pass  # nobody holds it now


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--public-url", "study.example.org"], "no public URL"),
        (["--public-url", "https://example.org/study"], "has a path"),
        (["--host", "203.0.113.77"], "Cannot listen"),
        (["--port", "70000"], "--port"),
    ],
)
def test_wrong_options(tmp_path: Path, command: Command, options: list[str], words: str) -> None:
    write_study(tmp_path / "study", Kit(kinds=(), prompts={}, n_raters=0))
    done = command(tmp_path / "study", *options)
    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


@pytest.mark.parametrize("damage", ["nothing there", "no plan", "no secret", "no votes"])
def test_what_is_no_study(tmp_path: Path, command: Command, damage: str) -> None:
    study = tmp_path / "study"
    if damage != "nothing there":
        write_study(study, Kit(kinds=("vote",), prompts={"p": "a prompt"}, n_models=2, n_raters=1))
    if damage == "no plan":
        (study / "study.json").write_text("{}")
    if damage == "no secret":
        (study / SECRET).unlink()
    if damage == "no votes":
        (study / VOTES).write_bytes(b"not a database" * 999)
    done = command(study, "--port", "0")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert str(study) in done.stderr
    assert study.exists() == (damage != "nothing there"), "nothing is made where there is no study"


def test_beyond_this_machine_it_warns(tmp_path: Path) -> None:
    write_study(tmp_path / "study", KIT)
    server = Server(tmp_path / "study", "--host", "0.0.0.0", "--public-url", "http://study.example.org:8000")
    said = server.start().said
    try:
        assert f"http://study.example.org:8000{link('admin')}" in said
        port = int(said.partition("0.0.0.0:")[2].split()[0])
        for host, status in (("study.example.org", 303), ("192.0.2.7", 303), ("evil.example", 421)):
            asked = httpx.get(f"http://127.0.0.1:{port}{link('admin')}", headers={"Host": host})
            assert asked.status_code == status
    finally:
        code, rest = server.end()
    assert code == 0
    assert "TLS" in rest
    assert "warning" in rest


def test_after_ctrl_c_one_file_holds_the_votes(tmp_path: Path) -> None:
    study = tmp_path / "study"
    plan = write_study(study, KIT)
    with serving(study) as server, httpx.Client(base_url=server.origin) as client:
        client.get(link("r001"))
        page = client.get("/screen/0").text
        page_token = page.partition('"pageToken": "')[2].partition('"')[0]
        body = {"key": "key-00001", "screen": 0, "axis": plan.axes[0].name, "answer": [1, 2, 3]}
        headers = {"Origin": server.origin, "X-Study-Token": page_token}
        assert client.post("/answer", json=body, headers=headers).json() == {"revision": 1, "repeated": False}
        assert (study / f"{VOTES}-wal").stat().st_size > 0
    assert not (study / f"{VOTES}-wal").exists()
    assert len(VoteStore(study / VOTES).answers()) == 1
    assert make_plan(KIT) == plan


def test_a_killed_server_leaves_the_study_free(tmp_path: Path) -> None:
    write_study(tmp_path / "study", KIT)
    server = Server(tmp_path / "study").start()
    server.kill()
    server.start()
    assert server.end(signal.SIGTERM)[0] in (0, -signal.SIGTERM)


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    with holding(tmp_path, "It is imported into", private=True):
        assert (tmp_path / ".lock").stat().st_mode & 0o077 == 0
        with pytest.raises(RunFailed, match=r"is in use\. It is imported into by process"), holding(tmp_path):
            pass
        (tmp_path / "lock.json").write_text("{")
        with pytest.raises(RunFailed, match="By whom is not known"), holding(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    with holding(tmp_path):
        pass


def test_links_that_are_not_there(tmp_path: Path) -> None:
    assert read_links(tmp_path) == {}
    for text in (b"\xff\xfe", b"", b"a,b\n1,2\n", b"who,link\nr001\n"):
        (tmp_path / LINKS).write_bytes(text)
        assert read_links(tmp_path) == {}
    (tmp_path / LINKS).write_text(f"who,link\nadmin,/admin/{token('admin')}\n")
    assert read_links(tmp_path) == {"admin": link("admin")}
