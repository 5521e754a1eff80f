"""Diaries of trainings: reading them and drawing them. `whetsim.sharpen.Diary` writes them."""

from __future__ import annotations

from whetsim.report.diary_file import DiaryEntry, DiaryFile, Scores, read_diary
from whetsim.report.diary_plot import plot_diary

__all__ = ["DiaryEntry", "DiaryFile", "Scores", "plot_diary", "read_diary"]
