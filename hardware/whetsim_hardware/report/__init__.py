"""One page that shows a network: what it computes, on what, and what each chip would do with it."""

from whetsim_hardware.report.content import ReportContent, gather
from whetsim_hardware.report.page import render

__all__ = ["ReportContent", "gather", "render"]
