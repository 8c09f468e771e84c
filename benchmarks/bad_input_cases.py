"""Make the bad command lines of benchmarks/bad_input.py: seeded, over all commands."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bad_input_named import NAMED, OF_RUNS, Case

ROOT = Path(__file__).resolve().parents[1]

VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "1e3", "1e400", "99999999999999999999", "-0.5", "3.7"),
    *(
        "true",
        "false",
        "maybe",
        "null",
        "''",
        "' '",
        "abc",
        "auto",
        "?",
        "???",
        "[]",
        "{}",
        "[1,2]",
    ),
    *("{a:1}", "{1:2}", "{true:1}", "[[]]", "[null]", "{a:{b:{c:1}}}", "[abc,1,null]", "'a b'"),
    *("'..'", "'../x'", "/", "/dev/null", "/proc/self/mem", "'~'", "'a/b'", "'$(id)'", "'`id`'"),
    *("'é'", "'\U0001f600'", "'<!--'", "'a\tb'", "'#'", "'%s'", "'{}'", "'*'", "'demo_*'"),
    *("${oc.env:HOME}", "${nothing}", "${study}", "${oc.env:NOTHING}", "${a", "${}", "${seed}"),
    "x" * 300,
    "'" + "y" * 5000 + "'",
    "[" * 80 + "]" * 80,
    "{a:" * 80 + "1" + "}" * 80,
)
"""Values that some field, somewhere, does not expect."""

BROKEN_WORDS = (
    *("", "=", "==", "a", "a=", "=a", "+", "~", "++", "+a=", "a==b", "a=b=c", "a.b.c", ".a=1"),
    *("a.=1", "a..b=1", "+a..b=1", "[a]=1", "a[0]=1", "a=[1", "a={1", "a='", 'a="', "a=(", "a=${"),
    *("--nope", "--cfg", "--cfg=nope", "-m", "--info", "--package", "--config-dir", "--run", "-c"),
    *("--config-dir=/nowhere", "--config-dir=/dev/null", "--config-name=nope", "--config-path=/x"),
    *("hydra.run.dir=/dev/null/x", "hydra/launcher=nope", "hydra.searchpath=[3]", "hydra=3"),
    *("--multirun=1", "\x01", "a=\x01", "é=1", "experiment", "~study", "~mixture", "~schedule.lr"),
    *(
        "~mixture.weights.wiki",
        "+seed=1",
        "seed+=1",
        "seed=1,2",
        "seed=range(3)",
        "seed=choice(1,2)",
    ),
    *(
        "model=demo,demo",
        "experiment=[demo]",
        "mixture=[demo,smollm2]",
        "training@x=demo",
        "+x@y=z",
    ),
    *("study=a,b", "source=3", "+source.x=true", "promotion=0", "mixture=1e3", "search=null"),
    *(
        "+program.kind=os",
        "program={module: os}",
        "after={module: os}",
        "program={kind: annealing}",
    ),
    *(
        "program={kind: stagewise}",
        "after=3",
        "program=[1]",
        "program={kind: [1]}",
        "+cluster.tp=0",
    ),
)

BASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "prepare": (
        ("prepare.mirror=empty", "progress=false", "mixture=good", "tokenizer=synthetic_bpe"),
    ),
    "plan": ((), ("experiment=synthetic",), ("experiment=demo_ratio", "-m"), ("mixture=good",)),
    "run": (
        ("progress=false",),
        ("experiment=synthetic", "progress=false"),
        ("experiment=demo_arms", "progress=false"),
        ("experiment=demo_stages", "progress=false"),
        ("experiment=demo_ratio", "progress=false", "-m"),
    ),
    "score": (("checkpoint=empty",), ("checkpoint=files",)),
    "ls": ((), ("study=demo_ratio",)),
    "verdict": (("study=demo_ratio",), ("table=smollm2_web_ratio",), ()),
    "fit": (
        ("study=demo_ratio", "families=[linear]", "resamples=2"),
        ("ratios=ratios.csv", "metrics=metrics.csv", "families=[linear,ridge-sqrt]", "resamples=2"),
    ),
    "promote": (
        ("study=demo_ratio", "full=demo_full"),
        ("study=demo_ratio", "full=smollm2_135m", "promotion.pick=trial-0001"),
        ("compare=empty",),
        ("compare=promotion",),
    ),
    "import": (("file=nanotron.yaml",), ("file=nanotron.yaml", "name=x")),
    "report": (("study=demo_ratio", "surrogates=none"),),
    "watch": (("study=demo_ratio", "once=true"),),
    "doctor": ((),),
    "export": (
        ("format=weights", "experiment=demo_ratio"),
        ("format=nanotron", "promotion=empty"),
        ("format=nanotron", "promotion=promotion"),
    ),
}
"""Command → words that it can be called with; for one that is not here, no word."""


NAMED_SHARE = 0.4
"""Share of the cases that are taken from those with names, while there are any."""


class Cases:
    """Makes bad command lines."""

    def __init__(self, seed: int, only: str | None) -> None:
        from ablations.cli import COMMANDS

        self._random = random.Random(seed)
        self._commands = [only] if only else list(COMMANDS)
        self._keys = {name: composed_keys(COMMANDS[name].config) for name in COMMANDS}
        self._configs = sorted((ROOT / "conf").glob("*/*.yaml"))
        self._named = [case for case in NAMED if only in (None, case.words[0])]
        self._random.shuffle(self._named)

    def next(self) -> Case:
        """Return a command line with one to four faults, or one of those that are tried by name."""
        if self._named and self._random.random() < NAMED_SHARE:
            return self._named.pop()
        command = self._random.choice(self._commands)
        words = [*self._random.choice(BASES.get(command, ((),)))]
        file = None
        for _ in range(self._random.choice((1, 1, 1, 1, 1, 2, 2, 3, 4))):
            kind = self._random.random()
            if kind < 0.62:
                words.append(self._wrong_value(command))
            elif kind < 0.84:
                words.append(self._random.choice(BROKEN_WORDS))
            elif kind < 0.92 and words:
                words[self._random.randrange(len(words))] = self._scrambled(words)
            elif file is None and command in OF_RUNS:
                file, extra = self._bad_file()
                words += extra
        if command == "watch":  # it would watch until it is interrupted
            words.append("once=true")
        return Case((command, *words), file)

    def _wrong_value(self, command: str) -> str:
        section = self._random.choice(
            sorted({key.partition(".")[0] for key in self._keys[command]})
        )
        inside = [key for key in self._keys[command] if key.partition(".")[0] == section]
        key = self._random.choice(inside)
        if self._random.random() < 0.1:  # one level higher or deeper, or misspelt
            key = self._random.choice(
                (key.rpartition(".")[0] or key, f"{key}.x", key[:-1], key + "s", key.upper())
            )
        sign = self._random.choice(("", "", "", "", "", "", "+", "++", "++", "~"))
        return f"{sign}{key}={self._value()}"

    def _value(self) -> str:
        if self._random.random() < 0.5:  # what a field may well take, where the next step does not
            return self._random.choice(
                ("1", "2", "3", "7", "64", "1e-9", "1e9", "0.1", "true", "false", "null", "[0,1]")
            )
        return self._random.choice(VALUES)

    def _scrambled(self, words: list[str]) -> str:
        letters = list(self._random.choice(words) or "x")
        place = self._random.randrange(len(letters))
        letters[place] = self._random.choice("=[]{}'\"\\,.:$#é \n\x00"[:-1])
        return "".join(letters)

    def _bad_file(self) -> tuple[tuple[str, bytes], list[str]]:
        """A config file of one of the platform's own, damaged, and the words that choose it."""
        path = self._random.choice(self._configs)
        content = bytearray(path.read_bytes())
        kind = self._random.randrange(7)
        place = self._random.randrange(len(content))
        if kind == 0:
            content[place] ^= 1 << self._random.randrange(8)
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place:place] = self._random.choice(
                (b"\t", b"{", b"[", b": ", b"\xff", b"\x00", b"&a *a")
            )
        elif kind == 3:
            lines = content.splitlines(keepends=True)
            self._random.shuffle(lines)
            content = bytearray(b"".join(lines))
        elif kind == 4:
            content = bytearray(
                self._random.choice((b"", b"3", b"[1, 2]", b"a", b"{1: 2}", b"null"))
            )
        elif kind == 5:
            key = self._random.choice(self._keys["run"]).rpartition(".")[2]
            content += f"\n{key}: {self._value()}\n".encode()
        else:
            content = content.replace(b"@package _global_", b"@package").replace(b": 0", b": yes")
        group = path.parent.name
        name = "fuzz"
        words = ["--config-dir", "conf", f"{group}={name}"]
        if group == "source":
            words = ["--config-dir", "conf", "mixture=fuzz_alone"]
        return (f"{group}/{name}.yaml", bytes(content)), words


def composed_keys(config: str) -> list[str]:
    """Return the dotted keys of a command's config, sections included."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf")):
        plain: Any = OmegaConf.to_container(compose(config), resolve=False)
    return list(_flat(plain, ""))


def _flat(values: Mapping[Any, Any], before: str) -> list[str]:
    keys = []
    for key, value in values.items():
        where = f"{before}.{key}" if before else str(key)
        keys.append(where)
        if isinstance(value, Mapping):
            keys += _flat(value, where)
    return keys
