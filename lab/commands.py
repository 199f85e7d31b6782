"""The commands behind stored studies: what a reader of a report copies, and what then runs as printed.

A stored name lists the flags that made the study: "capacity_sweep,data=fashion_mnist,family=cnn,smoke". `run` takes
the flags again, all other commands take the stored name. What a name does not say is kept with the runs as `asked`: the
path of a study file outside studies/, `--data-dir`, `--trials`, `--storage`.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from lab.storage import MASK, MASK_NOTE

PROGRAM = ("python", "-m", "lab.study")
WITH_STORAGE = ("status", "ui", "publish", "verify")  # and run


def command(
    verb: str,
    study: str,
    *,
    spec: Mapping[str, Any] | None = None,
    asked: Mapping[str, str] | None = None,
    **changes: Any,
) -> str:
    """Return a command on a stored study, e.g. ("run", "sweep,width=8,smoke") or ("report", the same)."""
    if verb == "run":
        return run_command(study, spec=spec, asked=asked, **changes)
    return shlex.join([*PROGRAM, verb, study, *(_storage(asked) if verb in WITH_STORAGE else [])])


def note(line: str) -> str:
    """Return what has to be known of a command before it runs as printed, nothing for most."""
    return MASK_NOTE if MASK in line else ""


def _storage(asked: Mapping[str, str] | None) -> list[str]:
    return ["--storage", asked["storage"]] if asked and "storage" in asked else []


def run_command(
    study: str,
    *,
    spec: Mapping[str, Any] | None = None,
    asked: Mapping[str, str] | None = None,
    smoke: bool = True,
    trials: int | None = None,
    **settings: Any,
) -> str:
    """Return the command that runs a stored study with some of its flags changed.

    Args:
        study: Its stored name.
        spec: Its specification, which has in full the paths that the name shortens; None: what the name says.
        asked: What its command said that the name does not, see `lab.flags.asked`.
        smoke: Whether to keep the flag --smoke, where the study has it; without it, `--trials` goes too.
        trials: How many trials the study is to have in all; None: as many as were asked for.
        settings: Knobs and fields of the replication plan (`--set`); they come before what the name says of them.
    """
    base, *flags = study.split(",")
    data, fixed, asked = (spec or {}).get("data"), (spec or {}).get("fixed", {}), asked or {}
    words, given = [*PROGRAM, "run", asked.get("study", base)], {}
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "data":
            words += ["--data", value if data is None else data]
        elif name == "smoke":
            words += ["--smoke"] if smoke else []
        else:
            given[name] = str(fixed.get(name, value))
    in_all = trials or (asked.get("trials") if smoke else None)
    words += ["--trials", str(in_all)] if in_all else []
    words += ["--data-dir", asked["data_dir"]] if "data_dir" in asked else []
    words += _storage(asked)
    given |= {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    return shlex.join([*words, *(word for name, value in given.items() for word in ("--set", f"{name}={value}"))])
