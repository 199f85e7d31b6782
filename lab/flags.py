"""The commands and flags that there are; what each command does stands in lab.study."""

import argparse
import contextlib
import math
import re
from typing import NoReturn

from lab.knobs import KNOBS
from lab.storage import masked

EPILOG = """exit codes: 0 done, 2 usage or study file, 3 too many trials failed, 4 study in use, 5 storage,
6 data set, 7 study file differs from the stored study, 130 and 143 interrupted (run again to resume)"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
        name = unknown[1].replace("-", "_") if unknown else ""
        hint = f": {name} is a knob, give --set {name}=VALUE" if name in KNOBS else ""
        self.exit(2, f"error: {message}{hint} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="python -m lab.study",
        description="Measures why an image classifier errs (noise, bias², variance), driven by hyperparameter search.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def command(name: str, about: str, *, as_json: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        if as_json:
            sub.add_argument("--json", action="store_true", help="the result as JSON, alone on stdout")
        return sub

    command("list", "list the studies in studies/")
    _add_run(command("run", "run a study, or what is left of it, and write its report"))
    status = command("status", "show how the stored studies stand")
    status.add_argument("name", nargs="?", help="one of them, by the name it is stored under")
    report = command("report", "build the report of a stored study again, or compare several")
    report.add_argument("names", nargs="+", metavar="name", help="the names they are stored under, the baseline first")
    report.add_argument("--format", choices=("html", "md"), default="html", help="a page, or a few lines for a chat")
    ui = command("ui", "open the MLflow UI and the Optuna dashboard on this machine", as_json=False)
    ui.add_argument("name", nargs="?", help="the stored study to show")
    ui.add_argument("--open", action="store_true", help="open both pages in the browser")
    publish = command("publish", "send to MLflow what a run could not send, e.g. to a server that was away")
    verify = command("verify", "check every file and record of a stored study")
    export = command("export-weights", "write the weights of a confirmed trial as safetensors files")
    export.add_argument("--trial", type=int, metavar="N", help="a confirmed trial (default: the one confirmed last)")
    export.add_argument("--out", metavar="DIR", help="the folder to write (default: reports/NAME/weights)")
    for sub in (publish, verify, export):
        sub.add_argument("name", help="the name it is stored under")
    for sub in (status, ui, publish, verify):
        _add_storage(sub)
    decompose = command("decompose", "decompose the error of anyone's predictions")
    decompose.add_argument(
        "file",
        help="an .npz file: probabilities or logits (D, I, N, C) or (R, N, C), labels (N,) and, if known, "
        "posterior (N, C)",
    )
    decompose.add_argument("--loss", choices=("brier", "cross_entropy", "zero_one"), default="brier",
                           help="which loss is decomposed (default: brier)")  # fmt: skip
    decompose.add_argument("--design", choices=("crossed", "nested", "independent"),
                           help="what replicas share (default: crossed, for (R, N, C) independent)")  # fmt: skip
    decompose.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    return parser


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: give a number of minutes above 0")


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("name", help="a study in studies/, or the path of a study file")
    run.add_argument("--trials", type=int, metavar="N", help="how many trials the study has in all (not: N more)")
    run.add_argument("--data", metavar="NAME", help="another data set")
    run.add_argument("--data-dir", metavar="DIR", help="where data set files lie")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    run.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one a CPU core, up to 8)")
    run.add_argument(
        "--engine", choices=("inline", "process", "ray"), help="train in this process, in workers, or on a Ray cluster"
    )
    run.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster (default: one on this machine)")
    run.add_argument("--smoke", action="store_true", help="a small version of the study that takes seconds")
    run.add_argument(
        "--time-limit", type=_minutes, metavar="MINUTES", help="begin no trial later, confirm the best so far"
    )
    _add_storage(run)
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                     help="fix a knob (those of lab/knobs.py), or change the plan, e.g. n_resamples=16; may be "
                     "repeated")  # fmt: skip


def _add_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage",
        metavar="URL",
        help="PostgreSQL database that keeps the search state, postgresql://… (default: $LAB_STORAGE, else mlruns/)",
    )


def asked(args: argparse.Namespace) -> dict[str, str]:
    """Return what `run` was told that the study's stored name does not say, and that leads to the study again."""
    said = {"trials": args.trials, "data_dir": args.data_dir, "storage": args.storage and masked(args.storage)}
    said["study"] = args.name if args.name.endswith(".py") else None  # the file, if it is not one in studies/
    return {name: str(value) for name, value in said.items() if value}


def given(args: argparse.Namespace) -> list[str]:
    """Return the arguments of `run` that lead to the same study again."""
    flags = [args.name]
    for name in ("trials", "data", "data_dir", "workers", "engine", "ray_address", "time_limit"):
        value = getattr(args, name)
        flags += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    flags += [] if args.storage is None else ["--storage", masked(args.storage)]
    flags += [] if args.device == "auto" else ["--device", args.device]
    flags += ["--smoke"] if args.smoke else []
    return flags + [part for setting in args.set for part in ("--set", setting)]
