"""Study files: find one, load it, change it by command-line flags, and name what is stored of it.

A study file is the user's own Python: it is loaded only from studies/, or from a path given on the command line.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from lab import own_families
from lab.commands import run_command
from lab.errors import LabError, SpecError, one_line
from lab.knobs import KNOBS, TrialConfig, Value, known_knob, parse_knob, parsed
from lab.pretraining import Pretraining
from lab.replication import Replication
from lab.spec import Study, check_name

FOLDER = Path("studies")
# what `--set` takes beside knobs: the replication plan, and sizes of the study
PLAN: dict[str, type[Any]] = {
    "scheme": str, "n_resamples": int, "n_inits": int, "n_partitions": int, "stratified": bool, "n_noise_draws": int,
    "target_half_width": float, "target_term": str, "max_resamples": int, "max_inits": int, "max_replicas": int,
}  # fmt: skip
SIZES: dict[str, type[Any]] = {"n_validation": int, "n_test": int}
_IN_THE_FILE = {field.name: "change it in the study file" for field in dataclasses.fields(Study)}
ELSEWHERE = _IN_THE_FILE | {"n_trials": "give --trials N", "data": "give --data NAME"}


def find(name: str, *, root: Path = Path(".")) -> Path:
    """Return the file of a study: studies/<name>.py, or the path itself if `name` is one.

    Raises:
        SpecError: There is no such file; the message lists those that are there.
    """
    if name.endswith(".py") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            meant = [p for p in (Path(f"{name}.py"), root / FOLDER / path.name) if p.is_file()]
            raise SpecError(f"there is no study file {path}" + (f": did you mean {meant[0]}?" if meant else ""))
        check_name(path.stem, "study file")
        return path
    check_name(name, "study")
    if "," in name:
        flags = run_command(name).partition(" run ")[2]
        raise SpecError(f"{name!r} is the name of a stored study: run it by the flags in it: run {flags}")
    path = root / FOLDER / f"{name}.py"
    if not path.is_file():
        known = ", ".join(p.stem for p in study_files(root)) or f"none: {(root / FOLDER).resolve()} holds no study"
        raise SpecError(f"there is no study {name!r}: choose one of {known}, or give the path of a study file")
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
    text = one_line(error)
    unknown = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'.*", text)
    if unknown is not None:
        kinds = {kind.__name__: kind for kind in (Study, Replication, Pretraining)}
        fields = dataclasses.fields(kinds[unknown[1]]) if unknown[1] in kinds else ()
        close = ", ".join(get_close_matches(unknown[2], [field.name for field in fields]))
        return f"{unknown[1]} has no field {unknown[2]!r}" + (f": did you mean {close}?" if close else "")
    return text if isinstance(error, LabError) else f"{type(error).__name__}: {text}"


def _line(error: Exception, path: Path) -> int:
    own = path.resolve()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == own]
    return (lines[-1] if lines else None) or 1


def load(path: Path) -> Study:
    """Return the `STUDY` of a study file.

    Raises:
        SpecError: The file cannot be run, defines no `STUDY = Study(…)`, or lacks a family that this names.
    """
    module = load_module(path)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise SpecError(f"{path}: it has to define STUDY = Study(…)")
    for name in own_families.names(study):
        own_families.function(module, path, name)
    return study


def parse_settings(settings: Sequence[str]) -> dict[str, Value]:
    """Return what `--set name=value` flags say of knobs, of the replication plan and of the sizes of the test sets.

    Raises:
        SpecError: No "=", an unknown name, a value of the wrong type, or a name that is set twice.
    """
    values: dict[str, Value] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise SpecError(f"--set {setting}: write --set knob=value, e.g. --set width=64")
        kind = (PLAN | SIZES).get(name)
        if kind is None and name in ELSEWHERE:
            raise SpecError(f"--set {name}: {ELSEWHERE[name]}")
        known_knob(name, "--set", [*PLAN, *SIZES]) if kind is None else None
        value = parse_knob(name, text) if kind is None else parsed(name, text, kind, where="--set")
        if name in values:
            raise SpecError(f"--set {name}: given twice")
        values[name] = value
    return values


def _short(value: str) -> str:
    """Return a data set or a value as part of a study's name: of a path, its last component."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", value.rstrip("/").rpartition("/")[2].removeprefix("imagefolder:"))


def _named(name: str, value: Value) -> str:
    """Return a setting as part of a study's name: folders of weights often have one name, so their paths count."""
    text = str(value)
    if name != "weights" or "/" not in text:
        return f"{name}={_short(text)}"
    return f"{name}={_short(text)}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


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
    A flag that says what the file says already changes nothing; more trials are the same study, continued. What is set
    holds in the small version of a study too.

    Raises:
        SpecError: The result is no possible study.
    """
    parts = [check_name(base, "study")]
    if data is not None and data != study.data:
        study = dataclasses.replace(study, data=data)
        parts.append(f"data={_short(data)}")
    changed = {name: value for name, value in sorted((settings or {}).items()) if _differs(study, name, value)}
    parts += [_named(name, value) for name, value in changed.items()]
    study = _with(study, changed)
    if smoke:
        study = _with(study.smoke(), changed)
        parts.append("smoke")
    if n_trials is not None:
        study = dataclasses.replace(study, n_trials=n_trials)
    return study, check_name(",".join(parts), "study with its flags")


def _differs(study: Study, name: str, value: Value) -> bool:
    if name in KNOBS:
        return name in study.space or study.fixed.get(name, getattr(TrialConfig(), name)) != value
    return bool(getattr(study.replication if name in PLAN else study, name) != value)


def _with(study: Study, settings: Mapping[str, Value]) -> Study:
    """Return a study with knobs fixed and its plan changed."""
    knobs = {name: value for name, value in settings.items() if name in KNOBS}
    sizes: dict[str, Any] = {name: value for name, value in settings.items() if name in SIZES}
    plan: dict[str, Any] = {name: value for name, value in settings.items() if name in PLAN}
    return dataclasses.replace(
        study,
        space={name: domain for name, domain in study.space.items() if name not in knobs},
        fixed={**study.fixed, **knobs},
        replication=dataclasses.replace(study.replication, **plan),
        **sizes,
    )
