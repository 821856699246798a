"""Config files: Python that makes a `Config`; found by its path or by the name of one that is shipped, and written."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import runpy
import sys
import textwrap
import tokenize
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spae.errors import InputError
from tokenizer_train.config import Config
from tokenizer_train.connector.config import ConnectorExperiment

SHIPPED = Path(__file__).parent / "configs"
WIDTH = 110  # of a line that is written


def load_config(file: str | Path, variant: str | None = None) -> Config | ConnectorExperiment:
    """`config()` of a config file, or the named entry of its `VARIANTS`: of a tokenizer, or of a connector.

    The file may import the others of its folder by their names.

    Args:
        file: its path, or the name of a shipped one, such as "default64".

    Raises:
        InputError: no such file or variant; the file gives no experiment; an exception in it, by file and line.
    """
    path = find(file)
    with _neighbours(path.parent):
        with _explained(path.parent):
            names = runpy.run_path(str(path))
        make = _maker(path, names, variant)
        with _explained(path.parent):
            config = make()
    if not isinstance(config, Config | ConnectorExperiment):
        raise InputError(
            f"{path} must give a tokenizer_train.config.Config, or a ConnectorExperiment of "
            f"tokenizer_train.connector.config, got {type(config).__name__}"
        )
    return config


def variants(file: str | Path) -> tuple[str, ...]:
    """The names of a config file's `VARIANTS`. Raises as `load_config`."""
    path = find(file)
    with _neighbours(path.parent), _explained(path.parent):
        return tuple(runpy.run_path(str(path)).get("VARIANTS", {}))


def find(file: str | Path) -> Path:
    """The path of a config file.

    Raises:
        InputError: there is none, here or among those that are shipped.
    """
    path = Path(file)
    if path.is_file():
        return path
    shipped = {one.stem: one for one in sorted(SHIPPED.glob("*.py"))}
    if str(file) not in shipped:
        raise InputError(
            f"there is no file {file}: wanted a config file, one of {', '.join(shipped)}, or eval, finetune or new"
        )
    return shipped[str(file)]


def _maker(path: Path, names: dict[str, Any], variant: str | None) -> Callable[[], Any]:
    if not callable(names.get("config")):
        raise InputError(f"{path} must define a function config() that returns a Config")
    if variant is None:
        return names["config"]
    named = names.get("VARIANTS", {})
    if variant not in named:
        raise InputError(f"--variant must be one of {', '.join(named) or '(none here)'}, got {variant!r}")
    return named[variant]


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """The files of a folder can be imported; afterwards they are forgotten, because the next folder may have others of
    the same names."""
    place, before = str(folder.resolve()), set(sys.modules)
    importlib.invalidate_caches()
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and str(Path(file).parent) == place:
                del sys.modules[name]


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """An exception becomes one line with its place in a file of the folder."""
    try:
        yield
    except SyntaxError as error:
        raise InputError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).resolve().parent == folder.resolve()]
        place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{place}{kind}{' '.join(str(error).split())}") from error


def written(config: Config | ConnectorExperiment, path: Path, begun: str) -> str:
    """A config file that gives this config and imports nothing but installed packages: every field with what the source
    says of it, as a comment if it has its default.

    Args:
        config: what it shall give.
        path: where it will lie, for the commands in its header.
        begun: what it was begun with, likewise.
    """
    sections: dict[str, list[str]] = {}
    body = _call(config, " " * 4, sections)
    imports = [
        f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(sections.items())
    ]
    bundle = f"{config.run.output}/bundle"
    measured = f"spae-train eval {bundle} IMAGES        what has come out"
    if isinstance(config, ConnectorExperiment):
        measured = f"spae-icl run classify --model spae-connector/{bundle} --data IMAGES"
    header = f'''"""A config of one's own, begun with {begun}.

Command   spae-train {path}
          spae-train {path} --dry-run --device cpu        what it would need, here
          {measured}
Fields    all there are; those in comments have their defaults
"""'''
    text = "\n\n".join([header, "\n".join(_folded(line) for line in imports)])
    return f"{text}\n\n\ndef config() -> {type(config).__name__}:\n    return {body}\n"


def _folded(line: str) -> str:
    """An import of at most `WIDTH` columns, or of one line a name."""
    if len(line) <= WIDTH:
        return line
    start, _, names = line.partition("import ")
    return f"{start}import (\n" + "".join(f"    {name},\n" for name in names.split(", ")) + ")"


def _call(section: Any, indent: str, sections: dict[str, list[str]]) -> str:
    """The expression that makes a section, `indent` in front of its end; its class is noted for the imports."""
    kind = type(section)
    sections.setdefault(kind.__module__, []).append(kind.__name__)
    comments, inner, lines = _comments(kind), indent + " " * 4, []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            lines.append(f"{inner}{field.name}={_call(value, inner, sections)},")
        else:
            mark, comment = "# " if value == field.default else "", comments.get(field.name, "")
            line = f"{inner}{mark}{field.name}={_literal(value)},"
            if comment and len(line) + len(comment) + 4 <= WIDTH:
                line = f"{line}  # {comment}"
            elif comment:
                lines += textwrap.wrap(
                    comment, WIDTH, initial_indent=f"{inner}# ", subsequent_indent=f"{inner}# "
                )
            lines.append(line)
    return "\n".join([f"{kind.__name__}(", *lines, f"{indent})"])


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _comments(kind: type) -> dict[str, str]:
    """What a dataclass's source says of each field, inherited ones too: behind it, or on the lines in front of it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        found |= _own_comments(base)
    return found


def _own_comments(kind: type) -> dict[str, str]:
    source = inspect.getsource(kind)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line, token in said.items() if not token.line[: token.start[1]].strip()}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            beside = [line for line in range(node.lineno, node.end_lineno + 1) if line in said]
            first = node.lineno
            while not beside and first - 1 in alone:
                first -= 1
            lines = beside or range(first, node.lineno)
            found[node.target.id] = " ".join(said[line].string.lstrip("# ") for line in lines)
    return found
