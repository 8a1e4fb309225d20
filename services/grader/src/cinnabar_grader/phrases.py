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
    "STRAY": "A part of the answer has nothing to do with the question.",
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
    "code_passed": "{passed} of {count} tests passed.",
    "code_missed": "{count} were not run: the others took all the time that there is.",
    "code_ACCEPTED": "Passed.",
    "code_WRONG_ANSWER": "Another result than expected.",
    "code_TIME_LIMIT": "Took too long.",
    "code_MEMORY_LIMIT": "Used too much memory.",
    "code_OUTPUT_LIMIT": "Wrote too much.",
    "code_RUNTIME_ERROR": "Ended with an error.",
    "code_COMPILE_ERROR": "The program does not compile.",
    "code_FORBIDDEN": "Tried what no program may.",
    "code_INTERNAL": "The test itself is broken.",
    "code_NOT_RUN": "Not run.",
    "code_time": "The program was stopped: it may compute for {cpu:g} s and take {wall:g} s by the clock.",
    "code_memory": "The program used more memory than the {mib} MiB that it may.",
    "code_output": "The program was stopped: it wrote more than it may.",
    "code_forbidden": "The program was stopped: it tried what no program may here.",
    "code_exit": "The program ended with exit code {code}.",
    "code_signal": "The program was ended by {signal}.",
    "code_raised": "The program ended with {error}.",
    "code_compiler": "The compiler was stopped: the program takes too much to compile.",
    "code_broken": "This test is broken, which is no fault of the program.",
    "code_not_run": "Not run: the tests before took all the time that there is.",
    "code_differs": "The output first differs in line {line}: expected {expected}, found {found}.",
    "code_spaces": "The output differs from the expected one only in white space.",
    "code_nothing": "nothing",
    "code_returned": "{call} gave {found}, expected was {expected}.",
    "code_no_value": "The program ended before the call gave a value.",
    "code_no_main": "The file {path}, where the program begins, is missing.",
    "file_path": "The path {path} is not allowed for a file of a program.",
    "archive_broken": "The archive cannot be read: it is damaged, or no zip archive.",
    "archive_unreadable": "The archive cannot be read: it is encrypted or packed in an unusual way.",
    "archive_link": "The archive has something that is no plain file: {path}.",
    "archive_twice": "The archive has a file twice: {path}.",
    "archive_files": "There are too many files: at most {most} are allowed.",
    "archive_size": "The files are too large.",
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
    "STRAY": "回答中有一部分与题目无关。",
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
    "code_passed": "{count} 个测试通过 {passed} 个。",
    "code_missed": "有 {count} 个未运行：其他测试已用完全部时间。",
    "code_ACCEPTED": "通过。",
    "code_WRONG_ANSWER": "结果与预期不符。",
    "code_TIME_LIMIT": "超时。",
    "code_MEMORY_LIMIT": "内存超限。",
    "code_OUTPUT_LIMIT": "输出超限。",
    "code_RUNTIME_ERROR": "运行出错。",
    "code_COMPILE_ERROR": "程序无法编译。",
    "code_FORBIDDEN": "程序尝试了不允许的操作。",
    "code_INTERNAL": "测试本身有问题。",
    "code_NOT_RUN": "未运行。",
    "code_time": "程序被终止：最多可用 {cpu:g} 秒处理器时间、{wall:g} 秒实际时间。",
    "code_memory": "程序使用的内存超过了允许的 {mib} MiB。",
    "code_output": "程序被终止：输出超过了允许的量。",
    "code_forbidden": "程序被终止：它尝试了这里不允许的操作。",
    "code_exit": "程序以退出码 {code} 结束。",
    "code_signal": "程序被信号 {signal} 终止。",
    "code_raised": "程序因 {error} 结束。",
    "code_compiler": "编译被终止：编译此程序所需资源过多。",
    "code_broken": "此测试本身有问题，与程序无关。",
    "code_not_run": "未运行：之前的测试已用完全部时间。",
    "code_differs": "输出从第 {line} 行开始不同：应为{expected}，实为{found}。",
    "code_spaces": "输出与预期仅在空白字符上不同。",
    "code_nothing": "空",
    "code_returned": "{call} 得到 {found}，应为 {expected}。",
    "code_no_value": "程序在调用得出值之前就结束了。",
    "code_no_main": "缺少程序的起始文件 {path}。",
    "file_path": "程序文件不允许使用路径 {path}。",
    "archive_broken": "压缩包无法读取：已损坏，或不是 zip 格式。",
    "archive_unreadable": "压缩包无法读取：已加密，或压缩方式不常见。",
    "archive_link": "压缩包中有不是普通文件的内容：{path}。",
    "archive_twice": "压缩包中有重复的文件：{path}。",
    "archive_files": "文件过多：最多 {most} 个。",
    "archive_size": "文件过大。",
}

TABLES = {Language.ENGLISH: _ENGLISH, Language.CHINESE: _CHINESE}


def phrase(language: Language, key: str, **words: object) -> str:
    """The phrase of ``key``; KeyError for a key that is in no table."""
    template = TABLES[language][key]
    return template.format_map(words) if words else template


def known(key: str) -> bool:
    """Whether there is a phrase of this key."""
    return key in _ENGLISH
