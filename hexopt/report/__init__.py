"""Pages to look at: what runs were worth, and what happened in them."""

from hexopt.report.page import Scenario, write_page

__all__ = ["Scenario", "write_page"]
