"""A specification that cannot be meant is refused at once, in one line that names the field, and nothing is written."""

import time

import pytest

from lab import study
from tests.bad_specs import BAD, FILES

GOOD = """
from lab.spec import Choice, Float, Int, Pretraining, Replication, Study
GOOD = dict(question="Why?", data="digits", space={{"width": Int(4, 64, log=True)}}, fixed={{"epochs": 5}})
STUDY = Study(**(GOOD | dict({change})))
"""


def test_the_corpus_is_large_and_holds_nothing_twice():
    assert len(BAD) + len(FILES) >= 150
    assert len({change for change, _ in BAD}) == len(BAD)


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    def refused(text):
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "wrong.py"
        path.write_text(text)
        started = time.process_time()
        code = study.main(["run", "wrong.py"])
        seconds = time.process_time() - started
        streams = capsys.readouterr()
        assert (code, streams.out) == (2, "")
        assert seconds < 1.0
        assert [p.name for p in tmp_path.iterdir()] == ["wrong.py"]
        [line] = streams.err.splitlines()
        assert line.startswith("error: wrong.py")
        return line

    return refused


@pytest.mark.parametrize(("change", "says"), BAD)
def test_a_bad_specification_is_one_line_that_names_the_field(refusal, change, says):
    line = refusal(GOOD.format(change=change))
    assert says in line.partition("wrong.py:")[2]
    assert "Error:" not in line  # no exception of Python that happened to come out


@pytest.mark.parametrize(("text", "says"), FILES)
def test_a_file_that_is_no_study_is_one_line_that_names_it(refusal, text, says):
    assert says in refusal(text)


@pytest.mark.parametrize("data", ["digits[0-999999999]", "digits[999999999,1]", "[0-999999999]"])
def test_classes_that_no_data_set_has_are_one_line_at_once(tmp_path, monkeypatch, capsys, data):
    monkeypatch.chdir(tmp_path)
    first = f"pretraining=Pretraining({data!r}), fixed={{'weights': 'pretraining', 'new_head': True}}"
    (tmp_path / "wrong.py").write_text(GOOD.format(change=first if data.startswith("[") else f"data={data!r}"))
    started = time.process_time()
    assert study.main(["run", "wrong.py"]) == 2
    assert time.process_time() - started < 10.0  # a list of so many classes alone takes longer, and 30 GB
    assert "no data set has 10,000 classes" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.py"]
