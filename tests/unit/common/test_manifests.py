"""The manifests for Kubernetes: what they set are settings, and their parts belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cinnabar_common.config import load
from cinnabar_gateway.config import GatewayConfig
from cinnabar_local.checkout import deploy_folder
from cinnabar_storage.config import StorageConfig

SECRETS = {
    "shards": "postgresql://a:b@c/d",
    "subject-key": "s" * 32,
    "redis-url": "redis://redis:6379/0",
    "s3-access-key": "access",
    "s3-secret-key": "secret",
    "token-key": "t" * 32,
}
OF_GATEWAY = {"token-key"}


@pytest.mark.parametrize(
    ("service", "config", "prefix"),
    [("storage", StorageConfig, "STORAGE_"), ("gateway", GatewayConfig, "GATEWAY_")],
)
def test_a_service_is_deployed_as_it_is_configured(
    tmp_path: Path, service: str, config: type[StorageConfig] | type[GatewayConfig], prefix: str
) -> None:
    text = (deploy_folder() / "k8s" / f"{service}.yaml").read_text("utf-8")
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    by_kind = {document["kind"]: document for document in documents}
    assert sorted(by_kind) == ["Deployment", "PodDisruptionBudget", "Service"]
    assert {document["metadata"]["name"] for document in documents} == {f"cinnabar-{service}"}
    deployment = by_kind["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert by_kind["Service"]["spec"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["maxUnavailable"] < deployment["replicas"]
    pod = deployment["template"]["spec"]
    assert pod["volumes"] == [{"name": "secrets", "secret": {"secretName": f"cinnabar-{service}"}}]
    [container] = pod["containers"]
    [mount] = container["volumeMounts"]
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret)
    settings = {
        one["name"]: one["value"].replace(f"file:{mount['mountPath']}", f"file:{tmp_path}")
        for one in container["env"]
    }
    files = {Path(value).name for value in settings.values() if value.startswith("file:")}
    assert files == (OF_GATEWAY if service == "gateway" else set(SECRETS) - OF_GATEWAY)
    assert all(name in text.partition("apiVersion")[0] for name in files)  # it says what the secret has
    loaded = load(config, prefix=prefix, env=settings)
    [port] = container["ports"]
    assert loaded.listen == f"0.0.0.0:{port['containerPort']}"
    assert {probe["grpc"]["port"] for name, probe in container.items() if name.endswith("Probe")} == {
        port["containerPort"]
    }
