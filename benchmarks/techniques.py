"""The README's tables of techniques, made from the run history of the studies that measured them.

`python -m benchmarks.techniques interventions` after `python -m lab.study run interventions`, in the same folder: the
table between the marks of that study in README.md is replaced, its caption with counts and n included.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lab import history
from lab.knobs import Value
from lab.report.tables import variants
from lab.storage import Home

README = Path(__file__).parent.parent / "README.md"
TERMS = ("risk", "bias_sq", "variance")
HEAD = ("technique", "switched on by", "in `lab/`", "risk", "bias² + noise", "variance", "time")
ENSEMBLE = "mean of the baseline's predictions"
# where what a knob does is found
WHERE = {
    "family": "models/", "depth": "models/", "width": "models/", "activation": "models/layers.py",
    "norm": "models/layers.py", "pooling": "models/layers.py", "convolutions": "models/cnn.py", "residual": "models/",
    "dropout": "training/dropout.py", "spatial_dropout": "training/dropout.py",
    "init_scheme": "models/initialization.py", "init_gain": "models/initialization.py",
    "optimizer": "training/optimizers.py", "learning_rate": "training/optimizers.py",
    "weight_decay": "training/optimizers.py", "schedule": "training/optimizers.py", "clip_norm": "training/pack.py",
    "patience": "training/stopping.py", "loss": "training/losses.py", "label_smoothing": "training/losses.py",
    "class_weights": "training/losses.py", "l1": "training/pack.py", "averaging": "training/averaging.py",
    "adversarial": "training/attacks.py", "batch_size": "training/batches.py", "epochs": "training/loop.py",
    "precision": "training/precision.py", "n_train": "data/resampling.py", "resize": "data/transforms.py",
    "normalize": "data/transforms.py", "label_noise": "data/label_noise.py",
    **dict.fromkeys(
        ("flip", "shift", "rotation", "zoom", "brightness", "contrast", "pixel_noise", "cutout", "mixup"),
        "data/augmentation.py",
    ),
}  # fmt: skip


def markdown(table: pd.DataFrame, knobs: Mapping[str, Mapping[str, Value]], family: str) -> str:
    """Return caption and table of a study of variants.

    Args:
        table: `lab.analysis.interventions.interventions`.
        knobs: Variant → the knobs in which it differs; the first is the baseline.
        family: Of the baseline, in whose file depth and width are.
    """
    wide = {term: rows.set_index("variant") for term, rows in table.groupby("term")}
    risk = wide["risk"].sort_values(["difference", "variant"], kind="stable")
    lines = [caption(table), "", _line(HEAD), _line(["---"] * len(HEAD))]
    for name in risk.index:
        own = knobs.get(name)
        switched = ENSEMBLE if own is None else f"`{', '.join(f'{k}={_value(v)}' for k, v in own.items())}`"
        changes = [_change(wide[term].loc[name]) for term in TERMS]
        if risk.loc[name, "hi"] < 0 or risk.loc[name, "lo"] > 0:
            changes[0] = f"**{changes[0]}**"
        time = _time(wide["epoch_time"].loc[name]) if name in wide.get("epoch_time", pd.DataFrame()).index else ""
        lines.append(
            _line([re.sub(r"_[\d.]+$", "", name).replace("_", " "), switched, _where(own, family), *changes, time])
        )
    return "\n".join(lines) + "\n"


def caption(table: pd.DataFrame) -> str:
    """Return what the baseline was, what n is, and how many techniques had an effect that chance does not explain."""
    risk = table[table["term"] == "risk"]
    n, lower, higher = len(risk), int((risk["hi"] < 0).sum()), int((risk["lo"] > 0).sum())
    whole, bias, variance = (100 * table.loc[table["term"] == term, "baseline"].iloc[0] for term in TERMS)
    first, pairs = risk.iloc[0], table["n_timings"].max()
    D, I = first["n_resamples"], first["n_inits"]  # noqa: E741 - training sets and seeds, as everywhere
    return (
        f"The baseline's risk is {whole:.1f}, of which bias² + noise {bias:.1f} and variance {variance:.1f} (Brier "
        f"score × 100). Of {n} techniques {lower} lowered the risk, {higher} raised it, and of {n - lower - higher} it "
        f"cannot be said ({(1 - first['level']) * n:.0f} of {n} without any effect would seem to have one). "
        f"n = {D * I:.0f} replicas a row ({D:.0f} training sets × {I:.0f} seeds), {first['n_test']:.0f} test images; "
        f"time: of an epoch, as a multiple of the baseline's, n = {pairs:.0f} pairs."
    )


def _change(row: pd.Series) -> str:
    if pd.isna(row["lo"]) or row["lo"] == row["hi"] == 0:
        return _signed(row["difference"])
    return f"{_signed(row['difference'])} [{_signed(row['lo'])}, {_signed(row['hi'])}]"


def _signed(value: float) -> str:
    if value == 0:
        return "0"
    return f"{100 * value:+.1f}".replace("-", "−")


def _time(row: pd.Series) -> str:
    if pd.isna(row["lo"]):  # of an ensemble, by its nature
        return f"{row['value']:.3g}"
    return f"{row['value']:.2f} [{1 + row['lo']:.2f}, {1 + row['hi']:.2f}]"


def _where(own: Mapping[str, Value] | None, family: str) -> str:
    """Return the file of the first knob of a variant."""
    if own is None:
        return "analysis/interventions.py"
    where = WHERE[next(iter(own))]
    return f"{where}{own.get('family', family)}.py" if where == "models/" else where


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def placed(readme: str, study: str, text: str) -> str:
    """Return a README with the text between the marks of a study.

    Raises:
        ValueError: It has no such marks.
    """
    begin, end = f"<!-- techniques: {study} -->\n", "<!-- end -->"
    before, found, after = readme.partition(begin)
    if not found or end not in after:
        raise ValueError(f"README.md has no table of {study}: put {begin.strip()} and {end} where it is to be")
    return f"{before}{begin}\n{text}\n{end}{after.partition(end)[2]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Renew the tables of the studies named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.techniques", description=__doc__)
    parser.add_argument("studies", nargs="+", help="studies of variants, as they are stored")
    parser.add_argument("--home", type=Path, default=Path.cwd(), help="the folder that holds mlruns/")
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args(arguments)
    for study in options.studies:
        found: Any = history.load(study, home=Home(options.home))
        text = markdown(variants(found), found.spec["variants"], found.spec["fixed"]["family"])
        options.readme.write_text(placed(options.readme.read_text(encoding="utf-8"), study, text), encoding="utf-8")


if __name__ == "__main__":
    main()
