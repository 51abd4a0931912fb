"""Answers that are no answers: empty, announcements without content, refusals, orders to the judge, shotgun lists, echoes.

Each test is about form, before any comparison of content, and true only where a careful person would not hesitate.
"""

from __future__ import annotations

import re

from judges.text import Words, bare, fold, words


def non_answer(question: str, gold: tuple[Words, ...], answer: str) -> str | None:
    """The rule (``empty``, ``no-content``, ``refusal``, ``injection``, ``echo``) that makes a non-matching answer wrong, or None.

    ``gold`` are the words of each accepted answer: gold ``None`` or ``0`` makes ``none`` no refusal.
    """
    text, found = bare(answer), words(bare(answer))
    if not any(character.isalnum() for character in text):
        return None if any(not "".join(accepted).isalnum() for accepted in gold) else "empty"
    if (_CONTENT_FREE.fullmatch(" ".join(found)) or _CONTENT_FREE.fullmatch("".join(found))) and not _is_meant(found, gold):
        return "no-content"
    if _REFUSAL.fullmatch(text.strip(" .!")) and not any(_NOTHING.match(" ".join(accepted)) for accepted in gold):
        return "refusal"
    if orders_the_judge(answer) and not any(orders_the_judge(" ".join(accepted)) for accepted in gold):
        return "injection"
    return "echo" if len(found) > 3 and found == words(fold(question)) else None


def orders_the_judge(answer: str) -> bool:
    """Whether the answer speaks to its grader."""
    return _ORDER.search(fold(answer)) is not None


def alternatives(answer: str) -> list[str]:
    """The parts of an answer that names several things without choosing: ``A or B``, ``A, B or C``, ``甲或乙``, ``22, 23, 24``.

    Fewer than two: it is no such answer. A part that explains (``also known as``, ``formed in 1990``) makes it none.
    """
    text = re.sub(
        r"^(?:It is |it is )?(?:[Ee]ither|[Mm]aybe|[Pp]erhaps|[Pp]robably|[Pp]ossibly|可能是|也许是|要么是?|是)\s*",
        "",
        answer.strip(" .。"),
    )
    parts = [part for part in re.split(rf"\s*,?\s*{_OR}\s*(?:maybe|perhaps|是)?\s*|\s*(?:[;、，；]|{_COMMA})\s*", text) if part]
    figures = all(part[0].isdigit() for part in parts)
    if not figures and not re.search(_OR, text):
        return []
    return parts if figures or all(_is_name(part) for part in parts) else []


def _is_name(part: str) -> bool:
    """Whether a part of an enumeration is a name or a single word, not a clause."""
    if re.search(r"[\u3400-\u9fff]", part):
        return len(part) <= 8 and not re.match(r"又|也|即|亦|别名|原名|后", part)
    return len(part.split()) <= 4 and (len(part.split()) == 1 or not part[0].islower() or part.startswith("the "))


def _is_meant(found: Words, gold: tuple[Words, ...]) -> bool:
    """Whether a word that is usually an announcement could be the answer: ``right`` (the side), ``correct`` (for yes)."""
    polar = any(_POLAR.fullmatch("".join(accepted)) for accepted in gold)
    return polar or any(word in accepted for accepted in gold for word in found if word not in ("the", "is"))


def _any_of(*forms: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{form})" for form in forms))


_COMMA = r",(?!(?<=\d,)\d{3}(?!\d))"  # 1,250 is one number
_OR = r"(?:\bor\b|或者?|还是|要么)"
_CONTENT_FREE = _any_of(
    r"(?:the )?(?:final |correct |short |true )?answer(?: is)?",
    r"(?:my )?(?:thought|thinking|reasoning)(?: process)?",
    r"(?:solution|explanation|analysis|response|result|output|conclusion|assistant|correct|right|okay|ok|sure|well|so|hmm)",
    r"step (?:1|one|by step)",
    r"lets (?:think|solve|work)(?: this| the)?(?: problem| question| it)?(?: out)?(?: carefully| step by step)*",
    r"(?:see|as) above|如上|见上文",
    r"思考过程|解(?:答|题)?(?:过程|思路)?|(?:最终|正确)?答案是?|分析|推理过程|结论|好的|回答",
    r"让我们(?:一步一?步)?地?(?:思考|分析|解决这?个?问题?)",
)
_REFUSAL = _any_of(
    r"(?:sorry,? )?(?:but )?i(?: really)? (?:do not|don't|did not|didn't) know(?: the answer)?",
    r"(?:sorry,? )?(?:but )?i (?:can't|cannot|could not|couldn't|am unable to|was unable to) (?:find|determine|answer)"
    r"(?: (?:it|this|that|the answer|an answer|the information|this question|the question))?",
    r"unknown|(?:i am |i'm )?not sure|no idea|n/?a|none|null|nothing|unanswerable|(?:the )?answer (?:is )?unknown",
    r"(?:it )?(?:cannot|can't|could not|couldn't) be determined|not (?:found|available|known)",
    r"(?:no|insufficient|not enough) (?:answer|information|data|results?)(?: (?:was |were )?(?:found|available))?",
    r"我?(?:真的)?(?:不知道|不清楚|不确定|无法(?:确定|回答|判断|得知))(?:答案)?|不详|未知|没有答案|查不到|无|暂无",
    r"(?:未|没有)(?:找|查)到(?:答案|相关信息|结果)?",
)
_POLAR = re.compile(r"yes|no|true|false|right|wrong|是|否|对|错|正确|错误")
_NOTHING = re.compile(r"(?:none?|no|0|zero|un\w+|nothing|nobody|never|not|na|null|n / a|without)\b|[无没零不未]")
_ORDER = _any_of(
    r"(?:ignore|disregard|forget|override)\b[^.!?]{0,40}\b(?:instructions?|prompts?|questions?|rubric|rules|gold|reference|ground truth)",
    r"(?:ignore|disregard|forget) (?:everything|all|anything|what(?:ever)?)\b[^.!?]{0,30}\b(?:above|before|previous|earlier|said)",
    r"(?:mark|grade|judge|score|rate|count|accept|treat|consider|evaluate|label)\b[^.!?]{0,40}\b(?:as|it|=)\s*['\"]?"
    r"(?:fully |completely |be )?(?:correct|right|true|a pass|100%|full marks)\b",
    r"(?:output|print|return|respond|reply)(?: only)?(?: with)?:? ['\"]?(?:correct|verdict|judge?ment)",
    r"\b(?:dear|note to(?: the)?|attention,?) (?:judge|grader|evaluator)|\b(?:grader|evaluator) ?:|as the (?:judge|grader|evaluator),? you",
    r"this (?:answer|response) (?:is|has been|was) (?:already |definitely |verified |always )*(?:correct|right|verified|approved)",
    r"system ?(?:message|prompt|override)|\b(?:judge?ment|verdict) ?: ?(?:correct|a\b)|\"(?:correct|score)\" ?: ?(?:true|1|100)",
    r"(?:忽略|无视).{0,20}(?:指令|问题|要求|规则|标准|提示|以上|之前|前面)",
    r"(?:判|评|标记|记|视|认)(?:定|断|分)?为?[\"“]?(?:正确|满分)|(?:输出|返回|回复)[\"“]?(?:正确|结论)|结论 ?: ?正确",
    r"(?:本|此|该|这个)(?:答案|回答)(?:是|为|已)(?:经)?(?:正确|验证|确认)|(?:尊敬的|致|请)评(?:审|分|判)(?:员|者|模型)?",
)
