"""Words as the field's caption metrics see them: Penn Treebank tokens, lower case, punctuation removed.

The field runs Stanford's Java tokenizer (CoreNLP 3.4.1, as pycocoevalcap ships it) on lines of captions and drops a
fixed list of signs. This module gives the same tokens for what captions hold; its rules were found by asking that
tokenizer. Like its lexer it takes, at each place, the rule that matches most text (what must follow a token counts
too), and of equally long ones the first.

Some peculiarities of the original are kept, since they change scores: brackets stay, as words like ``-lrb-``, as the
list of signs has them in capitals; so do runs of signs (``!!``, ``?!``), as it has only single ones; and ``/``, ``&``
and other symbols are words. Not followed: telephone numbers, rare currencies, emoticons of three signs, a
curly apostrophe within a word (``o’clock``, which is read as ``o'clock``).
"""

from __future__ import annotations

import re
from typing import Final

_REMOVED: Final = re.compile(r"''?|``?|\"|\.+|[?!,:;]|-{1,4}|[\U00010000-\U0010ffff]")
"""The list, with the runs of dots and hyphens that become one of it, and what the original cannot read."""

_ALIKE: Final = str.maketrans(
    {
        **dict.fromkeys("’\x92", "'"),
        **dict.fromkeys("‘‛‹\x91", "`"),
        **dict.fromkeys("“”«»\x93\x94", '"'),
        **dict.fromkeys("–—―\x96\x97", " -- "),
        **dict.fromkeys("‐‑", "-"),
        **dict.fromkeys("…\x85", " ... "),
        **dict.fromkeys("\u00ad\ufe0f", None),
        **dict.fromkeys("\u200b\ufeff\u200e\u200f", " "),
        **{"›": "'", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "},
        **{"¢": " cents ", "£": " # ", "€": " $ "},
    }
)
"""Signs that are read as others."""

_ENTITIES: Final = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}
_BRACKETS: Final = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_ABBREVIATIONS: Final = """
    adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt
    cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs ed.d elec ens esq est etc ext feb fla
    fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs
    mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph ph.d plc pres
    prof profs pte pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel
    tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo
"""
"""Words that keep their period."""
_CAPITALISED: Final = "ark az del ill la mass miss ore pa tex wash"
"""Those that keep it where they start with a capital, being words otherwise."""
_NUMBERED: Final = "art ca fig figs no nos op pp prop"
"""Those that keep it before a number."""
_STARTERS: Final = """
    a about according after an as at but earlier he her here however if in it last many more now once one other our she
    since so some such that the their then there these they this we what when while yet you
"""
"""Words that start a sentence, with a capital: the period of a single letter before one of them is not the letter's."""

_LETTER: Final = r"[^\W\d_]"
_ALNUM: Final = r"[^\W_]"
_WORD: Final = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
_NUMBER: Final = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_INITIALS: Final = r"[a-z](?:\.[a-z])*"
_PART: Final = rf"(?:[dol]['`]{_ALNUM})?{_ALNUM}+"
_SLASHED: Final = rf"{_ALNUM}+(?:-{_LETTER}+){{0,2}}"
_CLITIC: Final = r"'(?:[msd]|re|ve|ll)"


def _any(words: str) -> str:
    return "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))  # a regex takes the first that fits


def _capital(words: str) -> str:
    return "|".join(f"(?-i:{word[0].upper()}){word[1:]}" for word in words.split())


_RULES: Final = tuple(
    re.compile(rule, re.IGNORECASE)
    for rule in (
        # The first group that matches is the token; what must follow it comes after.
        r"(c\+\+|[cf]#)",
        r"(can)not",
        r"('t)was",
        r"(?:(gon|wan)na|(got)ta|(lem|gim)me|('t)is)[^a-z0-9]",
        r"(</?[a-z][^<>]*>|<![^<>]*>)",
        rf"({_WORD}){_CLITIC}",
        r"([a-z]*[a-mo-z])n['`]t",
        rf"({_WORD})",
        r"('n'?|(?:[ldj]|dunkin|somethin|ol)'|'em|'[2-9]0s|'till?|'cause|'twixt|cont'd\.?)",
        rf"((?-i:[A-HJ-XZn])['`]{_LETTER}{{2,}}|{_LETTER}+[aeiouy]['`](?-i:[aeiouA-Z]){_LETTER}*)",
        r"(nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
        rf"(y'){_LETTER}",
        r"(https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-])",
        r"((?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-z]{2,4}|(?:[^\s\"`'<>|.!?(){},_$/:-]+\.)+(?:com|net|org|edu))"
        r"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?)",
        r"([a-z0-9][^\s\"<>|()]*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().]+)",
        r"([@#][a-z_][a-z0-9_]*)",
        rf"({_CLITIC}|n['`]t)[^a-z]",
        r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})",
        rf"([-+]?{_NUMBER})",
        r"((?:\d{1,4}-)?\d{1,4}/\d{1,4})",
        rf"({_SLASHED}(?:/{_SLASHED}){{1,2}})",
        r"((?-i:[A-Z]*)\$|#)",
        rf"((?:{_any(_NUMBERED)})\.)\s?\d",
        rf"((?:{_any(_ABBREVIATIONS)}|{_capital(_CAPITALISED)}|{_INITIALS})\.)",
        rf"([a-z])\.\s+(?:{_capital(_STARTERS)})\s",
        rf"({_WORD}\.)[,;:]",
        r"('\d\d)\s",
        r"([:;=][-o*']?[()dp{@|[\]\\])[^a-z]",
        rf"(['`]){_LETTER}\S",
        rf"({_PART}(?:-{_PART})*)",
        rf"({_ALNUM}(?:{_ALNUM}|[.,])*(?:[-_](?:{_ALNUM}+|{_INITIALS}\.))+)",
        r"((?-i:[A-Z]+(?:[+&][A-Z]+)+))",
        r"(-+|\.{3,}|[?!]+|@+|_+|\*+|##+|<<|>>|[`']')",
        r"(\S)",
    )
)

_SPLIT: Final = frozenset(["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"])
_KEEPS_PERIOD: Final = frozenset(f"{_ABBREVIATIONS} {_CAPITALISED} {_NUMBERED}".split())


def tokenize(text: str) -> list[str]:
    """Return the tokens of a caption, whose end is read as if another one that starts with "A" followed."""
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    text = text.translate(_ALIKE)
    end, text = len(text), f"{text}\nA "
    tokens: list[str] = []
    done = 0
    for chunk in re.finditer(r"\S+", text[:end]):
        if chunk.start() < done:
            continue
        if (word := _plain(chunk.group())) is not None:
            tokens.append(word)
            continue
        done = chunk.start()
        while done < chunk.end():
            token = _next(text, done)
            done += len(token)
            tokens.append(_BRACKETS.get(token) or token.replace("(", "-lrb-").replace(")", "-rrb-").lower())
    return [token for token in tokens if not _REMOVED.fullmatch(token)]


def _plain(chunk: str) -> str | None:
    """The one token of most chunks, found without the rules; None if they are needed."""
    if chunk.isalpha():
        word = chunk.lower()
        return None if word in _SPLIT else word
    word = chunk[:-1].lower()
    if chunk[-1] in ".," and word.isalpha() and word not in _SPLIT:
        return None if chunk[-1] == "." and (len(word) == 1 or word in _KEEPS_PERIOD) else word
    return None


def _next(text: str, place: int) -> str:
    """Return the token that starts at a place which is no space."""
    found = [match for rule in _RULES if (match := rule.match(text, place))]
    longest = max(found, key=lambda match: match.end())
    return next(group for group in longest.groups() if group)
