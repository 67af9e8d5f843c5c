"""The contents of a report: report.md, report.html, and the tables beside them."""
