"""Grids that are found by a search on the teacher: `gits`, `oss` and `dmn`, each kept in a file once it is made."""
