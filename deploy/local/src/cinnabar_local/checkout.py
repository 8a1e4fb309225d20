"""Where the checkout is that this package runs from."""

from pathlib import Path


def checkout() -> Path:
    """The folder of the repository.

    Raises FileNotFoundError when the package was installed without it: the runner needs its templates.
    """
    folder = Path(__file__).resolve().parents[4]
    if not (folder / "deploy" / "envoy" / "envoy.yaml.j2").exists():
        raise FileNotFoundError("the stack runner must be run from a checkout of the repository")
    return folder


def deploy_folder() -> Path:
    """``deploy/`` of the checkout."""
    return checkout() / "deploy"
