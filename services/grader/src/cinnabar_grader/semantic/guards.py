"""Rules that speak before the regression, each with a reason code. Thresholds: see the model card's table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cinnabar_grader.semantic.features import Text, overlap, soft_recall
from cinnabar_grader.semantic.scores import Flag
from cinnabar_grader.semantic.text import Analysis, clauses

__all__ = ["Verdict", "guard", "is_refusal", "without_instructions"]

_REFUSALS: Final = frozenset(
    """i don't know|i do not know|i dont know|idk|dont know|don't know|do not know|no idea|i have no idea|not sure|i'm not sure
    |i am not sure|no response|no submission|empty submission|empty response|no answer|not answered|no answer given|unanswered
    |blank|left blank|n/a|na|skip|skipped|pass|i forgot|i can't remember|i don't remember|can't answer|i can't answer this question
    |i don't know the answer|i do not know the answer|sorry i don't know|sorry, i don't know|i don't understand the question
    |不知道|我不知道|不会|我不会|不清楚|我不清楚|不懂|看不懂|看不懂题目|不会做|我不会做|没学过|忘了|忘记了|我忘了|不了解|不明白|无|略|未作答|没有答案|不记得|对不起我不知道|抱歉我不知道|不太清楚
    |keine ahnung|weiß nicht|ich weiß es nicht|ich weiß nicht|je ne sais pas|aucune idée|no sé|no lo sé|ni idea|non lo so|não sei
    |ik weet het niet|не знаю|я не знаю|わかりません|分かりません|知らない|モルラ|모르겠습니다|모름""".replace(
        "\n    ", ""
    ).split("|")
)
_EDGES: Final = " .!?,;:-_~^*()[]'\"。！？，；：、…～（）"

_INSTRUCTION: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:instructions?|rubric|prompts?|guidelines?|grading|criteria|marking|rules above|reference answers?)\b",
        r"\b(?:give|award|grant|assign|grade|mark|score|rate)\b.{0,30}\b(?:full|maximum|max|perfect|top|all(?: the)?|highest|100 ?%|10/10|5/5)\b.{0,12}(?:\b(?:marks?|points?|scores?|credits?|grades?)\b|$)",
        r"\b(?:you are|act as|pretend to be|as) (?:now )?(?:an? |the )?(?:grader|examiner|ai|language model|assistant|teacher)\b",
        r"\b(?:system prompt|developer message|assistant:|system:|</?(?:system|instructions?|rubric|answer|student_answer)>)",
        r"\b(?:this|my) answer (?:is|should be) (?:completely |fully |100% )?(?:correct|right|perfect)\b.{0,20}\b(?:full|marks?|points?|score|grade|credit)",
        r"\b(?:dear|attention|note to(?: the)?|hello|hi) (?:grader|examiner|teacher|professor|ai)\b",
        r"(?:忽略|无视|忘记|不要理会|不用管|跳过).{0,20}(?:指令|指示|标准|规则|要求|提示|评分|参考答案|内容)",
        r"(?:给|打|判|评|得).{0,8}(?:满分|最高分|全分|100 ?分|10 ?分(?!钟|之))",
        r"(?:你是|作为|扮演).{0,8}(?:评分|阅卷|批改|老师|助手|人工智能|AI)",
        r"(?:系统提示|系统指令|老师(?:您)?好|尊敬的老师|阅卷老师)",
    )
)
_DENIAL: Final = re.compile(
    r"^\W*(?:(?:i think |i believe |actually,? )?(?:it is|it's|it was) (?:false|wrong|untrue|incorrect|not true|not correct|not the case|a lie|a myth) (?:that|to say)\b"
    r"|(?:the following|this|that|the (?:above|below|reference)) (?:statement |claim |answer )?(?:is|are) (?:false|wrong|untrue|incorrect|not true|not correct)\b"
    r"|(?:并非|并不是|不是说|说?(?:以下|下面|下列|上述|这种|这个)?(?:的)?(?:说法|叙述|陈述|内容|答案)?(?:是|都是)?(?:错误|错|假|不对|不正确|不成立)的?(?:[：:，,是]|$)))",
    re.IGNORECASE,
)
_LISTING: Final = re.compile(
    r"\b(?:name|list|state|enumerate|which|give (?:the|two|three|\d)|what are)\b|列举|列出|有哪些|写出|说出|哪些|哪几",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guards found."""

    flags: tuple[Flag, ...] = ()
    ceiling: float = 1.0
    """The fraction is at most this."""
    settled: bool = False
    """The score is 0 and the regression need not run."""


def is_refusal(text: str) -> bool:
    """The whole text says that there is no answer."""
    plain = text.lower().replace("’", "'").strip(_EDGES)
    return len(plain) < 60 and re.sub(r"\s+", " ", plain) in _REFUSALS


def without_instructions(text: str, *, dense: bool) -> tuple[str, bool]:
    """`text` without its sentences that address the grader, and whether there were any."""
    if not any(pattern.search(text) for pattern in _INSTRUCTION):
        return text, False
    kept = [
        piece
        for piece in clauses(text, dense=dense, limit=200)
        if not any(p.search(piece) for p in _INSTRUCTION)
    ]
    return ". ".join(kept), True


def guard(question: Text, references: Sequence[Text], best: Text, answer: Text) -> Verdict:
    """Judge an `answer` that has words and is no refusal. `best` is the closest of the `references`."""
    q, r, a = question.analysis, best.analysis, answer.analysis
    if _copies_question(q, [text.analysis for text in references], a):
        return Verdict((Flag.QUESTION_COPY,), 0.0, settled=True)
    flags: list[Flag] = []
    ceiling = 1.0
    if _off_topic(question, references, answer):
        flags.append(Flag.OFF_TOPIC)
        ceiling = min(ceiling, 0.2)
    if _negates(r, a):
        flags.append(Flag.NEGATION_MISMATCH)
        ceiling = min(ceiling, 0.2)
    if _lists_keywords(q, r, a):
        flags.append(Flag.KEYWORD_LIST)
        ceiling = min(ceiling, 0.5)
    if _is_salad(r, a):
        flags.append(Flag.WORD_SALAD)
        ceiling = min(ceiling, 0.2)
    if a.dense != r.dense and a.length >= 5 and r.length >= 5:
        flags.append(Flag.SCRIPT_MISMATCH)
    return Verdict(tuple(flags), ceiling)


def _copies_question(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    if answer.length < max(5, 0.5 * question.length) or not question.bigrams:
        return False
    _, precision, _ = overlap(question.bigrams, answer.bigrams)
    if precision < 0.8:
        return False
    new = answer.content.keys() - question.content.keys()
    return not any(new & reference.content.keys() for reference in references)


def _off_topic(question: Text, references: Sequence[Text], answer: Text) -> bool:
    if answer.analysis.length < 4:
        return False
    wanted = set(question.analysis.content).union(*(text.analysis.content for text in references))
    shared = len(wanted & answer.analysis.content.keys()) / max(1, len(answer.analysis.content))
    if answer.encoded is None or question.encoded is None:
        return shared < 0.08
    nearest = max(
        [float(answer.encoded.vector @ question.encoded.vector)]
        + [
            float(answer.encoded.vector @ text.encoded.vector)
            for text in references
            if text.encoded is not None
        ]
    )
    aligned = max(
        (soft_recall(text.encoded, answer.encoded) for text in references if text.encoded is not None),
        default=0.0,
    )
    return nearest + 0.5 * shared + 0.0 * aligned < 0.42


def _negates(reference: Analysis, answer: Analysis) -> bool:
    """A denial in front of what the reference says, where the reference has no such denial."""
    match = _DENIAL.search(answer.text)
    if match is None or _DENIAL.search(reference.text) or answer.length < 6:
        return False
    recall, precision, _ = overlap(reference.bigrams, answer.bigrams)
    return max(recall, precision) > 0.3


def _lists_keywords(question: Analysis, reference: Analysis, answer: Analysis) -> bool:
    if answer.length < 4 or reference.length < 8 or _LISTING.search(question.text):
        return False
    if reference.functions < 0.2 * reference.length and not reference.dense:
        return False
    _, precision, _ = overlap(reference.content, answer.content)
    if answer.dense:
        pieces = re.split(r"[\s,，、;；/]+", answer.text)
        return (
            len(pieces) >= 4
            and max(map(len, pieces)) <= 8
            and answer.functions <= 0.03 * answer.length
            and precision > 0.4
        )
    return answer.functions <= 0.05 * answer.length and len(answer.content) >= 4 and precision > 0.4


def _is_salad(reference: Analysis, answer: Analysis) -> bool:
    """Nearly all tokens are the reference's, hardly any two stand together as there."""
    if answer.length < 8 or reference.length < 8:
        return False
    wanted, found = set(reference.tokens), set(answer.tokens)
    shared = len(wanted & found) / len(found)
    _, neighbours, _ = overlap(reference.bigrams, answer.bigrams)
    return shared > 0.85 and neighbours < (0.3 if answer.dense else 0.2)
