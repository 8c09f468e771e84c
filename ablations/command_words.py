"""Check the words behind ``ablate COMMAND`` before Hydra reads them, and give the word that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from ablations.command_table import COMMANDS
from ablations.errors import Problem, UserError
from ablations.terminal import override_word, quoted

__all__ = ["named_words", "require_document", "require_words", "wants_document"]

_ACTIONS = (("--run", "-r"), ("--multirun", "-m"), ("--cfg", "-c"), ("--info", "-i"))
_WITH_VALUE = frozenset(
    (
        *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
        *("--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
    )
)
_ALONE = frozenset(
    (
        *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"),
        *("--multirun", "-m", "--shell-completion", "-sc"),
    )
)


def require_words(command: str, words: Sequence[str]) -> None:
    """Refuse words that Hydra would answer with a traceback, or with its own usage.

    Raises:
        UserError: two actions at once, ``--study x``, or a value without its key.
    """
    problems = [*_several_actions(words), *_unknown(command, words)]
    if problems:
        raise UserError(problems)


def named_words(command: str, words: Sequence[str]) -> list[str]:
    """Return the words with the keys that a command gives to bare ones: ``diff A B`` is ``a=A b=B``."""
    keys = list(COMMANDS[command].positional)
    named = []
    for place, word in enumerate(words):
        of_a_flag = place > 0 and words[place - 1] in _WITH_VALUE
        if keys and word and "=" not in word and word[0] not in "-~" and not of_a_flag:
            word = f"{keys.pop(0)}={quoted(word)}"
        named.append(word)
    return named


def wants_document(words: Sequence[str]) -> bool:
    """Return whether the words ask for a JSON document: ``json=true``, and nothing of Hydra's own."""
    asked = [word for word in words if word.lstrip("+").partition("=")[0] == "json"]
    shown = {"--cfg", "-c", "--info", "-i", "--hydra-help"} & {w.partition("=")[0] for w in words}
    return bool(asked) and asked[-1].partition("=")[2].lower() == "true" and not shown


def require_document(command: str, words: Sequence[str]) -> None:
    """Refuse ``json=true`` where a command has no document.

    Raises:
        UserError: with the commands that have one.
    """
    having = [name for name, entry in COMMANDS.items() if entry.document is not None]
    if command not in having:
        problem = Problem(
            "json",
            f"ablate {command} prints no document",
            allowed=", ".join(having),
            do="leave it out",
        )
        raise UserError(problem)
    if {"-m", "--multirun"} & set(words):
        problem = Problem(
            "json", "a search prints no document", do="leave -m out, or read ablate ls json=true"
        )
        raise UserError(problem)


def _several_actions(words: Sequence[str]) -> Iterator[Problem]:
    flags = {word.partition("=")[0] for word in words}
    given = [names[0] for names in _ACTIONS if set(names) & flags]
    if len(given) > 1:
        yield Problem(
            " ".join(given),
            "only one of them can be given",
            do="leave --multirun out: --cfg and --info show the same config without it",
        )


def _unknown(command: str, words: Sequence[str]) -> Iterator[Problem]:
    """Yield what is written with dashes and is no flag of Hydra's, and values without a key."""
    taken: set[int] = set()
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        following = words[place + 1] if place + 1 < len(words) else ""
        if place in taken:
            continue
        if flag in _WITH_VALUE:
            taken |= set() if value else {place + 1}
            if not value and not following and flag not in ("--info", "-i"):
                yield Problem(flag, "needs a value", do=f"write {flag} and its value behind it")
        elif word.startswith("-") and flag not in _ALONE:
            if not value and following[:1] not in ("", "-") and "=" not in following:
                value = following
                taken.add(place + 1)
            yield _dashes(command, flag, value)
        elif word and "=" not in word and word[0] not in "-~":
            yield _no_key(command, word)


def _dashes(command: str, flag: str, value: str) -> Problem:
    key = flag.lstrip("-").replace("-", "_")
    meant = override_word(key, value) if value else f"{key}=…"
    flags = sorted(name for name in _ALONE | _WITH_VALUE if name[:2] == "--")
    close = difflib.get_close_matches(flag, flags, n=1, cutoff=0.8)
    other = f" or {close[0]}" if close else ""
    return Problem(
        flag,
        "options are written without dashes",
        do=f"write {meant}{other}; ablate {command} --help lists them",
    )


def _no_key(command: str, word: str) -> Problem:
    meant = override_word(COMMANDS[command].subject, word)
    return Problem(
        word,
        "a value without its key",
        allowed="KEY=VALUE, +KEY=VALUE, ~KEY, GROUP=OPTION",
        do=f"write {meant}? ablate {command} --help lists the keys",
    )
