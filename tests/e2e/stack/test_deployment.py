"""The container deployment is the same suite: same commands, same settings, same Envoy configuration."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinnabar_local import binaries
from cinnabar_local.checkout import deploy_folder
from cinnabar_local.credentials import Credentials
from cinnabar_local.ports import Ports
from cinnabar_local.process import ProcessSpec
from cinnabar_local.servers.bindings import descriptor_file, public_api
from cinnabar_local.servers.envoy import Endpoint, EnvoySettings, compose_settings, render
from cinnabar_local.servers.postgres import SETTINGS
from cinnabar_local.table import StackConfig, build_table

DATA_SERVERS = {"valkey": "redis", "seaweedfs": "minio"}


@pytest.fixture
def table(tmp_path: Path) -> dict[str, ProcessSpec]:
    """The rows of the local table by name; nothing is started."""
    built = build_table(
        StackConfig(data_dir=tmp_path),
        folder=tmp_path,
        ports=Ports(),
        credentials=Credentials(),
        identity=None,
    )
    return {row.name: row for row in built.rows}


@pytest.fixture
def compose() -> dict[str, Any]:
    """The services of the compose file."""
    return yaml.safe_load((deploy_folder() / "compose.yaml").read_text("utf-8"))["services"]


def test_compose_has_the_processes_of_the_table(
    table: dict[str, ProcessSpec], compose: dict[str, Any]
) -> None:
    assert set(compose) == {DATA_SERVERS.get(name, name) for name in table}


def test_services_have_the_commands_and_settings_of_the_table(
    table: dict[str, ProcessSpec], compose: dict[str, Any]
) -> None:
    services = {name: row for name, row in table.items() if row.env}
    assert {name.partition("-")[0] for name in services} == {"storage", "scheduler", "gateway", "grader"}
    for name, row in services.items():
        assert compose[name]["command"] == ["python", *row.command[1:]], name
        assert set(compose[name]["environment"]) == set(row.env), name


def test_services_are_started_in_the_order_of_the_table(
    table: dict[str, ProcessSpec], compose: dict[str, Any]
) -> None:
    for name, row in table.items():
        needs = {DATA_SERVERS.get(need, need) for need in row.needs}
        assert set(compose[DATA_SERVERS.get(name, name)].get("depends_on", {})) == needs, name


def test_every_long_running_service_has_a_health_check(compose: dict[str, Any]) -> None:
    assert {name for name, service in compose.items() if "test" not in service["healthcheck"]} == {
        "storage-migrate"
    }


def test_postgres_has_the_same_settings_in_containers(compose: dict[str, Any]) -> None:
    wanted = {f"-c{name}={value}".strip() for name, value in SETTINGS.items()}
    for name in ("postgres-0", "postgres-0-replica", "postgres-1", "postgres-1-replica"):
        program, *flags = compose[name]["command"]
        assert program == "postgres"
        assert set(flags) == wanted


def test_files_named_by_compose_exist_and_scripts_can_run(compose: dict[str, Any]) -> None:
    for name, service in compose.items():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                file = (deploy_folder() / source).resolve()
                assert file.is_file(), f"{name}: {target}"
                if file.suffix == ".sh":
                    assert file.stat().st_mode & stat.S_IXOTH, file
                    subprocess.run(["sh", "-n", str(file)], check=True)


def test_no_secret_is_written_in_the_compose_file() -> None:
    example = (deploy_folder() / "compose.env.example").read_text("utf-8")
    names = {line.rstrip("=") for line in example.splitlines() if line and not line.startswith("#")}
    text = (deploy_folder() / "compose.yaml").read_text("utf-8")
    assert all("${" + name in text for name in names)
    assert all(line.endswith("=") for line in example.splitlines() if line and not line.startswith("#"))


def test_the_committed_envoy_configuration_is_what_the_template_renders() -> None:
    committed = (deploy_folder() / "envoy" / "envoy.compose.yaml").read_text("utf-8")
    assert committed == render(compose_settings()), "run: python -m cinnabar_local render"


@pytest.mark.parametrize(
    "settings",
    [
        EnvoySettings(
            listen=Endpoint(host="127.0.0.1", port=20_001),
            admin=Endpoint(host="127.0.0.1", port=20_002),
            gateways=(Endpoint(host="127.0.0.1", port=20_003), Endpoint(host="127.0.0.1", port=20_004)),
            schedulers=(Endpoint(host="127.0.0.1", port=20_005),),
            descriptors=str(descriptor_file()),
            access_log="/dev/null",
        ),
        compose_settings(),
    ],
    ids=["local", "compose"],
)
def test_envoy_accepts_both_renderings(settings: EnvoySettings, tmp_path: Path) -> None:
    text = render(settings).replace(compose_settings().descriptors, str(descriptor_file()))
    config = tmp_path / "envoy.yaml"
    config.write_text(text, "utf-8")
    command = [str(binaries.envoy()), "--mode", "validate", "--config-path", str(config)]
    done = subprocess.run([*command, "--log-level", "warning"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr


def test_every_public_method_is_routed_and_transcoded() -> None:
    config = yaml.safe_load(render(compose_settings()))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    by_path = {route["match"]["path"]: route["route"] for route in routes if "path" in route["match"]}
    prefixes = [route["match"]["prefix"] for route in routes if "prefix" in route["match"]]
    transcoder = next(each for each in manager["http_filters"] if each["name"].endswith("transcoder"))
    for method in public_api().methods:
        assert method.service in transcoder["typed_config"]["services"]
        assert method.path in by_path or f"/{method.service}/" in prefixes
        retries_answers = "unavailable" in by_path.get(method.path, {}).get("retry_policy", {}).get(
            "retry_on", ""
        )
        assert retries_answers == method.reads, method.path
