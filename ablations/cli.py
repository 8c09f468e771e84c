"""The command line: ``ablate COMMAND overrides…``, each command a Hydra application.

    ablate run mixture.weights.wiki=0.7 mixture.weights.chat=0.3      one run
    ablate run -m experiment=demo_ratio                               a search
    ablate run --cfg job                                              the config, composed
    eval "$(ablate -sc install=bash)"                                 completion

Exit codes: 0 done, 1 the work failed, 2 the user's mistake (a message, no traceback), 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ablations import __version__
from ablations.command_table import COMMANDS, Command
from ablations.command_words import named_words, require_document, require_words, wants_document
from ablations.config.environment_secrets import without_secrets
from ablations.errors import (
    AblationError,
    ConfigError,
    Problem,
    UserError,
    refused_by_system,
    unknown_name,
)

if TYPE_CHECKING:
    from ablations.documents import Answer
    from ablations.yaml_files import ConfigFile

__all__ = ["COMMANDS", "Command", "Task", "main"]


class Task:
    """Task function for Hydra. It can be pickled, so that any launcher can carry it."""

    def __init__(self, command: str, *, document: bool = False) -> None:
        self.command = command
        self.document = document
        self.answer: Answer | None = None
        self.code = 0
        self.error: Exception | None = None
        # Hydra and cloudpickle look at these two of a task function.
        self.__name__ = command
        self.__qualname__ = f"Task.{command}"

    def __call__(self, config: Any) -> int:
        """Call the command with plain values and return its exit code."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf.errors import OmegaConfBaseException

        try:
            plain = _plain(config)
            _require_frozen(plain)
            _require_sound(plain, of_a_study=HydraConfig.get().mode is RunMode.MULTIRUN)
            module = importlib.import_module(COMMANDS[self.command].module)
            if self.document:
                self.answer = module.answer(plain)
                self.code = self.answer.exit_code
            else:
                _require_no_document(plain)
                self.code = module.main(plain)
        except (AblationError, OmegaConfBaseException, OSError) as error:
            # Hydra prints a heading of its own above an error; a command that runs alone prints its own.
            if HydraConfig.get().mode is not RunMode.RUN:
                raise
            self.error = error
        return self.code


def _require_no_document(plain: Mapping[str, Any]) -> None:
    """Refuse ``json: true`` of a config file: other output would stand beside the document."""
    value = plain.get("json")
    if value is True:
        do = "write json=true there, or take it out"
        raise ConfigError(Problem("json", "not given on the command line", do=do))
    if value not in (None, False):
        raise ConfigError(Problem("json", "not a switch", found=value, allowed="true, false"))


def _plain(config: Any) -> dict[str, Any]:
    """Return the composed config as plain values, with the folders that it was found in."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    sources = [s for s in HydraConfig.get().runtime.config_sources if s.schema == "file"]
    # The command's own folder last (in a study it is a copy): the others' sources come before its.
    found = [s.path for s in sorted(sources, key=lambda source: source.provider == "main")]
    return {"config_dirs": found, **plain}


def _require_frozen(plain: Mapping[str, Any]) -> None:
    """Refuse config files that a promotion froze and that are not what it wrote.

    Raises:
        DamagedError: a folder of config files with checksums holds something else.
    """
    from ablations.record.checksums import require_unchanged

    for folder in plain["config_dirs"]:
        require_unchanged(Path(folder), "restore it from a copy, or promote again")


def _require_sound(plain: Mapping[str, Any], *, of_a_study: bool) -> None:
    """Refuse a config with all that is wrong with it, the problems of the dataclasses included.

    Args:
        plain: The composed config.
        of_a_study: A study's job may have been composed before an option was removed, and waits in a
            queue since: it goes on without. The study's command is refused.

    Raises:
        ConfigError: every problem found.
    """
    from hydra.core.hydra_config import HydraConfig

    from ablations.config.composed import composed_problems
    from ablations.config.removed import removed_problems

    problems = composed_problems(plain)
    if not of_a_study:
        problems += removed_problems(plain, HydraConfig.get().launcher)
    if not problems:
        return
    if plain.keys() >= {"model", "training", "evaluation"} and not {"compare", "format"} & set(
        plain
    ):
        from ablations.config.schema import load

        try:
            load(plain, plain.get("config_dirs", ()))
        except ConfigError as error:
            known = {problem.where for problem in problems}
            problems += [problem for problem in error.problems if problem.where not in known]
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
            pass  # a section has the wrong type: the problems above name it
    raise ConfigError(problems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in ("-sc", "--shell-completion"):
        return _complete(given)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if given[0] == "--version":
        print(f"ablate {__version__}")
        return 0
    try:
        code = _called(given[0], given[1:])
        sys.stdout.flush()  # here, where a reader that has left is known of
        return code
    except BrokenPipeError:  # `ablate ls | head`, where it is our own output that nobody reads
        if not _output_is_closed():
            raise
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except (AblationError, OSError, RecursionError) as error:
        return _report(_own_kind(error))


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""


def _called(name: str, words: Sequence[str]) -> int:
    """Call a command with its words and return its exit code."""
    if name not in COMMANDS:
        raise UserError(unknown_name("ablate", "command", name, COMMANDS))
    if {"-h", "--help"} & set(words):
        return _help_of(name, words)
    if "--version" in words:
        print(f"ablate {__version__}")
        return 0
    words = named_words(name, words)
    if wants_document(words):
        return _print_document(name, words)
    return _run(name, words).code


def _print_document(name: str, words: Sequence[str]) -> int:
    """Print the answer of a command, or what is wrong, as one JSON document."""
    from ablations.documents import Answer, document_text, only_document

    command = COMMANDS[name]
    require_document(name, words)
    answer = None
    with only_document():
        try:
            answer = _run(name, words, document=True).answer
        except BrokenPipeError:
            raise
        except (AblationError, OSError, RecursionError) as raised:
            error = _own_kind(raised)
            answer = Answer(error=error, exit_code=error.exit_code)
    if answer is None:  # a search: its driver prints for people
        answer = Answer()
    if answer.error is not None:
        _report(answer.error)
    print(document_text(name, command.document_version, answer, without_secrets))
    return answer.exit_code


def _own_kind(error: BaseException) -> AblationError:
    """Return an error as one of the platform's own."""
    if isinstance(error, AblationError):
        return error
    if isinstance(error, OSError):
        return refused_by_system(error)
    do = "write it flatter, or in a config file"
    return UserError(Problem("command", "nested too deeply", do=do))


def _run(name: str, overrides: Sequence[str], *, document: bool = False) -> Task:
    """Compose the command's config and call it; return what was called."""
    # Hydra would print its own abridged traceback and exit 1; we raise, and explain below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ablations.config.hydra_section import checked_composing
    from ablations.config.schema import conf_dir
    from ablations.yaml_files import checked_loading

    require_words(name, overrides)
    task = Task(name, document=document)
    sys.argv = [f"ablate {name}", *overrides]
    primary = _primary(name, overrides)
    application = hydra.main(config_path=str(conf_dir()), config_name=primary)(task)
    files: list[ConfigFile] = []
    try:
        with (
            checked_loading(conf_dir(), files),
            checked_composing(shown="--resolve" in overrides),
        ):
            application()
        if task.error is not None:
            raise task.error
    except UserError as error:
        raise _with_places(error, files, overrides) from None
    except (HydraException, OmegaConfBaseException) as error:
        from ablations.config.overrides import explain

        if (cause := _own_error(error)) is not None:
            raise _with_places(cause, files, overrides) from None
        problem = explain(error, primary, overrides, files, name)
        raise _with_places(UserError(problem), files, overrides) from None
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        if (cause := _own_error(error)) is not None:
            raise _with_places(cause, files, overrides) from None
        if not _is_of_composing(error):
            raise
        what = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(Problem("command line", "cannot be composed", found=what)) from None
    return task


def _with_places(
    error: AblationError, files: Sequence[ConfigFile], overrides: Sequence[str]
) -> AblationError:
    """Return an error with the file and line of each problem that a file of the user's gave."""
    if not isinstance(error, UserError):
        return error
    from ablations.config.file_places import placed, source_files
    from ablations.config.overrides import user_folders

    sources = source_files(user_folders(overrides), error.problems)
    return placed(error, [*files, *sources], overrides)


def _primary(name: str, overrides: Sequence[str]) -> str:
    """Return the command's primary config; ``plan full=…`` plans what ``promote`` would train."""
    if name == "plan" and any(word.startswith("full=") for word in overrides):
        return COMMANDS["promote"].config
    return COMMANDS[name].config


def _is_of_composing(error: BaseException) -> bool:
    """Return whether an error arose inside Hydra, before any code of a command was called.

    Hydra raises plain errors of Python for some words that it cannot use: ``mixture=1e3``.
    """
    frame = error.__traceback__
    while frame is not None:
        module = str(frame.tb_frame.f_globals.get("__name__"))
        own = module.partition(".")[0] in ("ablations", "analysis", "sweeps", "hydra_plugins")
        if own and module not in (
            __name__,
            "ablations.yaml_files",
            "ablations.config.hydra_section",
        ):
            return False
        if frame.tb_frame.f_code is Task.__call__.__code__:
            return False
        frame = frame.tb_next
    return True


def _output_is_closed() -> bool:
    """Return whether nobody reads our output; then it goes nowhere, so that the exit is silent.

    Unbuffered output has nothing left to flush: the pipe itself is asked.
    """
    closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(closed)


def _has_no_reader(stream: TextIO) -> bool:
    try:
        asked = select.poll()
        asked.register(stream.fileno(), 0)  # errors alone, which poll always reports
        return any(event & select.POLLERR for _, event in asked.poll(0))
    except (OSError, ValueError):  # no file of its own
        return False


def _own_error(error: BaseException) -> AblationError | None:
    """Return the platform's own error that Hydra wrapped, if it did."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AblationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _report(error: AblationError) -> int:
    if isinstance(error, UserError):
        many = len(error.problems)
        print(f"error: {many} problem{'s' if many > 1 else ''}", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {without_secrets(_indent(problem))}", file=sys.stderr)
    else:
        print(f"failed: {without_secrets(str(error))}", file=sys.stderr)
    return error.exit_code


def _help_of(name: str, words: Sequence[str]) -> int:
    """Print the help of one command."""
    from ablations.command_help import command_help, print_long
    from ablations.config.overrides import user_folders

    print_long(command_help(name, user_folders(words)))
    return 0


def _indent(problem: Problem) -> str:
    return str(problem).replace("\n", "\n    ")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "ablate COMMAND [overrides…]: mixture ablations, from text to a promoted schedule",
            "",
            *lines,
            "",
            "ablate COMMAND --help prints its options; ablate run --cfg job prints a whole config.",
            "Exit codes: 0 done, 1 the work failed, 2 the command or a config is wrong, 130 Ctrl-C.",
        ]
    )


def _complete(given: Sequence[str]) -> int:
    """Hydra's shell completion behind a command word: it is cut from the line that the shell sends."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split(maxsplit=2)
    if "=install" in given[-1] or given[-1].startswith(("install=", "uninstall=")):
        return _run("run", given).code
    if len(words) < 2 or words[1] not in COMMANDS:
        typed = words[1] if len(words) > 1 else ""
        print("\n".join(name for name in COMMANDS if name.startswith(typed)))
        return 0
    start = line.index(words[1])
    rest = line[start + len(words[1]) :].lstrip()
    os.environ["COMP_LINE"] = f"{words[0]} {rest}"
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return _run(words[1], given).code


if __name__ == "__main__":
    sys.exit(main())
