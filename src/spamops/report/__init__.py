"""The report: one HTML file that shows what the history holds, for a browser without a network.

`figures` computes from the history, `charts` draws, `page` puts both into the template. Ids, types, models and reasons came
from elsewhere and are hostile until they are escaped.
"""

from __future__ import annotations

from .figures import Figures, compute
from .page import render

__all__ = ["Figures", "compute", "render"]
