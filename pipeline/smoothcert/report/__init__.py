"""The report: one self-contained page that shows what runs certify. It reads committed rows and makes no numbers."""

from smoothcert.report.report import make_report

__all__ = ["make_report"]
