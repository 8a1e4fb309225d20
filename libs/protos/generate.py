"""Writes everything that is generated from ``protos/``; run by ``make protos``.

Only ``protos/cinnabar/**`` is compiled: the ``google.api`` and ``google.rpc``
messages come from the ``googleapis-common-protos`` wheel, code and sources
alike. With ``--check`` nothing is written but what differs is named, with
``--sources`` only the latter are laid out, for buf.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
OUT = ROOT / "libs/protos/src"
GOOGLEAPIS = ROOT / ".build/googleapis"
# Named in no import, but Envoy needs them to print the details of an error.
ERROR_DETAILS = ("google/rpc/status.proto", "google/rpc/error_details.proto")


def copy_googleapis() -> None:
    """Lays the wheel's .proto files where buf and protoc find them; others may be reading there."""
    wheel = Path(annotations_pb2.__file__).parents[1]
    for package in ("api", "rpc"):
        for source in sorted((wheel / package).rglob("*.proto")):
            target = GOOGLEAPIS / "google" / source.relative_to(wheel)
            if target.exists() and filecmp.cmp(source, target, shallow=False):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
                part.write(source.read_bytes())
            Path(part.name).replace(target)


def compile_protos(out: Path) -> int:
    """Generates ``out``/cinnabar; returns protoc's exit code."""
    generated = out / "cinnabar"
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir(parents=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    include = [f"-I{PROTOS}", f"-I{GOOGLEAPIS}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    plugins = [
        f"--plugin=protoc-gen-{name}={_script(f'protoc-gen-{name}')}" for name in ("mypy", "mypy_grpc")
    ]
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")]
    code = protoc.main(["protoc", *include, *plugins, *outputs, *sources])
    if code == 0:
        descriptors = ["--include_imports", f"--descriptor_set_out={generated / 'descriptors.binpb'}"]
        code = protoc.main(["protoc", *include, *descriptors, *sources, *ERROR_DETAILS])
    for folder in (generated, *(path for path in generated.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()
    (generated / "py.typed").touch()
    return code


def differences(left: Path, right: Path) -> list[Path]:
    """Files, relative to either side, that are not the same on both."""
    names = {
        path.relative_to(side)
        for side in (left, right)
        for path in side.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not ((left / name).exists() and (right / name).exists())
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def _script(name: str) -> Path:
    """A program installed beside the interpreter, which need not be on PATH."""
    return Path(sys.executable).parent / name


def main(arguments: list[str]) -> int:
    copy_googleapis()
    if arguments == ["--sources"]:
        return 0
    if arguments != ["--check"]:
        return compile_protos(OUT)
    with tempfile.TemporaryDirectory() as folder:
        code = compile_protos(Path(folder))
        stale = differences(Path(folder) / "cinnabar", OUT / "cinnabar")
    for name in stale:
        sys.stderr.write(f"{name} is not what the protos give: run `make protos`\n")
    return code or bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
