from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from small_run import random_run, small_run

from hexopt.report.figures import COLOURS, GREY
from hexopt.research.gantt import gantt_svg

SVG = "{http://www.w3.org/2000/svg}"


def bars(text):
    return ElementTree.fromstring(text).findall(f"{SVG}rect")


@pytest.mark.parametrize("window", [(0.0, 40.0), (15.0, 20.0), (30.0, 90.0)])
def test_every_call_of_the_window_is_a_bar_and_none_lies_on_another(window):
    run = random_run("edf", 30, seed=1)
    found = bars(gantt_svg(run, *window, "a < b"))
    inside = (run.stage["start"] < window[1]) & (run.stage["finish"] > window[0])
    assert len(found) == inside.sum()
    scale = 880.0 / (window[1] - window[0])
    left = np.array([float(bar.get("x")) for bar in found])
    width = np.array([float(bar.get("width")) for bar in found])
    clipped = np.clip(run.stage["finish"][inside], None, window[1]) - np.clip(
        run.stage["start"][inside], window[0], None
    )
    assert np.sort(width) == pytest.approx(np.sort(clipped * scale), abs=0.21)
    assert left.min() >= 110.0 - 1e-9 and (left + width).max() <= 990.3
    lanes = {}
    for bar, begin, length in zip(found, left, width, strict=True):
        lanes.setdefault(bar.get("y"), []).append((begin, begin + length))
    for there in lanes.values():
        there.sort()
        assert all(a[1] <= b[0] + 0.25 for a, b in pairwise(there))


def test_colours_are_the_safe_ones_and_late_workflows_are_outlined():
    run = small_run()
    found = bars(gantt_svg(run, 0.0, 10.0, "small"))
    assert {bar.get("fill") for bar in found} <= {*COLOURS, GREY}
    hints = {bar.find(f"{SVG}title").text: bar for bar in found}
    late = [bar.get("stroke") is not None for hint, bar in hints.items() if "of workflow 1" in hint]
    assert all(late) and not any(bar.get("stroke") for hint, bar in hints.items() if "of workflow 0" in hint)
    text = gantt_svg(run, 0.0, 10.0, "a < b & c")
    assert "a &lt; b &amp; c" in text and gantt_svg(run, 0.0, 10.0, "a < b & c") == text
