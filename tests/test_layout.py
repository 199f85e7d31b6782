"""The tree is the architecture: README and repository show the same one, and every dependency has its owners."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "lab").rglob("*.py"))


def room(path):
    return path.relative_to(ROOT).as_posix()


# dependency → the files or folders of lab/ that may import it
OWNERS = {
    "mlflow": ("lab/mlflow_store.py", "lab/mlflow_rows.py", "lab/tracking.py", "lab/history.py", "lab/ui.py"),
    "optuna": ("lab/search/", "lab/ui.py", "lab/analysis/attribution.py"),
    "optuna_dashboard": ("lab/ui.py",),
    "plotly": ("lab/report/",),
    "jinja2": ("lab/report/",),
    "ray": ("lab/workers/",),
    "torch": (
        "lab/data/",
        "lab/models/",
        "lab/training/",
        "lab/workers/",
        "lab/trial.py",
        "lab/course.py",
        "lab/first_stage.py",
        "lab/outcome.py",
    ),
    "torchvision": ("lab/data/", "lab/models/pretrained.py"),
    "imblearn": ("lab/data/",),
    "filelock": ("lab/storage.py",),
}
PICKLES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=room)
def test_a_dependency_is_imported_by_its_owners_only(path):
    for name in imports(path):
        if name in OWNERS:
            assert room(path).startswith(OWNERS[name]), f"{room(path)} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=room)
def test_nothing_is_pickled(path):
    assert not PICKLES & set(imports(path))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("torch.load", "torch.save"), f"{room(path)}:{node.lineno}"
        if called in ("np.load", "numpy.load"):
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            assert [getattr(value, "value", None) for value in allowed] == [False], f"{room(path)}:{node.lineno}"


def test_training_needs_torch_alone():
    """A bare GPU machine has torch and numpy, but none of these."""
    code = """
import sys
for name in ("mlflow", "optuna", "plotly", "jinja2", "optuna_dashboard", "filelock", "sklearn", "pyarrow"):
    sys.modules[name] = None
import lab.training, lab.models, lab.data, lab.analysis.decomposition
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def readme_tree():
    """Return path → comment of the tree that the README prints, folders ending in a slash."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("<!-- tree -->") + 2
    found, folders = {}, []
    for line in lines[start : lines.index("```", start)]:
        name, _, comment = line.strip().partition("  ")
        level = (len(line) - len(line.lstrip())) // 2
        folders[level:] = [name] if name.endswith("/") else []
        path = "".join(folders[:level]) + name
        found[path] = comment.strip()
    return found


def listed_by_git():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [f for f in files if f]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_readme_prints_the_real_tree():
    """Every top-level entry, every Python file of lab/ and benchmarks/, every file of studies/; all with a comment."""
    wanted = set()
    for file in listed_by_git():
        first, slash, rest = file.partition("/")
        if first.startswith("."):
            continue
        wanted.add(first + slash)
        if first in ("lab", "studies", "benchmarks") and rest:
            parts = rest.split("/")
            wanted |= {f"{first}/" + "/".join(parts[:k]) + "/" for k in range(1, len(parts))}
            if first == "studies" or (file.endswith(".py") and parts[-1] != "__init__.py"):
                wanted.add(file)
    tree = readme_tree()
    generated = {"mlruns/", "reports/"}
    assert set(tree) - generated == wanted
    assert generated <= set(tree)
    assert all(tree.values()), [path for path, comment in tree.items() if not comment]


def test_what_has_to_pass_runs_the_readmes_test_command():
    [command] = re.findall(r"^python -m pip install -e '\.\[test\]' && (.+)$", (ROOT / "README.md").read_text(), re.M)
    check = (ROOT / ".ci" / "run").read_text().splitlines()
    assert check[-1] == f"LAB_REQUIRE_BROWSER=1 LAB_REQUIRE_SERVERS=1 {command}"


def test_all_tests_train_on_one_thread():
    """Promised bits need it; tests.conftest asks for it, in each process that pytest starts."""
    import torch

    assert torch.get_num_threads() == 1


def test_the_tests_that_contributing_names_for_each_fault_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = text[text.index("## What may go wrong") : text.index("## Habits")]
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", rows)
    assert len(set(named)) > 10
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
