"""The command line: python -m lab.study list | run | status | report | ui | publish | verify | and others.

Nothing else stands here: `python -m` loads this file as `__main__`, and worker processes load it again. Whatever is
heavy is imported by the command that needs it, so that --help and list answer at once.
"""

import argparse
import contextlib
import gc
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import flags, interrupts, study_file
from lab.commands import PROGRAM, command, note
from lab.errors import LabError, StorageError, TooManyFailures, one_line
from lab.spec import check_name
from lab.storage import Home

MAX_SHARE_FAILED = 0.2  # above, conclusions about the space would rest on what happened to work
MAX_REASONS = 20  # that `status` shows of trials without a result, or pruned: they fit on a screen
INTERRUPTED, TERMINATED = 130, 143  # 128 + signal, as shells count


def _say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    args = flags.build_parser().parse_args(argv)
    try:
        with (
            interrupts.heeded(),
            contextlib.redirect_stdout(sys.stderr),  # a library that prints must not spoil the JSON
        ):
            code, result = COMMANDS[args.command](args)
        if getattr(args, "json", False):
            _print_json(result)
        elif isinstance(result, str):
            print(result, end="", flush=True)
        return code
    except LabError as error:
        _say(f"error: {one_line(error)}")
        return error.exit_code
    except interrupts.Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us is gone: nobody to tell
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _say(f"error: {error.strerror or error}{where}")
        return StorageError.exit_code


# --- commands: each returns the exit code and what --json prints ------------------------------------------------------


def _list(args: argparse.Namespace) -> tuple[int, Any]:
    rows: list[dict[str, Any]] = []
    for path in study_file.study_files():
        row: dict[str, Any] = {"name": path.stem, "file": str(path)}
        try:
            study = study_file.load(path)
            row |= {"question": study.question, "data": study.data, "n_trials": study.n_trials}
        except LabError as error:
            row["error"] = one_line(error)
        rows.append(row)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        _say(f"{row['name']:<{width}}  {row['question'] if 'question' in row else 'error: ' + row['error']}")
    if not rows:
        _say(f"no studies in {study_file.FOLDER.resolve()}: run this from the project's folder")
    return 0, rows


def _run(args: argparse.Namespace) -> tuple[int, Any]:
    path = study_file.find(args.name)
    study, name = study_file.change(
        study_file.load(path), path.stem, data=args.data, settings=study_file.parse_settings(args.set),
        smoke=args.smoke, n_trials=args.trials,
    )  # fmt: skip
    from lab import search

    home, asked = Home.here(args.storage), flags.asked(args)
    try:
        summary = search.run(
            study, name, home=home, device=args.device, n_workers=args.workers, engine=args.engine,
            ray_address=args.ray_address, data_dir=args.data_dir, study_file=str(path.resolve()), smoke=args.smoke,
            time_limit=None if args.time_limit is None else 60 * args.time_limit, asked=asked,
        )  # fmt: skip
    except KeyboardInterrupt:
        again = shlex.join([*PROGRAM, "run", *flags.given(args)])
        _say_commands(f"\ninterrupted: what is done is kept. To go on: {again}")
        raise
    result: dict[str, Any] = summary.to_dict()
    counts = ", ".join(f"{n} {outcome}" for outcome, n in summary.counts.items() if n)
    if summary.n_waiting:
        _say(
            f"{name}: {counts or 'no trial done'}, {summary.n_waiting} left by the time limit: the same command goes on"
        )
    elif summary.n_trained or summary.n_resumed:
        _say(f"{name}: {counts} in {summary.seconds:.0f} s")
    else:
        _say(f"{name} is finished ({counts}): nothing to run, the report is built again")
    if summary.n_unpublished:
        _say(
            f"error: {summary.n_unpublished} trials of {name} are measured, but not published "
            f"({summary.publish_error}): they lie in mlruns/spool; send them with "
            f"{command('publish', name, asked=asked)}"
        )
        return StorageError.exit_code, result
    if not any(summary.counts.values()):
        return 0, result
    too_many = summary.share_failed > MAX_SHARE_FAILED
    try:
        result |= _build_report(name, home)
    except KeyboardInterrupt:
        _say(f"\ninterrupted: all trials are kept. To build the report: {command('report', name)}")
        raise
    except LabError as error:
        if not too_many:
            raise
        _say(f"no report: {error}")
    _say_commands(*(f"{verb + ':':<8} {command(verb, name, asked=asked)}" for verb in ("ui", "status")))
    if too_many:
        _say(
            f"error: {summary.share_failed:.0%} of the trials of {name} gave no result ({counts}): the report rests on "
            f"the others; see the reasons with {command('status', name, asked=asked)}, then narrow the space"
        )
        return TooManyFailures.exit_code, result
    return 0, result


def _say_commands(*lines: str) -> None:
    """Say lines that end with commands, and what has to be known of those."""
    for line in filter(None, [*lines, note(" ".join(lines))]):
        _say(line)


def _build_report(name: str, home: Home) -> dict[str, Any]:
    from lab import tracking
    from lab.report import page

    built = page.build(name, home=home)
    _say()
    for line in built.verdict:
        _say(line)
    _say()
    _say(f"report:  {_shown(built.path)}")
    try:
        tracking.keep_report(name, built.path, home=home)
    except LabError as error:  # the page lies on the disk all the same
        _say(f"note: {error}")
    return {"verdict": built.verdict, "report": str(built.path)}


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _status(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import search

    rows = search.status(Home.here(args.storage), args.name)
    for row in rows:
        _say(_status_text(row))
        for line in filter(None, [row["training_sets"], *_shown_reasons(row["reasons"])] if args.name else []):
            _say(f"  {line}")
        if args.name and not row["in_use"] and _is_partial(row):
            _say_commands(f"  to go on: {row['again']}")
    if not rows:
        _say("nothing was run here yet")
    return 0, rows


def _shown_reasons(reasons: list[str]) -> list[str]:
    if len(reasons) <= MAX_REASONS:
        return reasons
    shown = sorted(reasons, key=lambda reason: " pruned: " in reason)[:MAX_REASONS]  # failures before what is usual
    return [*shown, f"and {len(reasons) - MAX_REASONS} more: --json has them all"]


def _is_partial(row: dict[str, Any]) -> bool:
    """Return whether trials are left to do, or what is the best of them is yet to be measured again.

    Of a study of another program in the same database that is not known.
    """
    if row["n_planned"] is None:
        return False
    is_confirmed = any(key.startswith("confirm") for key in row["runs"])
    return sum(row["counts"].values()) < row["n_planned"] or (bool(row["best"]) and not is_confirmed)


def _status_text(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{n} {outcome}" for outcome, n in row["counts"].items() if n) or "no trial done"
    text, planned = f"{row['study']}: {counts}", row["n_planned"]
    if planned is not None:
        text += f", {planned} planned by now" if sum(row["counts"].values()) > planned else f" of {planned}"
    if row["targets"]:
        text += ", {reached} of {trials} as sure as asked".format(**row["targets"])
    if row["n_unfinished"]:
        text += f", {row['n_unfinished']} under way"
    if row["in_use"]:
        text += f"; running now (process {row['in_use_by'] or '?'})"
    if row["best"]:
        from lab.progress import best_text

        text += f"; {best_text(row['objective'], row['best'], row['best']['number'])}"
    if row["again"] is None:
        text += "; of another program"
    return text


def _report(args: argparse.Namespace) -> tuple[int, Any]:
    names, home = [check_name(name, "study") for name in args.names], Home.here()
    if len(names) > 1:
        return 0, _compare(names, home, args)
    if args.format == "html":
        return 0, _build_report(names[0], home)
    from lab.report import page

    built = page.build(names[0], home=home)
    _say(f"report:  {_shown(built.path)}")
    return 0, _text_or_json(built.markdown(_shown(built.path)), built.path, args)


def _compare(names: list[str], home: Home, args: argparse.Namespace) -> Any:
    from lab.report import compare

    built = compare.build(names, home=home)
    for line in built.answers:
        _say(line)
    _say(f"report:  {_shown(built.path)}")
    if args.format == "md":
        return _text_or_json(built.markdown, built.path, args)
    return {"answers": built.answers, "report": str(built.path)}


def _text_or_json(markdown: str, path: Path, args: argparse.Namespace) -> Any:
    return {"markdown": markdown, "report": str(path)} if args.json else markdown


def _publish(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import search

    done = search.publish(check_name(args.name, "study"), home=Home.here(args.storage))
    _say(
        f"{args.name}: {len(done['sent'])} trials published now" + (", nothing was missing" if not done["sent"] else "")
    )
    if done["left"]:
        _say(f"{len(done['left'])} are measured but not settled: {done['again']}")
    for line in done["damaged"]:
        _say(f"error: {line}")
    return StorageError.exit_code if done["damaged"] else 0, done


def _verify(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import verify

    found = verify.verify(check_name(args.name, "study"), home=Home.here(args.storage))
    for line in found.notes:
        _say(line)
    for line in found.damage:
        _say(f"error: {line}")
    if not found.damage:
        _say(f"{args.name}: {found.n_records} records and {found.n_files} files are as they were written")
    return StorageError.exit_code if found.damage else 0, found.to_dict()


def _export_weights(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import export

    name, out = check_name(args.name, "study"), None if args.out is None else Path(args.out)
    done = export.export(name, home=Home.here(), trial=args.trial, out=out)
    _say(f"{_shown(done.folder)}: {done.n_replicas} replicas of {done.key}")
    if done.note:
        _say(f"note: {done.note}")
    return 0, done._asdict() | {"folder": str(done.folder)}


def _ui(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import ui

    return ui.serve(args.name, home=Home.here(args.storage), open_browser=args.open), None


def _decompose(args: argparse.Namespace) -> tuple[int, Any]:
    from lab import predictions_file

    parts = predictions_file.decompose(Path(args.file), loss=args.loss, design=args.design, level=args.level)
    _say(predictions_file.as_text(parts))
    return 0, parts


COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[int, Any]]] = {
    "list": _list, "run": _run, "status": _status, "report": _report, "ui": _ui, "publish": _publish,
    "verify": _verify, "export-weights": _export_weights, "decompose": _decompose,
}  # fmt: skip


if __name__ == "__main__":
    exit_code = main()
    # What the libraries keep in cycles is not searched for garbage at the end: 0.06 s of processor time after `main` of
    # a report in place of 0.9 to 1.1 s (n = 3 by turns, 2 shared cores of an AMD EPYC).
    gc.freeze()
    sys.exit(exit_code)
