"""The report bundle: tables, images, notes and provenance as plain files."""
