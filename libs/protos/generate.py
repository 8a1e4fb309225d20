"""Writes everything that is generated from ``protos/``; run by ``make protos``.

Only ``protos/cinnabar/**`` is compiled: the ``google.api`` and ``google.rpc``
messages come from the ``googleapis-common-protos`` wheel, code and sources alike.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
OUT = ROOT / "libs/protos/src"
GOOGLEAPIS = ROOT / ".build/googleapis"
# Named in no import, but Envoy needs them to print the details of an error.
ERROR_DETAILS = ("google/rpc/status.proto", "google/rpc/error_details.proto", "google/api/httpbody.proto")


def copy_googleapis() -> None:
    """Lays the wheel's .proto files where buf and protoc find them."""
    wheel = Path(annotations_pb2.__file__).parents[1]
    shutil.rmtree(GOOGLEAPIS, ignore_errors=True)
    for package in ("api", "rpc"):
        for source in sorted((wheel / package).rglob("*.proto")):
            target = GOOGLEAPIS / "google" / source.relative_to(wheel)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def compile_protos() -> int:
    """Returns protoc's exit code."""
    generated = OUT / "cinnabar"
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir(parents=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    include = [f"-I{PROTOS}", f"-I{GOOGLEAPIS}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={OUT}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    code = protoc.main(["protoc", *include, *outputs, *sources])
    if code == 0:
        code = protoc.main(
            [
                "protoc",
                *include,
                f"--descriptor_set_out={generated / 'descriptors.binpb'}",
                "--include_imports",
                *sources,
                *ERROR_DETAILS,
            ]
        )
    for folder in (generated, *(path for path in generated.rglob("*") if path.is_dir())):
        (folder / "__init__.py").touch()
    (generated / "py.typed").touch()
    return code


def main() -> int:
    copy_googleapis()
    return compile_protos()


if __name__ == "__main__":
    sys.exit(main())
