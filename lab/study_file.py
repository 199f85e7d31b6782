"""Study files: find one, load it, change it by command-line flags, and name what is stored of it.

A study file is the user's own Python: it is loaded only from studies/, or from a path given on the command line.
"""

import ast
import dataclasses
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from lab.errors import LabError, SpecError
from lab.knobs import TrialConfig, Value, parse_knob
from lab.spec import Study, check_name

FOLDER = Path("studies")


def find(name: str, *, root: Path = Path(".")) -> Path:
    """Return the file of a study: studies/<name>.py, or the path itself if `name` is one.

    Raises:
        SpecError: There is no such file; the message lists those that are there.
    """
    if name.endswith(".py") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            raise SpecError(f"there is no study file {path}")
        check_name(path.stem, "study file")
        return path
    check_name(name, "study")
    path = root / FOLDER / f"{name}.py"
    if not path.is_file():
        known = ", ".join(p.stem for p in study_files(root)) or f"none: {(root / FOLDER).resolve()} holds no study"
        raise SpecError(f"there is no study {name!r}: choose one of {known}")
    return path


def study_files(root: Path = Path(".")) -> list[Path]:
    """Return the files in studies/, by name."""
    return sorted(p for p in (root / FOLDER).glob("*.py") if not p.name.startswith("_"))


def load_module(path: Path) -> ModuleType:
    """Run a study file and return it as a module.

    Raises:
        SpecError: It cannot be run; the message names file and line.
    """
    spec = importlib.util.spec_from_file_location(f"study_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    _refuse_duplicates(path)
    keep = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no __pycache__ beside a user's studies, and never a stale one
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        own = error.filename is None or Path(error.filename).resolve() == path.resolve()
        raise SpecError(f"{path if own else error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise SpecError(f"{path}:{_line(error, path)}: {_what(error)}") from error
    finally:
        sys.dont_write_bytecode = keep
    return module


def _refuse_duplicates(path: Path) -> None:
    """Refuse a dictionary in a study file that has a key twice: Python would keep the last one and say nothing."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # running it says what and where
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            twice = next((key for k, key in enumerate(keys) if key in keys[:k]), None)
            if twice is not None:
                raise SpecError(f"{path}:{node.lineno}: {twice!r} stands twice in a dictionary: keep one")


def _what(error: Exception) -> str:
    """Return what a user reads of an error of a study file."""
    text = " ".join(str(error).split())
    unknown = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'.*", text)
    if unknown is not None:
        return f"{unknown[1]} has no field {unknown[2]!r}"
    return text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"


def _line(error: Exception, path: Path) -> int:
    own = path.resolve()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == own]
    return (lines[-1] if lines else None) or 1


def load(path: Path) -> Study:
    """Return the `STUDY` of a study file.

    Raises:
        SpecError: The file cannot be run, or defines no `STUDY = Study(…)`.
    """
    study = getattr(load_module(path), "STUDY", None)
    if not isinstance(study, Study):
        raise SpecError(f"{path}: it has to define STUDY = Study(…)")
    return study


def parse_settings(settings: Sequence[str]) -> dict[str, Value]:
    """Return what `--set knob=value` flags say.

    Raises:
        SpecError: No "=", an unknown knob, a value of the wrong type, or a knob that is set twice.
    """
    values: dict[str, Value] = {}
    for setting in settings:
        knob, equals, text = setting.partition("=")
        if not equals:
            raise SpecError(f"--set {setting}: write --set knob=value, e.g. --set width=64")
        value = parse_knob(knob.strip(), text.strip())
        if knob.strip() in values:
            raise SpecError(f"--set {knob.strip()}: given twice")
        values[knob.strip()] = value
    return values


def _short(data: str) -> str:
    """Return a data set as part of a study's name: of a path, its last component."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", data.rstrip("/").rpartition("/")[2].removeprefix("imagefolder:"))


def change(
    study: Study,
    base: str,
    *,
    data: str | None = None,
    settings: Mapping[str, Value] | None = None,
    smoke: bool = False,
    n_trials: int | None = None,
) -> tuple[Study, str]:
    """Return the study that the flags ask for and the name under which it is stored.

    What changes the question makes another study, so its name says it: "capacity_sweep,data=fashion_mnist,family=cnn".
    A flag that says what the file says already changes nothing; more trials are the same study, continued.

    Raises:
        SpecError: The result is no possible study.
    """
    parts = [check_name(base, "study")]
    if data is not None and data != study.data:
        study = dataclasses.replace(study, data=data)
        parts.append(f"data={_short(data)}")
    for knob, value in sorted((settings or {}).items()):
        if knob not in study.space and study.fixed.get(knob, getattr(TrialConfig(), knob)) == value:
            continue
        space = {name: domain for name, domain in study.space.items() if name != knob}
        study = dataclasses.replace(study, space=space, fixed={**study.fixed, knob: value})
        parts.append(f"{knob}={value}")
    if smoke:
        study = study.smoke()
        parts.append("smoke")
    if n_trials is not None:
        study = dataclasses.replace(study, n_trials=n_trials)
    return study, check_name(",".join(parts), "study with its flags")
