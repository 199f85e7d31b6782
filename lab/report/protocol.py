"""The protocol as a picture: pool → training sets × seeds → replicas → one test set. Inline SVG, drawn from numbers."""

from markupsafe import Markup, escape

MOST_ROWS, MOST_COLUMNS = 6, 6


def protocol(
    *,
    n_resamples: int,
    n_inits: int,
    n_replicas: int,
    n_train: int,
    n_pool: str,
    n_validation: str,
    n_test: str,
    scheme: str,
) -> Markup:
    """Return the picture; counts beyond six rows or columns are drawn as a gap.

    Args:
        n_resamples: Training sets D. `n_inits`: seeds I.
        n_inits: See `n_resamples`.
        n_replicas: Trainings R of a trial; more than D·I where the label noise is drawn several times.
        n_train: Examples a training set.
        n_pool: What they are drawn from, as text ("1,200 images"). `n_validation`, `n_test`: the other parts.
        n_validation: See `n_pool`.
        n_test: See `n_pool`.
        scheme: How they are drawn.
    """
    rows, columns = _shown(n_resamples, MOST_ROWS), _shown(n_inits, MOST_COLUMNS)
    left, top, cell = 250, 62, 26
    height = max(top + cell * len(rows) + 20, 190)
    label = (
        f"{n_resamples} training sets of {n_train} examples ({scheme}) from {n_pool}, each trained from {n_inits} "
        f"seeds: {n_replicas} replicas, all compared on the same {n_test}; {n_validation} choose."
    )
    middle = top + cell * len(rows) / 2
    parts = [_box(0, middle - 32, 112, 64, "Pool", n_pool)]
    for k, row in enumerate(rows):
        y = top + cell * k + cell / 2
        parts.append(f'<path class="flow" d="M112 {middle:g}L{left - 96} {y:g}"/>')
        name = "⋮" if row is None else f"set {row + 1} · {n_train}"
        parts.append(_text(left - 10, y + 4, name, "end"))
        for c, column in enumerate(columns):
            x = left + cell * c
            if row is None or column is None:
                parts.append(_text(x + cell / 2, y + 4, "⋮" if row is None else "…"))
            else:
                parts.append(f'<rect class="cell" x="{x + 3}" y="{y - 10:g}" width="20" height="20" rx="4"/>')
    for c, column in enumerate(columns):
        text = "…" if column is None else str(column + 1)
        parts.append(_text(left + cell * c + cell / 2, top - 6, text))
    right = left + cell * len(columns)
    parts.append(_text((left + right) / 2, top - 26, "seed"))
    parts.append(_text(left - 10, top - 26, f"training set ({scheme})", "end"))
    parts.append(f'<path class="flow" d="M{right + 6} {middle:g}H{right + 44}"/>')
    parts.append(_box(right + 46, middle - 70, 130, 60, "Validation set", f"{n_validation}: chooses"))
    parts.append(_box(right + 46, middle + 8, 130, 60, "Test set", f"{n_test}: measures"))
    width = right + 178
    return Markup(
        f'<div class="scroll plain" tabindex="0" role="region" aria-label="Protocol">'
        f'<svg class="protocol" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )


def _box(x: float, y: float, width: float, height: float, name: str, text: str) -> str:
    return (
        f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
        + _text(x + width / 2, y + height / 2 - 4, name)
        + _text(x + width / 2, y + height / 2 + 15, text)
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _shown(n: int, most: int) -> list[int | None]:
    """Return which of n are drawn: all, or the first few, a gap (None) and the last."""
    return list(range(n)) if n <= most else [*range(most - 2), None, n - 1]
