"""Feedback speaks the student's language."""

import pytest

from cinnabar_grader import phrases
from cinnabar_grader.phrases import Language, known, language_of, phrase
from cinnabar_grader.semantic import Flag


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (("Ice floats.",), Language.ENGLISH),
        (("冰浮在水面上。",), Language.CHINESE),
        (("TCP 是面向连接的协议",), Language.CHINESE),
        (("the character 水 means water",), Language.ENGLISH),
        (("42", "冰为什么浮起来？"), Language.CHINESE),
        (("", ""), Language.ENGLISH),
        ((), Language.ENGLISH),
        (("Eis schwimmt.",), Language.ENGLISH),
    ],
)
def test_language_of(texts: tuple[str, ...], language: Language) -> None:
    assert language_of(*texts) is language


@pytest.mark.parametrize("flag", Flag)
@pytest.mark.parametrize("language", Language)
def test_every_flag_has_words(flag: Flag, language: Language) -> None:
    assert known(flag)
    assert phrase(language, flag)


def test_tables_have_the_same_phrases_with_the_same_words() -> None:
    words = {"right": 1, "correct": 2, "wrong": 3, "terms": "t"}
    keys = [key for key in ("correct", "choice_partial", "missing", "criterion_part") if known(key)]
    for language in Language:
        assert all(phrase(language, key, **words) for key in keys)
    english, chinese = phrases.TABLES[Language.ENGLISH], phrases.TABLES[Language.CHINESE]
    assert english.keys() == chinese.keys()
