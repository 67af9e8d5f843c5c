"""Teachers whose weights ship with the package: digits, shapes and mixture."""
