"""What a report says: report.md, report.html, and the tables beside them."""
