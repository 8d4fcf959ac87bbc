"""The figure of a training report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    from hexopt.models.training import TrainingReport


def error_figure(report: TrainingReport) -> Any:
    """Bars of the mean absolute percentage error by cell and regressor: held out above, beyond the range below."""
    titles = ("Held out, inside the learned range", "Beyond the learned range (logarithmic)")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=titles)
    labels = [f"{p.cell.gpu} {p.cell.llm} {p.cell.tp}x{p.cell.pp}" for p in report.profiles]
    colours = ("#0b6e4f", "#6bbf59", "#d08c1d", "#b23a48")
    for (name, errors), colour in zip(report.errors.items(), colours, strict=False):
        found = [errors[profile.cell] for profile in report.profiles]
        style = {"name": name, "x": labels, "marker_color": colour, "legendgroup": name}
        figure.add_trace(go.Bar(y=[100 * e.mape for e in found], **style), row=1, col=1)
        figure.add_trace(go.Bar(y=[100 * e.beyond_mape for e in found], showlegend=False, **style), row=2, col=1)
    figure.update_yaxes(title_text="MAPE, %", row=1, col=1)
    figure.update_yaxes(title_text="MAPE, %", type="log", tickvals=[1, 2, 5, 10, 20, 50, 100], row=2, col=1)
    figure.update_xaxes(tickangle=60, tickfont_size=9)
    figure.update_layout(
        title="Step time: error by cell and regressor", barmode="group", template="plotly_white", height=900
    )
    return figure
