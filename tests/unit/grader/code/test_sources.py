"""From answers to files: what students may send, and what is refused."""

import io
import stat
import zipfile
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_grader.code import archives, sources
from cinnabar_grader.code.archives import BadArchive, is_archive, unpack
from cinnabar_grader.code.sources import Refused, merged, student_files
from cinnabar_grader.graders import ArchiveAnswer, CodeAnswer
from cinnabar_grader.phrases import Language, phrase


def archive(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as written:
        for name, content in files.items():
            written.writestr(name, content)
    return target.getvalue()


def refused(answer: str | CodeAnswer | ArchiveAnswer) -> str:
    with pytest.raises(Refused) as caught:
        student_files(answer, main="main.py")
    assert phrase(Language.ENGLISH, caught.value.reason, **caught.value.words)
    assert phrase(Language.CHINESE, caught.value.reason, **caught.value.words)
    return caught.value.reason


def test_a_text_is_the_main_file() -> None:
    assert student_files("print(1)", main="main.py") == {"main.py": b"print(1)"}
    assert refused(" \n\t") == "no_answer"


def test_files_keep_their_paths() -> None:
    files = {"main.py": "import a.b", "a/b.py": ""}
    assert student_files(CodeAnswer(files), main="main.py") == {"main.py": b"import a.b", "a/b.py": b""}
    for path in ("../x", "/etc/passwd", "a//b", "a/./b", "ä.py", "a b", "x" * 201, "", ".", "a\n"):
        assert refused(CodeAnswer({path: "x"})) == "file_path"
    assert refused(CodeAnswer({"a": "x", "a/b": "y"})) == "file_path"
    assert refused(CodeAnswer({f"f{n}": "x" for n in range(51)})) == "archive_files"


def test_an_archive_is_its_files() -> None:
    content = archive(
        {"main.py": b"x = 1", "lib/a.py": b"", "__MACOSX/._main.py": b"?", "lib/.DS_Store": b"?"}
    )
    assert is_archive(content)
    assert student_files(ArchiveAnswer(content), main="main.py") == {"main.py": b"x = 1", "lib/a.py": b""}
    wrapped = archive({"work/main.py": b"x = 1", "work/lib/a.py": b""})
    assert student_files(ArchiveAnswer(wrapped), main="main.py") == {"main.py": b"x = 1", "lib/a.py": b""}


@pytest.mark.parametrize("path", ["../main.py", "/main.py", "a/../../main.py", "..\\main.py"])
def test_archives_that_lead_elsewhere_are_refused(path: str) -> None:
    assert refused(ArchiveAnswer(archive({path: b"x", "main.py": b"y"}))) == "file_path"
    assert refused(ArchiveAnswer(archive({path: b"x"}))) == "file_path"


def test_links_in_archives_are_refused() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        link = zipfile.ZipInfo("main.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        written.writestr(link, "/etc/passwd")
    assert refused(ArchiveAnswer(target.getvalue())) == "archive_link"


def test_archives_that_grow_are_refused() -> None:
    assert refused(ArchiveAnswer(archive({"main.py": b"0" * (sources.MAX_BYTES + 1)}))) == "archive_size"
    with pytest.raises(BadArchive, match="archive_size"):
        unpack(archive({f"f{n}": b"0" * 100 for n in range(5)}), max_files=50, max_bytes=450)


def test_archives_that_lie_about_sizes_are_refused() -> None:
    content = bytearray(archive({"main.py": b"0" * 100_000}))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")
    with pytest.raises(BadArchive):
        unpack(bytes(content), max_files=5, max_bytes=1_000)


def test_archives_of_too_many_files_are_refused() -> None:
    assert refused(ArchiveAnswer(archive({f"f{n}": b"x" for n in range(51)}))) == "archive_files"
    many = archive({f"{'f' * 100}{n}": b"" for n in range(3_000)})
    assert len(many) > archives.MAX_DIRECTORY_BYTES
    assert refused(ArchiveAnswer(many)) == "archive_files"


def test_other_archives_are_refused() -> None:
    good = archive({"main.py": b"x = 1" * 100})
    assert refused(ArchiveAnswer(good[:-10])) == "archive_broken"
    assert refused(ArchiveAnswer(b"PK\x03\x04")) == "archive_broken"
    assert refused(ArchiveAnswer(archive({"main.py": b"x"}, zipfile.ZIP_LZMA))) == "archive_unreadable"
    secret = bytearray(good)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        secret[secret.index(magic) + offset] |= 1
    assert refused(ArchiveAnswer(bytes(secret))) == "archive_unreadable"
    assert refused(ArchiveAnswer(archive({}))) == "no_answer"
    twice = archive({"main.py": b"a", "nain.py": b"b"}).replace(b"nain.py", b"main.py")
    assert refused(ArchiveAnswer(twice)) == "archive_twice"


@settings(max_examples=40)
@given(st.data())
def test_damaged_archives_never_break_the_reader(data: st.DataObject) -> None:
    content = bytearray(archive({"main.py": b"print(1)\n" * 5, "a/b.py": b"x"}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        files = unpack(bytes(content), max_files=10, max_bytes=10_000)
    except BadArchive:
        return
    assert sum(map(len, files.values())) <= 10_000


def test_the_files_of_the_item_win() -> None:
    own = {"main.py": b"mine", "lib": b"a file", "data/x.txt": b"mine", "kept.py": b"k"}
    given = {"main.py": b"theirs", "lib/a.py": b"theirs", "data": b"theirs"}
    assert merged(own, given) == {"kept.py": b"k", **given}
