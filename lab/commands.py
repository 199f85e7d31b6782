"""The commands behind stored studies: what a reader of a report copies, and what then runs as printed.

A stored name lists the flags that made the study: "capacity_sweep,data=fashion_mnist,family=cnn,smoke". `run` takes
the flags again, all other commands take the stored name.
"""

import shlex
from collections.abc import Mapping
from typing import Any

PROGRAM = ("python", "-m", "lab.study")


def command(verb: str, study: str, *, spec: Mapping[str, Any] | None = None) -> str:
    """Return a command on a stored study, e.g. ("run", "sweep,width=8,smoke") or ("report", the same)."""
    return run_command(study, spec=spec) if verb == "run" else shlex.join([*PROGRAM, verb, study])


def run_command(
    study: str,
    *,
    spec: Mapping[str, Any] | None = None,
    smoke: bool = True,
    trials: int | None = None,
    **settings: Any,
) -> str:
    """Return the command that runs a stored study with some of its flags changed.

    Args:
        study: Its stored name.
        spec: Its specification, which has in full the paths that the name shortens; None: what the name says.
        smoke: Whether to keep the flag --smoke, where the study has it.
        trials: How many trials the study is to have in all.
        settings: Knobs and fields of the replication plan (`--set`); they come before what the name says of them.
    """
    base, *flags = study.split(",")
    data, fixed = (spec or {}).get("data"), (spec or {}).get("fixed", {})
    words, given = [*PROGRAM, "run", base], {}
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "data":
            words += ["--data", value if data is None else data]
        elif name == "smoke":
            words += ["--smoke"] if smoke else []
        else:
            given[name] = str(fixed.get(name, value))
    words += [] if trials is None else ["--trials", str(trials)]
    given |= {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    return shlex.join([*words, *(word for name, value in given.items() for word in ("--set", f"{name}={value}"))])
