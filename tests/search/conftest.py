"""Nothing here trains or writes MLflow."""

from tests.toys import faked, home, memory, tmp_path

__all__ = ["faked", "home", "memory", "tmp_path"]
