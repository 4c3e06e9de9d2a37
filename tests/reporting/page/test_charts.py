import pytest

from lightning_gancompress.reporting.page.charts import Line, LineChart, nice_ticks, spread
from lightning_gancompress.reporting.page.rendering import render


def draw(chart: LineChart) -> str:
    return render("chart.svg", chart=chart)


def test_ticks_are_round_and_span_the_range():
    assert nice_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert nice_ticks(0, 37) == [0, 10, 20, 30, 40]
    assert nice_ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]


def test_labels_move_apart_but_not_below():
    assert spread([10, 12, 100], 12, 100) == [10, 22, 100]
    assert spread([99, 100], 12, 100) == [88, 100]


def test_long_curves_are_thinned_to_means():
    assert Line("", [(0, 1.0), (1, 3.0)], "").thin == [(0, 1.0), (1, 3.0)]
    points = Line("", [(step, float(step % 2)) for step in range(400)], "").thin
    assert (len(points), points[-1]) == (200, (399, 0.5))


def test_names_are_escaped_and_the_border_drawn():
    chart = draw(LineChart("<b>", "", (Line("<i>", [(0, 0.0), (10, 1.0)], "generator"),), split=5))
    assert "<b>" not in chart
    assert "<i>" not in chart
    assert "&lt;i&gt;" in chart
    assert ("search" in chart, 'class="split"' in chart) == (True, True)


@pytest.mark.parametrize("points", [[(0, 0.0)], [(5, 2.0), (5, 2.0)], [(0, -3.0), (1, -3.0)]])
def test_flat_and_single_points_can_be_drawn(points):
    assert "nan" not in draw(LineChart("flat", "", (Line("x", points, ""),)))
