"""How much of the variance comes from the noise of the labels, where a study redraws it on the same images.

With three causes (training set d, seed i, draw k of the label noise; Adlam & Pennington 2020) the terms that hold k add
up to E[Var_k(f | d, i)]: what redrawing the noise alone changes, on the same images and from the same seed.
"""

import math

import numpy as np
import pandas as pd

from lab.analysis.capacity_curve import Estimate, estimate, number_column, of_phase, selection_risk
from lab.spec import CAPACITY_KNOBS

TERMS = (
    "variance_label_noise", "variance_resample_label_noise", "variance_init_label_noise", "variance_three_way",
)  # fmt: skip
NOTHING = 1e-12  # what rounding leaves of a term that is 0, as all are where no label is redrawn
COLUMNS = [
    "key", "number", "label_noise", *CAPACITY_KNOBS, "n_replicas", "n_noise_draws",
    *(f"{part}{end}" for part in ("variance", "variance_of_labels", *TERMS) for end in ("", "_lo", "_hi")), "share",
]  # fmt: skip


def noisy_labels(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one row a share of noisy labels and capacity: the explore trial with the lowest validation risk there.

    Args:
        trials: Table `trials` of a run history.

    Returns:
        Columns `COLUMNS`, by label_noise and capacity: `variance_of_labels` is the sum of `TERMS`; its ends add up the
        half-widths of the terms, so that it holds whenever all of them do. `share`: of the variance. Empty where no
        noise was redrawn, or its share does not vary.
    """
    rows = of_phase(trials, "explore")
    redrawn = (number_column(rows, "n_noise_draws") > 1) & np.isfinite(number_column(rows, TERMS[-1]))
    rows = rows[redrawn & np.isfinite(number_column(rows, "label_noise"))]
    if rows.empty or rows["label_noise"].nunique() < 2:
        return pd.DataFrame(columns=COLUMNS)
    knobs = ["label_noise", *(knob for knob in CAPACITY_KNOBS if knob in rows)]
    rows = rows.assign(_selection=selection_risk(rows)).sort_values([*knobs, "_selection", "number"], kind="stable")
    table = []
    for _, row in rows.groupby(knobs, sort=True, dropna=False).head(1).iterrows():
        total, of_labels = estimate(row, "variance"), _sum([estimate(row, term) for term in TERMS])
        table.append({column: row.get(column, math.nan) for column in COLUMNS} | {
            "variance_of_labels": of_labels.value, "variance_of_labels_lo": of_labels.lo,
            "variance_of_labels_hi": of_labels.hi,
            "share": of_labels.value / total.value if total.value > 0 else math.nan,
        })  # fmt: skip
    found = pd.DataFrame(table, columns=COLUMNS)
    numbers = found.select_dtypes("number")
    return found.assign(**numbers.mask(numbers.abs() < NOTHING, 0.0))


def _sum(parts: list[Estimate]) -> Estimate:
    return Estimate(sum(p.value for p in parts), sum(p.lo for p in parts), sum(p.hi for p in parts))
