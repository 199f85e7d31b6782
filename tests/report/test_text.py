import math

import pytest

from lab.report.text import duration, interval, num, percent, sentence, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.0042, "−0.00420"), (12345.6, "12,346"), (32.0, "32"), (0.0, "0"), (math.nan, "–"),
     (None, "–"), (math.inf, "–"), (1.5, "1.50"), (3.2e-6, "3.20e−6"), ("x", "–")],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value, text):
    assert num(value).replace("e−06", "e−6") == text


def test_an_interval_is_rounded_as_its_value():
    assert with_interval({"r": 0.12345, "r_lo": 0.1, "r_hi": 0.1399}, "r") == "0.123 [0.100, 0.140]"
    assert with_interval({"r": 0.5, "r_lo": math.nan, "r_hi": 1.0}, "r") == "0.500"
    assert interval(-0.001, 0.002, 0.0005) == "[−0.001000, 0.002000]"


def test_shares_do_not_break_before_the_sign():
    assert percent(0.123) == "12\u00a0%" and percent(math.nan) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (59.2, "59 s"), (125, "2 min 5 s"), (11400, "3 h 10 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_remarks_become_sentences_and_names_of_knobs_stay():
    assert sentence("train longer") == "Train longer."
    assert sentence("n_train from 1 to 2!") == "n_train from 1 to 2!"
    assert sentence("") == ""
