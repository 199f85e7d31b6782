"""Model families that a study file defines: functions that build a torch.nn.Module, named in `family` (lab.models.own).

Knows no torch until there is such a family.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.errors import LabError, SpecError
from lab.knobs import FAMILIES, TrialConfig
from lab.space import Choice
from lab.spec import Study


def names(study: Study) -> list[str]:
    """Return the families of a study that are not the lab's."""
    domain = study.space.get("family")
    wanted = list(domain.options) if isinstance(domain, Choice) else [study.fixed.get("family", FAMILIES[0])]
    wanted += [variant["family"] for variant in study.variants.values() if "family" in variant]
    return [str(name) for name in dict.fromkeys(wanted) if name not in FAMILIES]


def function(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    """Return the function that a family is named after, of a study file and the module that it was loaded as.

    Raises:
        SpecError: There is none.
    """
    found = getattr(module, name, None)
    if not callable(found):
        raise SpecError(
            f"{path}: family {name!r} is unknown: choose one of {', '.join(FAMILIES)}, or define a function "
            "of that name that returns a torch.nn.Module"
        )
    return found


@functools.lru_cache(maxsize=8)
def register(name: str, study_file: str | None) -> None:
    """Make a family known to lab.models, if it is one of the study file; a process does so once.

    Raises:
        SpecError: The file defines no such function.
    """
    if name in FAMILIES:
        return
    if study_file is None:
        raise SpecError(f"family {name!r} is unknown: choose one of {', '.join(FAMILIES)}")
    from lab import models
    from lab.study_file import load_module

    path = Path(study_file)
    models.register(name, function(load_module(path), path, name))


def check(study: Study, image_shape: tuple[int, int, int], n_classes: int, study_file: str | None) -> list[str]:
    """Build each family of the study file once, in the middle of the search space; return what a user should know.

    Raises:
        SpecError: One cannot be built, or does not do what lab.models.own asks of a module.
    """
    notes = []
    for name in names(study):
        register(name, study_file)
        from lab import models

        point = {knob: domain.at(0.5) for knob, domain in study.space.items()}
        variant = next((v for v in study.variants.values() if v.get("family") == name), {})
        config = TrialConfig.from_dict({**study.fixed, **variant, **point, "family": name})
        try:
            network = models.build(config, image_shape, n_classes)
        except LabError:
            raise
        except ValueError as error:
            raise SpecError(f"{study_file}: {error}") from error
        if network.why_alone is not None:
            notes.append(
                f"family {name!r}: replicas are trained one after the other, not stacked, because {network.why_alone}"
            )
    return notes


def digest(name: str, study_file: str | None) -> str | None:
    """Return a hash of the file that defines a family, None for a family of the lab: a checkpoint holds for one."""
    if name in FAMILIES or study_file is None:
        return None
    return hashlib.sha256(Path(study_file).read_bytes()).hexdigest()
