"""Programs from the disk: what goes into the answer, what is uploaded, and what is refused."""

import io
import zipfile
from pathlib import Path

import pytest

from cinnabar.grader.v1.item_pb2 import CodeSpec, CustomSpec, Item
from cinnabar_client.convert import InvalidInput, answer_to
from cinnabar_client.programs import ZIP, read_program

CODE = Item(item="q", code=CodeSpec(language=CodeSpec.Language.PYTHON))
CUSTOM = Item(item="q", custom=CustomSpec(kind="verse"))


def write(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_one_source_is_a_text(tmp_path: Path) -> None:
    write(tmp_path, main_py="print('纸 \u202e😀')\r\n".encode())
    assert read_program("q", tmp_path / "main.py").answer == answer_to(CODE, "print('纸 \u202e😀')\r\n")


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    write(tmp_path, main_py=b"import lib.a", lib__a_py=b"x = 1", empty_txt=b"")
    write(tmp_path, **{"__pycache____main_pyc": b"\xff", "_hidden": b"\xff", "_git__config": b""})
    (tmp_path / "link.py").symlink_to(tmp_path / "main.py")
    files = {"empty.txt": "", "main.py": "import lib.a", "lib/a.py": "x = 1"}
    assert read_program("q", tmp_path).answer == answer_to(CODE, {"files": files})


@pytest.mark.parametrize(
    "content", [b"\xff\xfe latin", b"x" * 262_145], ids=["not UTF-8", "too large for an answer"]
)
def test_what_does_not_fit_is_uploaded(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, main_py=b"main", data__other=content)
    made = read_program("q", tmp_path)
    assert (made.answer, made.content_type) == (None, ZIP)
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "main.py": b"main",
            "data/other": content,
        }
    assert read_program("q", tmp_path).content == made.content
    alone = read_program("q", tmp_path / "data" / "other")
    assert (alone.answer, alone.content, alone.content_type) == (None, content, "text/plain")
    (tmp_path / "handed.zip").write_bytes(made.content)
    again = read_program("q", tmp_path / "handed.zip")
    assert (again.content, again.content_type) == (made.content, ZIP)


def test_many_files_are_uploaded_together(tmp_path: Path) -> None:
    for number in range(51):
        (tmp_path / f"f{number}.py").touch()
    assert read_program("q", tmp_path).content_type == ZIP


def test_what_cannot_be_handed_in_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no file"):
        read_program("q", tmp_path)
    (tmp_path / "my program.py").touch()
    with pytest.raises(InvalidInput, match=r"'my program.py' must be called by letters"):
        read_program("q", tmp_path)
    with pytest.raises(FileNotFoundError):
        read_program("q", tmp_path / "nothing.py")


def test_custom_items_take_anything() -> None:
    assert answer_to(CUSTOM, "roses").text == "roses"
    assert list(answer_to(CUSTOM, ["a", "b"]).choice.options) == ["a", "b"]
    assert answer_to(CUSTOM, {"choice": ["a"]}).choice.options == ["a"]
    assert answer_to(CUSTOM, {"number": 2, "unit": "m"}).number.unit == "m"
    assert answer_to(CUSTOM, {"files": {"a.txt": "x"}}).code.files[0].path == "a.txt"
    assert answer_to(CUSTOM, {"text": "x"}).text == "x"
    refused: tuple[object, ...] = ({"files": {}}, {"files": {"a": 1}}, {"files": "x"}, {"other": 1}, 7)
    for bad in refused:
        with pytest.raises(InvalidInput):
            answer_to(CUSTOM, bad)
    with pytest.raises(InvalidInput):
        answer_to(CODE, {"number": 1})
