"""Images are looked up as a node would pull them, from a registry that speaks HTTP."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from components.preflight.findings import Finding
from components.preflight.image import look_at_trainer_image
from components.preflight.registry import read_reference
from components.preflight.settings import read_situation
from tests.ports import free_ports

DIGEST = "sha256:" + "ab" * 32
LOGIN = base64.b64encode(b"robot:s3cret").decode()


class Registry(ThreadingHTTPServer):
    """Has `open/image` for all, `closed/image` for who logs in; tokens are given out at /token."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str, str]] = []
        self.realm = f"http://{self.host}/token"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_HEAD(self) -> None:
        self.answer()

    do_GET = do_HEAD  # noqa: N815 - as http.server calls it

    def answer(self) -> None:
        url, given = urlsplit(self.path), self.headers.get("Authorization", "")
        self.server.asked.append((self.command, url.path, given))
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            token = f"{scope}-{'member' if given == f'Basic {LOGIN}' else 'guest'}".replace(":", ".")
            return self.send(200, json.dumps({"token": token}).encode())
        name, _, tag = url.path.removeprefix("/v2/").partition("/manifests/")
        if not given:
            challenge = f'Bearer realm="{self.server.realm}",service="test",scope="repository:{name}:pull"'
            return self.send(401, b"", ("WWW-Authenticate", challenge))
        scope = f"Bearer repository.{name}.pull-"
        allowed = {scope + "member"} | ({scope + "guest"} if name == "open/image" else set())
        if given not in allowed:
            return self.send(403, b"")
        assert "oci.image.index" in self.headers["Accept"]
        return self.send(200 if tag in ("v1", "latest", DIGEST) else 404, b"")

    def send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Registry() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def look(image: str) -> Finding:
    (found,) = look_at_trainer_image(read_situation({}, {"cluster": {"image": image}}, {}))
    assert bool(found.remedy) == (found.state != "ok")
    return found


def log_in(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    auths = {"auths": {registry.host: {"auth": LOGIN}}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps(auths))


def test_an_image_by_digest_that_the_registry_has_is_fine(registry: Registry) -> None:
    found = look(f"{registry.host}/open/image@{DIGEST}")
    assert found.state == "ok" and found.found.endswith("can be pulled, asked without credentials.")
    assert registry.asked[-1][:2] == ("HEAD", f"/v2/open/image/manifests/{DIGEST}")


def test_a_name_that_may_move_is_a_warning(registry: Registry) -> None:
    assert "it has no digest" in look(f"{registry.host}/open/image:v1").found
    for name in ("open/image", "open/image:latest"):
        found = look(f"{registry.host}/{name}")
        assert found.state == "warning" and "it is called latest" in found.found


def test_an_image_that_was_never_pushed_fails(registry: Registry) -> None:
    found = look(f"{registry.host}/open/image:v2")
    assert found.state == "failed" and "404" in found.found and "make push" in found.remedy


def test_a_private_image_is_unknown_without_credentials_and_found_with_dockers(
    registry: Registry, tmp_path: Path
) -> None:
    private = f"{registry.host}/closed/image@{DIGEST}"
    found = look(private)
    assert found.state == "unknown" and "403 without credentials" in found.found
    log_in(registry, tmp_path)
    assert look(private).found.endswith("asked with Docker's credentials.")
    assert "s3cret" not in repr(found) and LOGIN not in look(private).found


def test_a_password_goes_to_no_place_that_is_less_safe_than_the_registry(registry: Registry, tmp_path: Path) -> None:
    log_in(registry, tmp_path)
    registry.realm = "ftp://elsewhere/token"
    assert look(f"{registry.host}/closed/image@{DIGEST}").state == "unknown"
    assert all(not given for _, _, given in registry.asked)


def test_a_registry_that_is_not_there_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = look(f"127.0.0.1:{free_ports(1)[0]}/open/image@{DIGEST}")
    assert found.state == "unknown" and "it cannot be asked" in found.found


def test_names_are_read_as_container_runtimes_do() -> None:
    def read(name: str) -> tuple[str, str, str]:
        found = read_reference(name)
        assert found is not None
        return found.registry, found.name, found.digest or found.tag

    assert read("trainer") == ("docker.io", "library/trainer", "latest")
    assert read("team/trainer:1") == ("docker.io", "team/trainer", "1")
    assert read("localhost/trainer:1") == ("localhost", "trainer", "1")
    assert read(f"ghcr.io/team/a/trainer:1@{DIGEST}") == ("ghcr.io", "team/a/trainer", DIGEST)
    assert read("registry:5000/trainer") == ("registry:5000", "trainer", "latest")
    for wrong in ("", "Trainer", "a b", "x@sha256:12", "https://ghcr.io/x"):
        assert read_reference(wrong) is None
    assert look("No Image").state == "failed"
