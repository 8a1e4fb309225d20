"""What students read, in their language.

A table per language; a language without a table is answered in English.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

_LOOKED_AT = 400  # characters that tell the language


class Language(StrEnum):
    """A language that feedback is written in."""

    ENGLISH = "en"
    CHINESE = "zh"


def language_of(*texts: str) -> Language:
    """Language of the first text with letters; English when there is none."""
    for text in texts:
        letters = [character for character in text[:_LOOKED_AT] if character.isalpha()]
        if letters:
            han = sum("\u3400" <= character <= "\u9fff" for character in letters)
            return Language.CHINESE if han * 4 >= len(letters) else Language.ENGLISH
    return Language.ENGLISH


_ENGLISH: Mapping[str, str] = {
    "correct": "Correct.",
    "incorrect": "Not correct.",
    "no_answer": "No answer was given.",
    "choice_partial": "Partly correct: {right} of {correct} correct options, {wrong} incorrect.",
    "choice_wrong": "Not correct: {right} of {correct} correct options, {wrong} incorrect.",
    "choice_inexact": "Not correct: only exactly the correct options earn points here.",
    "number_off": "Not correct: the value is outside the accepted tolerance.",
    "number_invalid": "Not correct: this is not a finite number.",
    "unit_missing": "The value is right, but its unit is missing.",
    "unit_unknown": "The value is right, but the unit is not one that is accepted here.",
    "text_wrong": "Not correct: this is not one of the accepted answers.",
    "free_full": "The answer says what was asked for.",
    "free_most": "The answer says most of what was asked for.",
    "free_part": "The answer says part of what was asked for.",
    "free_little": "The answer says little of what was asked for.",
    "covered": "Covered: {terms}.",
    "missing": "Missing: {terms}.",
    "separator": ", ",
    "gap": " ",
    "review": "A person will look at this grade.",
    "criterion_full": "Covered.",
    "criterion_part": "Partly covered.",
    "criterion_none": "Not covered.",
    "EMPTY": "There is no answer to grade.",
    "REFUSAL": "The answer says that there is none.",
    "QUESTION_COPY": "The answer only repeats the question.",
    "OFF_TOPIC": "The answer seems to be about something else.",
    "NEGATION_MISMATCH": "The answer seems to say the opposite of what is right.",
    "CONTRADICTION": "A part of the answer seems to be the other way round.",
    "KEYWORD_LIST": "The answer lists terms without saying anything about them.",
    "WORD_SALAD": "The words are there, but not in an order that makes sense.",
    "INSTRUCTION_LIKE": "Text that addresses the grader does not count.",
    "SCRIPT_MISMATCH": "The answer is written in another script than was expected.",
    "TRUNCATED": "The answer is very long; only its beginning was graded.",
    "NOT_TEXT": "The file cannot be read: it is not text in UTF-8.",
    "EVIDENCE_MISSING": "Not all points are backed by passages of the answer.",
    "DISAGREEMENT": "Graded several times, the answer got different scores.",
    "LOW_CONFIDENCE": "The score is less sure than it should be.",
    "SECOND_OPINION": "A second grader came to quite another score.",
    "SAMPLES_MISSING": "The answer was graded fewer times than planned.",
    "CANARY": "The automatic grade did not count.",
}

_CHINESE: Mapping[str, str] = {
    "correct": "正确。",
    "incorrect": "不正确。",
    "no_answer": "没有作答。",
    "choice_partial": "部分正确：{correct} 个正确选项选中 {right} 个，错选 {wrong} 个。",
    "choice_wrong": "不正确：{correct} 个正确选项选中 {right} 个，错选 {wrong} 个。",
    "choice_inexact": "不正确：本题须恰好选出全部正确选项才得分。",
    "number_off": "不正确：数值超出允许的误差范围。",
    "number_invalid": "不正确：这不是一个有限的数。",
    "unit_missing": "数值正确，但缺少单位。",
    "unit_unknown": "数值正确，但单位不在可接受的范围内。",
    "text_wrong": "不正确：不在可接受的答案之中。",
    "free_full": "回答完整。",
    "free_most": "回答了大部分要点。",
    "free_part": "回答了部分要点。",
    "free_little": "回答的要点很少。",
    "covered": "已答出：{terms}。",
    "missing": "缺少：{terms}。",
    "separator": "、",
    "gap": "",
    "review": "此评分将由人工复核。",
    "criterion_full": "已答出。",
    "criterion_part": "部分答出。",
    "criterion_none": "未答出。",
    "EMPTY": "没有可评分的内容。",
    "REFUSAL": "回答表示不作答。",
    "QUESTION_COPY": "回答只是重复了题目。",
    "OFF_TOPIC": "回答似乎与题目无关。",
    "NEGATION_MISMATCH": "回答的意思似乎与正确答案相反。",
    "CONTRADICTION": "回答中有一处似乎说反了。",
    "KEYWORD_LIST": "回答只罗列了词语，没有说明。",
    "WORD_SALAD": "词语都在，但语序不通。",
    "INSTRUCTION_LIKE": "对评分者说的话不计分。",
    "SCRIPT_MISMATCH": "回答使用的文字与要求不同。",
    "TRUNCATED": "回答过长，只评了开头部分。",
    "NOT_TEXT": "文件无法读取：不是 UTF-8 文本。",
    "EVIDENCE_MISSING": "部分得分在回答中没有依据。",
    "DISAGREEMENT": "多次评分的结果不一致。",
    "LOW_CONFIDENCE": "评分的把握不够。",
    "SECOND_OPINION": "另一评分器给出了很不同的分数。",
    "SAMPLES_MISSING": "评分次数少于计划。",
    "CANARY": "自动评分未予采用。",
}

TABLES = {Language.ENGLISH: _ENGLISH, Language.CHINESE: _CHINESE}


def phrase(language: Language, key: str, **words: object) -> str:
    """The phrase of ``key``; KeyError for a key that is in no table."""
    template = TABLES[language][key]
    return template.format_map(words) if words else template


def known(key: str) -> bool:
    """Whether there is a phrase of this key."""
    return key in _ENGLISH
