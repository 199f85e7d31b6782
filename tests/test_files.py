"""A file is there as it was, or as it is to be."""

import errno
import os

import pytest

from lab import files
from lab.errors import StorageError


def test_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "page.html"
    files.atomic_write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(StorageError, match="broken"):
            files.atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    files.atomic_write_text(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
